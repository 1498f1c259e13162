"""The first and the last sections: what came out, and how to make it again."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import numpy as np

from sightline.predictions.metrics import accuracy_per_class, confused_pairs
from sightline.report.blocks import (
    Block,
    Column,
    Details,
    Facts,
    Findings,
    Headline,
    Note,
    Section,
    Table,
    Text,
)
from sightline.report.formatting import count, duration, number, page_name, percent, percent_range, plural
from sightline.report.run_data import ReportData
from sightline.report.sections.explanations import MAPS_PART, maps_doubt
from sightline.report.sections.fixes import audit_summary
from sightline.report.sections.mistakes import confusion_of
from sightline.stats import wilson_interval

_SURE = 0.9
_SKIPPED_SHOWN = 100


def summary_section(data: ReportData, anchors: frozenset[str] = frozenset()) -> Section:
    """Return the first section. anchors: of the sections after it, to which a warning may lead."""
    correct = data.predictions.correct
    right, total = int(correct.sum()), len(correct)
    share = right / total
    low, high = wilson_interval(right, total)
    lead = (
        f"{page_name(str(data.model['name']))} on {page_name(str(data.data['name']))}: "
        f"{plural(total - right, 'mistake')} out of {plural(total, 'test image')}."
    )
    headline = Headline(
        percent(share, digits=2),
        f"of {plural(total, 'test image')} right",
        f"95\u00a0% interval {percent_range(low, high)} (Wilson)",
    )
    blocks: list[Block] = [headline, *audit_summary(data, anchors), Facts(tuple(_facts(data)))]
    if note := (data.metrics.get("published") or {}).get("note"):
        blocks.append(Note(f"About the published figures: {note}"))
    findings = () if data.audit else tuple(_findings(data))
    if findings:
        blocks.append(Findings("What to look at first", findings))
    if skipped := data.data.get("skipped"):
        blocks.append(
            Note(f"{plural(len(skipped), 'file')} could not be read and took no part.", warning=True)
        )
        shown = tuple(str(line) for line in skipped[:_SKIPPED_SHOWN])
        rest = (f"… and {count(len(skipped) - len(shown))} more",) if len(skipped) > len(shown) else ()
        blocks.append(Details("Which files", (Text("Files that were skipped", "\n".join(shown + rest)),)))
    return Section("Summary", "summary", "Overview", lead, tuple(blocks))


def _facts(data: ReportData) -> Iterator[tuple[str, str]]:
    metrics = data.metrics
    wrong, total = int((~data.predictions.correct).sum()), len(data.predictions)
    yield "Mistakes", f"{count(wrong)} of {count(total)}"
    yield "Mean test loss", number(float(data.predictions.loss.mean()))
    if published := metrics.get("published"):
        shares = {split: published[split] for split in ("train", "test") if split in published}
        if shares:
            yield "Published", ", ".join(f"{split} {value:.2f}\u00a0%" for split, value in shares.items())
    if recipe := tomllib.loads(data.recipe).get("name"):
        yield "Recipe", page_name(str(recipe))
    yield "Data", page_name(str(data.data["name"]))
    yield "Model", f"{page_name(str(data.model['name']))}, {count(data.model['parameters'])} parameters"
    if views := (_audited(data).get("accuracy") or {}).get("views"):
        yield f"Accuracy with {page_name(str(views['name']))}", percent(views["value"], digits=2)
    if metrics.get("selection"):
        yield "Weights", str(metrics["selection"])
    seconds = metrics.get("seconds") or {}
    if seconds:
        yield "Time", ", ".join(f"{stage} {duration(value)}" for stage, value in seconds.items())


def _findings(data: ReportData) -> Iterator[tuple[str, str, str]]:
    if doubt := maps_doubt(data):
        yield doubt, *MAPS_PART
    wrong = ~data.predictions.correct
    mistakes = int(wrong.sum())
    if not mistakes:
        return
    matrix = confusion_of(data)
    shares = accuracy_per_class(matrix)
    weakest = int(np.nanargmin(shares))
    yield (
        f"{page_name(data.class_names[weakest])} is the weakest class: {percent(shares[weakest])} of its "
        f"{plural(int(matrix[weakest].sum()), 'image')} right.",
        "Accuracy per class",
        "accuracy-per-class",
    )
    pair = confused_pairs(data.predictions, most=1).iloc[0]
    yield (
        f"{page_name(pair['true'])} is taken for {page_name(pair['predicted'])} "
        f"{plural(pair['count'], 'time')}, {percent(pair['count'] / mistakes)} of all mistakes.",
        "Confused pairs",
        "confused-pairs",
    )
    sure = int((data.predictions.confidence[wrong] > _SURE).sum())
    if sure:
        yield (
            f"{count(sure)} of {plural(mistakes, 'mistake')} came with more than "
            f"{percent(_SURE, digits=0)} confidence.",
            "Most costly mistakes",
            "most-costly-mistakes",
        )
    if data.metrics.get("planted"):
        yield (
            "The data holds planted faults, and this page says which were found.",
            "Planted truth",
            "planted-truth",
        )


def planted_section(data: ReportData) -> Section | None:
    planted = [*(data.metrics.get("planted") or ()), *_audited(data).get("planted", ())]
    if not planted:
        return None
    columns = (Column("Measured"), Column("Found"), Column("Compare with"), Column("What it means"))
    rows = tuple(
        (str(row["what"]), _value(row["value"]), str(row["expected"]), str(row["meaning"])) for row in planted
    )
    lead = "This data was made with known faults, so what was found can be held against the truth."
    table = Table("Findings beside what was planted.", columns, rows)
    group = "Trust" if data.audit else "Overview"  # with an audit, what it found comes first
    return Section("Planted truth", "planted-truth", group, lead, (table,))


def _audited(data: ReportData) -> dict[str, Any]:
    return data.audit.facts if data.audit else {}


def provenance_section(data: ReportData) -> Section:
    command = data.environment.get("command")
    lead = "The resolved recipe repeats this run; the environment is what its numbers were measured on."
    blocks: list[Block] = []
    if command:
        blocks.append(Text("Command of this run", str(command)))
    blocks.append(
        Text("Recipe: save it as recipe.toml and repeat with `sightline run recipe.toml`", data.recipe)
    )
    rows = tuple((key, value) for key, value in _flat(data.environment) if key != "command")
    blocks.append(Facts(rows))
    return Section("How this was made", "how-this-was-made", "Record", lead, tuple(blocks))


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, inner)) if isinstance(inner, list) else str(inner)


def _value(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
