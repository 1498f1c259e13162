"""Can the maps be believed: what their measures, their controls and the planted masks say."""

from __future__ import annotations

from typing import Any

from sightline.report.load import ReportData
from sightline.report.sections import Block, Column, Details, Note, Section, Table
from sightline.report.wording import number, percent, plural

_GROUP = "Where it looked"
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
    return Section(*MAPS_PART, _GROUP, lead, tuple(blocks))


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
