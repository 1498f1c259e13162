"""Where the model looked: maps of the mistakes and of correct predictions.

Can the maps be believed: what their measures, their controls and the planted masks say.
"""

from __future__ import annotations

from typing import Any

from sightline.report import pictures
from sightline.report.blocks import (
    Block,
    Column,
    Details,
    MapCard,
    MapCards,
    MapColumn,
    Note,
    Picture,
    Section,
    Table,
    Tile,
)
from sightline.report.formatting import number, page_name, percent, plural
from sightline.report.run_data import Gallery, ReportData
from sightline.report.sections.mistakes import mistake_tile

_belief_GROUP = "Where it looked"
MAPS_PART = "Can these maps be believed?", "belief"  # title and anchor of the section
_TRUSTED = "better than every control"


def belief_section(data: ReportData) -> Section | None:
    found = data.faithfulness
    if not found:
        return None
    blocks: list[Block] = [_verdicts(found), _methods(found)]
    blocks += [Note(sentence) for sentence in _remarks(found)]
    if found.get("planted"):
        blocks.append(_planted(found["planted"]))
        blocks += [Note(f"{name}: {why}.") for name, why in found["planted"].get("skipped", {}).items()]
    blocks.append(Details("Every measure beside every control", (_controls(found),)))
    if found.get("preflight"):
        blocks.append(Details("What this model allows", tuple(Note(line) for line in found["preflight"])))
    lead = (
        f"Of {plural(len(found['methods']), 'method')} tried at {found['layer']} on "
        f"{plural(found['images'], 'test image')}, {found['best']} was the most faithful to the model: "
        f"{found['methods'][0]['verdict']}."
    )
    return Section(*MAPS_PART, _belief_GROUP, lead, tuple(blocks))


def maps_doubt(data: ReportData) -> str:
    """Return a sentence on why not to believe the maps of the page, or "" if they beat every control."""
    found = data.faithfulness
    if not found:
        return ""
    ranked = found["coincide"].get(data.method_name, data.method_name)
    verdicts = {method["name"]: method["verdict"] for method in found["methods"]}
    verdict = verdicts.get(ranked, _TRUSTED)
    if verdict == _TRUSTED:
        return ""
    doubt = (
        "The heat maps of this page are not to be believed as they stand: on "
        f"{plural(found['images'], 'image')} {data.method} was {verdict}."
    )
    if verdicts.get(found["best"]) != _TRUSTED:
        return doubt
    return f"{doubt} {found['best']} was {_TRUSTED}: --set analysis.method={found['best']} draws with it."


def _verdicts(found: dict[str, Any]) -> Table:
    caption = (
        "Best first. A method is held against maps that cannot know better: a random one, a centred blob, "
        "the picture's edges, another class's map, and the map of an untrained twin of the model."
    )
    rows = tuple((method["name"], method["verdict"]) for method in found["methods"])
    return Table(caption, (Column("Method"), Column("Verdict")), rows)


def _methods(found: dict[str, Any]) -> Table:
    measures = found["measures"]
    columns = [Column("Method")]
    for measure in measures:
        arrow = "↑" if measure["higher_is_better"] else "↓"
        columns.append(Column(f"{_spaced(measure['name'])} {arrow}", numeric=True))
    columns.append(Column("ms per image", numeric=True))
    rows = []
    for method in found["methods"]:
        values = [method["values"][measure["name"]] for measure in measures]
        cells = [f"{number(mean)} ({number(low)} to {number(high)})" for mean, low, high in values]
        rows.append((method["name"], *cells, f"{method['ms_per_image']:.2f}"))
    fills = "; ".join(f"{_spaced(m['name'])}: {_spaced(m['fill'])}" for m in measures if m.get("fill"))
    caption = (
        "Mean over images with its 95\u00a0% interval; ↓ lower is better, ↑ higher is better. What takes the "
        f"place of removed pixels: {fills}."
    )
    return Table(caption, tuple(columns), tuple(rows))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _remarks(found: dict[str, Any]) -> list[str]:
    remarks = []
    if found["tied"]:
        remarks.append(f"Not to be told apart from {found['best']} here: {', '.join(found['tied'])}.")
    groups: dict[str, list[str]] = {}
    for name, other in found["coincide"].items():
        groups.setdefault(other, []).append(name)
    remarks += [
        f"The same maps as {other} on this model, and so not ranked: {', '.join(names)}."
        for other, names in groups.items()
    ]
    remarks += [f"{name} was left out: {reason}." for name, reason in found["skipped"].items()]
    if game := found.get("grid"):
        remarks.append(
            f"Grid pointing game: in {plural(game['n'], 'grid')} of four confident test images, "
            f"{percent(game['mean'])} of {game['method']}'s positive map fell on the image of its class "
            f"({percent(game['low'])} to {percent(game['high'])}; chance is {percent(game['chance'])})."
        )
    return remarks


def _planted(planted: dict[str, Any]) -> Table:
    columns = (
        Column("Method"),
        Column("Maximum on the object", numeric=True),
        Column("Heat on the object", numeric=True),
        Column("Heat on the mark", numeric=True),
    )
    rows = tuple(
        (row["name"], percent(row["pointing"]), percent(row["energy"]), _share(row["on_mark"]))
        for row in [*planted["methods"], planted["even"]]
    )
    caption = (
        f"Against the planted masks: {plural(planted['objects'], 'unmarked image')} that were predicted "
        f"correctly, and {plural(planted['fooled'], 'marked image')} that were taken for the mark's class. "
        "Where the model decides by the mark, a faithful map lies on it."
    )
    return Table(caption, columns, rows)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _controls(found: dict[str, Any]) -> Table:
    columns = (
        Column("Method"),
        Column("Measure"),
        Column("Control"),
        Column("Control's mean", numeric=True),
        Column("Better by", numeric=True),
        Column("In a word"),
    )
    rows = tuple(
        (
            row["method"],
            _spaced(row["measure"]),
            row["control"],
            number(row["mean"]),
            f"{number(row['difference'])} ({number(row['low'])} to {number(row['high'])})",
            row["word"],
        )
        for row in found["controls"]
    )
    return Table(
        "Paired differences over the same images, with 95\u00a0% bootstrap intervals.", columns, rows
    )


_GROUP = "Where it looked"


def mistakes_section(data: ReportData) -> Section | None:
    gallery = data.galleries.get("mistakes")
    if gallery is None:
        return None
    lead = (
        f"{data.method} at {data.main_layer}: on the left what spoke for the wrong answer, on the right "
        "what spoke for the true class; bright on the object and still wrong is another fault than bright "
        "beside it."
    )
    blocks: list[Block] = [_cards(data, gallery, data.main_layer)]
    for layer in gallery.maps:
        if layer != data.main_layer:
            title = f"The same at {layer} ({_cells(gallery, layer)})"
            blocks.append(Details(title, (_cards(data, gallery, layer),)))
    return Section(f"{data.method} of the mistakes", "where-mistakes", _GROUP, lead, tuple(blocks))


def correct_section(data: ReportData) -> Section | None:
    gallery = data.galleries.get("correct")
    if gallery is None:
        return None
    lead = (
        "Where the model is right, the bright part should be the object; a bright background is a shortcut "
        "that happens to work on this test set."
    )
    block = _cards(data, gallery, data.main_layer)
    return Section(f"{data.method} of correct predictions", "where-correct", _GROUP, lead, (block,))


def _cards(data: ReportData, gallery: Gallery, layer: str) -> MapCards:
    columns = {target: _columns(data, gallery, layer, target) for target in ("predicted", "label")}
    cards = []
    for place, index in enumerate(gallery.index):
        if data.predictions.correct[index]:
            cards.append(MapCard(_correct_tile(data, gallery, place), (columns["predicted"][place],)))
        else:
            both = (columns["predicted"][place], columns["label"][place])
            cards.append(MapCard(mistake_tile(data, gallery, place), both))
    caption = (
        f"Above: the map at the layer's own resolution ({_cells(gallery, layer)}), scaled to its largest "
        "value, black where nothing speaks for the class. Below: the same, smoothed, over the picture."
    )
    return MapCards(caption, tuple(cards))


def _columns(data: ReportData, gallery: Gallery, layer: str, target: str) -> list[MapColumn]:
    raw = gallery.maps[layer][target]  # (M, h, w)
    alone, overlaid = pictures.alone(raw), pictures.overlaid(gallery.images, raw)
    classes = data.predictions.predicted if target == "predicted" else data.predictions.labels
    columns = []
    for place, index in enumerate(gallery.index):
        name = page_name(data.class_names[classes[index]], most=24)
        heading = f"for {name}"
        if message := pictures.message(raw[place]):
            nothing = Picture("", f"Map for {name}: {message}", message)
            columns.append(MapColumn(heading, nothing, nothing))
            continue
        alt = f"{data.method} map for {name} at {layer}, test image {index}"
        over = pictures.tile(overlaid[place], f"{alt}, over the picture")
        columns.append(MapColumn(heading, pictures.tile(alone[place], alt), over))
    return columns


def _correct_tile(data: ReportData, gallery: Gallery, place: int) -> Tile:
    index = int(gallery.index[place])
    name = page_name(data.class_names[data.predictions.labels[index]])
    picture = pictures.tile(gallery.images[place], f"Test image {index}, {name}, predicted right")
    return Tile((picture,), name, (f"{percent(data.predictions.confidence[index])} sure", f"image {index}"))


def _cells(gallery: Gallery, layer: str) -> str:
    height, width = gallery.maps[layer]["predicted"].shape[1:]
    return f"{height} × {width} cells"
