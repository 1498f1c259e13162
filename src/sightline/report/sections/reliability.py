"""How far the model's answers can be trusted: calibration, answering only when sure, corrupted pictures."""

from __future__ import annotations

from typing import Any

from sightline.report.blocks import Block, Column, Facts, Section, Table, Tool
from sightline.report.formatting import number, page_name, percent, percent_range, plural
from sightline.report.run_data import ReportData
from sightline.report.svg import Box, Diagram, plane

_GROUP = "Trust"


def _facts(data: ReportData, key: str) -> Any:
    return data.audit.facts.get(key) if data.audit else None


def calibration_section(data: ReportData) -> Section | None:
    facts = _facts(data, "calibration")
    if not facts:
        return None
    bins = [one for one in facts["reliability"] if one["count"]]
    total = sum(one["count"] for one in bins) or 1
    gap = sum(one["count"] * (one["confidence"] - one["accuracy"]) for one in bins) / total
    noise = facts["ece"] <= facts["floor_high"]
    verdict = "more sure than it is right" if gap > 0 else "less sure than it is right"
    if noise:
        verdict = "as well calibrated as this many images can tell"
    lead = (
        f"When the model says 80\u00a0%, is it right 80\u00a0% of the time? It is {verdict}: the calibration "
        f"error is {percent(facts['ece'])}, and a perfectly calibrated model would show "
        f"{percent(facts['floor'])} by chance."
    )
    rows = (
        ("Calibration error, equal widths", percent(facts["ece"], digits=2)),
        ("Calibration error, equal counts", percent(facts["ece_mass"], digits=2)),
        (
            "By chance alone",
            f"{percent(facts['floor'], digits=2)}, at most {percent(facts['floor_high'], digits=2)}",
        ),
        ("Log loss", number(facts["nll"])),
        ("Temperature, cross-fitted", number(facts["temperature"])),
        ("Calibration error with it", percent(facts["ece_after"], digits=2)),
        ("Log loss with it", number(facts["nll_after"])),
    )
    blocks = (_reliability(bins, total), Facts(rows))
    return Section("Calibration", "calibration", _GROUP, lead, blocks)


def _reliability(bins: list[dict[str, Any]], total: int) -> Diagram:
    said = [
        f"said {percent(one['confidence'])}, right {percent(one['accuracy'])} "
        f"({percent_range(*one['interval'])}), {plural(one['count'], 'image')}"
        for one in bins
    ]
    flat = plane(
        "On the dashed line, it is as right as it is sure; below it, too sure. Bars: share of images.",
        f"Reliability diagram of {plural(len(bins), 'bin')}: {'; '.join(said)}.",
        x=(0, 1),
        y=(0, 1),
        labels=("confidence", "share right"),
        shares=(True, True),
        size=(460, 380),
    )
    boxes = []
    for one, text in zip(bins, said, strict=True):
        left, right, base = flat.x(one["low"]), flat.x(one["high"]), flat.y(0)
        high = flat.y(one["count"] / total)
        boxes.append(Box(left + 0.5, high, max(right - left - 1, 1), round(base - high, 2), text=text))
        low, high = (flat.y(bound) for bound in one["interval"])
        boxes.append(Box(flat.x(one["confidence"]) - 1, high, 2, round(low - high, 2), "interval"))
    lines = (
        flat.line("", "dashed", (0, 1), (0, 1), ("", "")),
        flat.line(
            "", "accent", [b["confidence"] for b in bins], [b["accuracy"] for b in bins], said, dots=True
        ),
    )
    return flat.axes.with_parts(boxes=boxes, lines=lines)


def selective_section(data: ReportData) -> Section | None:
    facts = _facts(data, "selective")
    if not facts:
        return None
    curve = facts["curve"]
    coverage, risk, threshold = curve["coverage"], curve["risk"], curve["threshold"]
    texts = [
        f"answering {percent(c)}, wrong in {percent(r)} of the answers, from confidence {number(t)}"
        for c, r, t in zip(coverage, risk, threshold, strict=True)
    ]
    flat = plane(
        "The errors among the answers, when the model answers only its most confident share of the images.",
        f"Risk-coverage curve: {percent(risk[-1])} wrong when all images are answered, "
        f"{percent(risk[len(risk) // 2])} when {percent(coverage[len(risk) // 2], digits=0)} are.",
        x=(0, 1),
        y=(0, max(max(risk), 0.01)),
        labels=("share of images answered", "share of answers wrong"),
        shares=(True, True),
    )
    diagram = flat.axes.with_parts(lines=[flat.line("", "accent", coverage, risk, texts)], live="risk-curve")
    lead = (
        "What if the model may say “I don't know”? Move the threshold and see what is left to people, and "
        "how many errors get through."
    )
    blocks: list[Block] = [diagram, Tool("threshold")]
    if wanted := facts.get("wanted"):
        blocks.append(_wanted(wanted))
    if sets := _facts(data, "conformal"):
        blocks.append(_sets(sets))
    blocks.append(
        Facts((("AURC (area under the curve)", number(facts["aurc"])), ("AUGRC", number(facts["augrc"]))))
    )
    return Section("Answer only when sure", "selective", _GROUP, lead, tuple(blocks))


def _wanted(rows: list[dict[str, Any]]) -> Table:
    columns = (
        Column("Wanted error"),
        Column("Answer from confidence", numeric=True),
        Column("Images answered", numeric=True),
        Column("Error on the other half", numeric=True),
    )
    cells = tuple(
        (
            percent(one["error"]),
            _or_dash(one["threshold"], number),
            _or_dash(one["coverage"], percent),
            _or_dash(one["checked"], percent),
        )
        for one in rows
    )
    return Table("Thresholds chosen on one half of the test images and checked on the other.", columns, cells)


def _or_dash(value: float | None, write: Any) -> str:
    return "–" if value is None else write(value)


def _sets(rows: list[dict[str, Any]]) -> Table:
    columns = (
        Column("Wanted: label in the set"),
        Column("Realised", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Classes per set", numeric=True),
        Column("One class", numeric=True),
        Column("None", numeric=True),
    )
    cells = tuple(
        (
            percent(one["coverage"], digits=0),
            percent(one["realised"]),
            percent_range(*one["interval"]),
            f"{one['mean_size']:.2f}",
            percent(one["single"]),
            percent(one["empty"]),
        )
        for one in rows
    )
    caption = "Conformal sets: all classes that are probable enough, checked on the other half."
    return Table(caption, columns, cells)


def robustness_section(data: ReportData) -> Section | None:
    facts = _facts(data, "robustness")
    if not facts or not facts["rows"]:
        return None
    names = list(dict.fromkeys(row["name"] for row in facts["rows"]))
    worst = {name: max(r["error"] for r in facts["rows"] if r["name"] == name) for name in names}
    names.sort(key=lambda name: -worst[name])
    top = max(max(worst.values()), facts["clean"])
    flat = plane(
        "One row per corruption, worst first; its dots are growing severities. Dashed: clean images.",
        f"Error by corruption; clean {percent(facts['clean'])}; "
        + ", ".join(f"{name} up to {percent(worst[name])}" for name in names)
        + ".",
        x=(0, min(1.0, 1.05 * top)),
        y=(len(names) - 0.4, -0.6),
        labels=("share of images wrong", ""),
        shares=(True, False),
        size=(640, 66 + 26 * len(names)),
        names=[page_name(name.replace("_", " "), most=20) for name in names],
    )
    lines = [flat.line("", "dashed", (facts["clean"],) * 2, (-0.6, len(names) - 0.4), ("", ""))]
    for place, name in enumerate(names):
        rows = sorted((r for r in facts["rows"] if r["name"] == name), key=lambda r: r["severity"])
        texts = [
            f"{name.replace('_', ' ')}, severity {r['severity']}: {percent(r['error'])} wrong "
            f"({percent_range(*r['interval'])})"
            for r in rows
        ]
        lines.append(
            flat.line("", "accent", [r["error"] for r in rows], [place] * len(rows), texts, dots=True)
        )
    lead = (
        f"On {plural(facts['n'], 'image')}, {percent(facts['clean'])} are wrong when clean and "
        f"{percent(facts['mean'])} on average when corrupted; {names[0].replace('_', ' ')} hurts most."
    )
    return Section("Robustness", "robustness", _GROUP, lead, (flat.axes.with_parts(lines=lines),))
