"""Where the model looked: heat maps of the mistakes and of right answers, and whether to believe them."""

from __future__ import annotations

from sightline.faithfulness.result import BETTER_THAN_EVERY_BASELINE, FaithfulnessResult, Planted
from sightline.report.blocks import (
    Block,
    Column,
    Details,
    Heading,
    MapCard,
    MapCards,
    MapColumn,
    Note,
    Picture,
    Section,
    Table,
    Tile,
)
from sightline.report.formatting import interval_text, number, page_name, percent, plural, view
from sightline.report.gallery import map_message, maps_alone, maps_overlaid, tile_picture
from sightline.report.run_data import ExplainedImages, RunData

MISTAKES = Heading(
    "Mistakes with maps",
    "mistakes-with-maps",
    "Overview",
    terms=("Heat map", "Loss", "Confidence", "Faithful map"),
)
_CORRECT = Heading(
    "Right answers with maps", "correct-with-maps", "Where it looked", terms=("Heat map", "Shortcut")
)
FAITHFULNESS = Heading(
    *("Can these maps be believed?", "faithfulness", "Where it looked"),
    terms=("Faithful map", "Baseline map", "Deletion, insertion", "ROAD", "Grid pointing game"),
)
_SHOWN = 10  # mistakes with maps


def mistakes_section(run: RunData) -> Section | None:
    shown = run.explained.get("mistakes")
    if shown is None:
        return None
    shown = shown.first(_SHOWN)
    wrong = int((~run.predictions.correct).sum())
    lead = (
        f"The {plural(len(shown.index), 'mistake')} with the highest loss, out of {wrong:,}. On the left is "
        "what spoke for the wrong answer, on the right what spoke for the true class. Is the bright part on "
        "the object, or next to it?"
    )
    blocks: list[Block] = [_cards(run, shown, run.main_layer)]
    for layer in shown.maps:
        if layer != run.main_layer:
            title = f"The same at layer {layer} ({_cells(shown, layer)})"
            blocks.append(Details(title, (_cards(run, shown, layer),)))
    return Section(MISTAKES, lead, tuple(blocks))


def correct_section(run: RunData) -> Section | None:
    shown = run.explained.get("correct")
    if shown is None:
        return None
    lead = (
        "Where the model is right, the bright part should be the object. A bright background is a shortcut "
        "that happens to work on these test images."
    )
    return Section(_CORRECT, lead, (_cards(run, shown, run.main_layer),))


def _cards(run: RunData, shown: ExplainedImages, layer: str) -> MapCards:
    columns = {target: _columns(run, shown, layer, target) for target in ("predicted", "label")}
    cards = []
    for place, index in enumerate(shown.index):
        correct = bool(run.predictions.correct[index])
        both = (
            (columns["predicted"][place],)
            if correct
            else (columns["predicted"][place], columns["label"][place])
        )
        cards.append(MapCard(_tile(run, shown, place), both))
    found = f", {run.layer_reason}" if layer == run.main_layer and run.layer_reason else ""
    caption = (
        f"{run.method} at layer {layer}{found}. Above: the map in the resolution of the layer "
        f"({_cells(shown, layer)}), scaled to its largest value and black where nothing speaks for the "
        "class. Below: the same, smoothed, over the picture."
    )
    return MapCards(caption, tuple(cards))


def _columns(run: RunData, shown: ExplainedImages, layer: str, target: str) -> list[MapColumn]:
    raw = shown.maps[layer][target]  # (M, h, w)
    alone, overlaid = maps_alone(raw), maps_overlaid(shown.images, raw)
    classes = run.predictions.predicted if target == "predicted" else run.predictions.labels
    columns = []
    for place, index in enumerate(shown.index):
        name = page_name(run.class_names[classes[index]], limit=24)
        heading = f"for {name}"
        if message := map_message(raw[place]):
            nothing = Picture("", f"Map for {name}: {message}", message)
            columns.append(MapColumn(heading, nothing, nothing))
            continue
        alt = f"{run.method} map for {name} at layer {layer}, test image {index}"
        over = tile_picture(overlaid[place], f"{alt}, over the picture")
        columns.append(MapColumn(heading, tile_picture(alone[place], alt), over))
    return columns


def _tile(run: RunData, shown: ExplainedImages, place: int) -> Tile:
    """Return a picture with its true and predicted class, confidence and loss, leading to its details."""
    index, predictions = int(shown.index[place]), run.predictions
    true, guess = (page_name(run.class_names[c[index]]) for c in (predictions.labels, predictions.predicted))
    sure, href = f"{percent(predictions.confidence[index], digits=0)} sure", view(img=index)
    if predictions.correct[index]:
        picture = tile_picture(shown.images[place], f"Test image {index}, {true}, right")
        return Tile((picture,), true, (sure, f"image {index}"), href)
    alt = f"Test image {index}, true class {true}, predicted {guess}"
    lines = (f"loss {number(predictions.loss[index])}", sure, f"image {index}")
    return Tile((tile_picture(shown.images[place], alt),), f"{guess}, not {true}", lines, href)


def _cells(shown: ExplainedImages, layer: str) -> str:
    height, width = shown.maps[layer]["predicted"].shape[1:]
    return f"{height} × {width} cells"


def faithfulness_section(run: RunData) -> Section | None:
    found = run.faithfulness
    if found is None:
        return None
    blocks: list[Block] = [_verdicts(found), _measures(found)]
    blocks += [Note(sentence) for sentence in _remarks(found)]
    if planted := found.planted:
        skipped = [Note(f"{name}: {why}.") for name, why in planted.skipped.items()]
        blocks.append(Details("Every method next to the planted masks", (_planted(planted), *skipped)))
    blocks.append(Details("Every measure next to every baseline map", (_baselines(found),)))
    if found.preflight:
        blocks.append(Details("What this model allows", tuple(Note(line) for line in found.preflight)))
    lead = (
        f"{plural(len(found.methods), 'method was', 'methods were')} compared at layer {found.layer} "
        f"on {plural(found.images, 'test image')}. The most faithful to the model is {found.best}: "
        f"{found.methods[0].verdict}."
    )
    return Section(FAITHFULNESS, lead, tuple(blocks))


def maps_doubt(run: RunData) -> str:
    """Return a sentence on why not to believe the maps of the page, or "" if they beat every baseline map."""
    found = run.faithfulness
    if found is None:
        return ""
    verdict = found.verdict(run.method_name)
    if verdict in (None, BETTER_THAN_EVERY_BASELINE):
        return ""
    if not found.is_doubted(run.method_name):
        return (
            "Whether the heat maps of this page can be trusted is not known: "
            f"{plural(found.images, 'image')} are too few to tell. On them {run.method} was {verdict}. "
            "For an answer: --set analysis.compare_images=50."
        )
    doubt = (
        f"Do not trust the heat maps of this page as they are: on {plural(found.images, 'image')} "
        f"{run.method} was {verdict}."
    )
    if found.verdict(found.best) != BETTER_THAN_EVERY_BASELINE:
        return doubt
    better = f"{found.best} was {BETTER_THAN_EVERY_BASELINE}"
    return f"{doubt} {better}: use it with --set analysis.method={found.best}."


def _verdicts(found: FaithfulnessResult) -> Table:
    caption = (
        "The best method first. Each is compared with baseline maps that cannot know the answer: a random "
        "one, a centred blob, the edges of the picture, the map of another class, and the map of an "
        "untrained copy of the model."
    )
    rows = tuple((method.name, method.verdict) for method in found.methods)
    return Table(caption, (Column("Method"), Column("Verdict")), rows)


def _measures(found: FaithfulnessResult) -> Table:
    measures = found.measures
    columns = [Column("Method")]
    for measure in measures:
        arrow = "↑" if measure.higher_is_better else "↓"
        columns.append(Column(f"{_spaced(measure.name)} {arrow}", numeric=True))
    columns.append(Column("ms per image", numeric=True))
    rows = []
    for method in found.methods:
        values = [method.values[measure.name] for measure in measures]
        cells = [interval_text(*value) for value in values]
        rows.append((method.name, *cells, number(method.ms_per_image)))
    fills = "; ".join(f"{_spaced(m.name)}: {_spaced(m.fill)}" for m in measures if m.fill)
    caption = (
        "Mean over the images with its 95\u00a0% interval. ↓: lower is better, ↑: higher is better. What "
        f"replaces removed pixels: {fills}."
    )
    return Table(caption, tuple(columns), tuple(rows))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _remarks(found: FaithfulnessResult) -> list[str]:
    remarks = []
    if found.tied:
        remarks.append(
            f"Not different from {found.best}, as far as these images tell: {', '.join(found.tied)}."
        )
    groups: dict[str, list[str]] = {}
    for name, other in found.coincide.items():
        groups.setdefault(other, []).append(name)
    remarks += [
        f"The same maps as {other} on this model, and so not ranked: {', '.join(names)}."
        for other, names in groups.items()
    ]
    remarks += [f"{name} was left out: {reason}." for name, reason in found.skipped.items()]
    if game := found.grid:
        remarks.append(
            f"Grid pointing game: in {plural(game.n, 'grid')} of four test images, "
            f"{percent(game.mean, digits=0)} of the positive map of {game.method} fell on the image "
            f"of its class ({percent(game.low, digits=0)} to {percent(game.high, digits=0)}; expected "
            f"by chance {percent(game.chance, digits=0)})."
        )
    return remarks


def _planted(planted: Planted) -> Table:
    columns = (
        Column("Method"),
        Column("Maximum on the object", numeric=True),
        Column("Heat on the object", numeric=True),
        Column("Heat on the mark", numeric=True),
    )
    rows = tuple(
        (row.name, _share(row.pointing), _share(row.energy), _share(row.on_mark))
        for row in [*planted.methods, planted.even]
    )
    caption = (
        f"Compared with the planted masks, on {plural(planted.objects, 'image')} without a mark that the "
        f"model gets right, and {plural(planted.fooled, 'image')} with a mark that it takes for the "
        "class of the mark. Where the model decides by the mark, a faithful map lies on it."
    )
    return Table(caption, columns, rows)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value, digits=0)


def _baselines(found: FaithfulnessResult) -> Table:
    columns = (
        Column("Method"),
        Column("Measure"),
        Column("Baseline map"),
        Column("Mean of the baseline", numeric=True),
        Column("Better by", numeric=True),
        Column("In a word"),
    )
    rows = tuple(
        (
            row.method,
            _spaced(row.measure),
            row.baseline,
            number(row.mean),
            interval_text(row.difference, row.low, row.high, sign=True),
            row.word,
        )
        for row in found.baselines
    )
    return Table(
        "Paired differences over the same images, with 95\u00a0% bootstrap intervals.", columns, rows
    )
