"""The first and the last sections: what came out, and how to make it again."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from sightline.audit.result import CauseShare, WarningKind
from sightline.report.blocks import (
    Block,
    Budget,
    Column,
    Details,
    Facts,
    Findings,
    Fix,
    Fixes,
    Heading,
    Headline,
    Link,
    Note,
    Part,
    Section,
    Table,
    Text,
)
from sightline.report.formatting import (
    count,
    duration,
    number,
    page_name,
    percent,
    percent_digits,
    percent_range,
    plural,
    view,
)
from sightline.report.run_data import RunData
from sightline.report.sections.causes import DUPLICATES, SLICES
from sightline.report.sections.explanations import FAITHFULNESS, maps_doubt
from sightline.report.sections.fixes import CAUSE_ORDER, brief_fix
from sightline.report.sections.reliability import CALIBRATION
from sightline.stats import wilson_interval

SUMMARY = Heading(
    *("Summary", "summary", "Overview"),
    terms=(
        "Confidence interval",
        "Error budget",
        "Label issue",
        "Near-duplicate",
        "Shortcut",
        "Ambiguity",
        "Test-time augmentation",
    ),
)
_GROUND_TRUTH = Heading("Ground truth", "ground-truth", "Trust", terms=("Ground truth", "Expected by chance"))
_PROVENANCE = Heading("How this was made", "how-this-was-made", "Record")
_WARNED_OF = {
    WarningKind.LEAK: DUPLICATES,
    WarningKind.CALIBRATION: CALIBRATION,
    WarningKind.SHORTCUT: SLICES,
}
_FIRST_FIXES = 3
_SKIPPED_SHOWN = 100


def summary_section(run: RunData, anchors: frozenset[str] = frozenset()) -> Section:
    """Return the first section. anchors: of the sections after it, to which a warning may lead."""
    accuracy = run.audit.accuracy
    right = round(accuracy.value * accuracy.n)
    digits = percent_digits(accuracy.interval)
    trained = page_name(run.data.name) if run.data else "its test images"
    lead = (
        f"{page_name(run.model.name) if run.model else 'The model'} on {trained}: "
        f"{plural(accuracy.n - right, 'mistake')} in {plural(accuracy.n, 'test image')}."
    )
    headline = Headline(
        percent(accuracy.value, digits=digits),
        f"of {plural(accuracy.n, 'test image')} right",
        f"95\u00a0% interval {percent_range(*accuracy.interval, digits=digits)} (Wilson)",
    )
    blocks: list[Block] = [
        headline,
        *_balanced(run),
        *_warnings(run, anchors),
        _budget(run),
        *_first_fixes(run),
    ]
    about: list[Block] = [Facts(tuple(_facts(run)))]
    if note := run.metrics.published.get("note"):
        about.append(Note(f"About the published figures: {note}"))
    blocks.append(Details("About this run", tuple(about)))
    blocks += _skipped(run)
    return Section(SUMMARY, lead, tuple(blocks))


def _balanced(run: RunData) -> list[Block]:
    """Balanced accuracy as a second headline, where the classes are too unequal for accuracy alone."""
    score = run.scores.overall["balanced_accuracy"]
    if not run.scores.why or score.value is None or score.low is None or score.high is None:
        return []
    digits = percent_digits((score.low, score.high))
    shown = percent_range(score.low, score.high, digits=digits)
    value = percent(score.value, digits=digits)
    interval = f"95\u00a0% interval {shown} ({score.interval})"
    return [Headline(value, "balanced accuracy, each class counted the same", interval), Note(run.scores.why)]


def _warnings(run: RunData, anchors: frozenset[str]) -> list[Block]:
    rows: list[tuple[str, Link | None]] = []
    for warning in run.audit.warnings:
        heading = _WARNED_OF.get(warning.kind)
        rows.append((warning.text, heading.link if heading and heading.anchor in anchors else None))
    if doubt := maps_doubt(run):
        rows.append((doubt, FAITHFULNESS.link))
    return [Findings("Warnings", tuple(rows))] if rows else []


def _budget(run: RunData) -> Block:
    budget = run.audit.error_budget
    if not budget.mistakes:
        return Note("No test image is misclassified, so there is nothing to explain.")
    parts, start = [], 0.0
    for one in budget.causes:
        if one.count:
            parts.append(_part(one, start))
            start += one.share
    return Budget("Why the mistakes happen. Each mistake has one cause, so the parts add up.", tuple(parts))


def _part(one: CauseShare, start: float) -> Part:
    text = f"{one.cause}: {plural(one.count, 'mistake')}, {percent(one.share, digits=0)}"
    color = CAUSE_ORDER.index(one.cause)
    return Part(str(one.cause), color, start, one.share, count(one.count), text, view(cause=one.cause))


def _first_fixes(run: RunData) -> list[Block]:
    shown: tuple[Fix, ...] = tuple(brief_fix(fix) for fix in run.audit.fixes[:_FIRST_FIXES])
    return [Fixes("What to fix first", shown, brief=True)] if shown else []


def _facts(run: RunData) -> Iterator[tuple[str, str]]:
    metrics, accuracy = run.metrics, run.audit.accuracy
    yield "Mistakes", f"{count((~run.predictions.correct).sum())} of {count(len(run.predictions))}"
    yield "Mean test loss", number(float(run.predictions.loss.mean()))
    if accuracy.tta:
        low, high = wilson_interval(round(accuracy.tta.value * accuracy.n), accuracy.n)
        value = percent(accuracy.tta.value, digits=percent_digits((low, high)))
        yield f"Accuracy with test-time augmentation ({accuracy.tta.passes} passes)", value
    shares = {split: metrics.published[split] for split in ("train", "test") if split in metrics.published}
    if shares:
        yield "Published", ", ".join(f"{split} {value:.2f}\u00a0%" for split, value in shares.items())
    if recipe := tomllib.loads(run.recipe).get("name"):
        yield "Recipe", page_name(str(recipe))
    if run.data:
        yield "Data", page_name(run.data.name)
    if run.model:
        yield "Model", f"{page_name(run.model.name)}, {count(run.model.parameters)} parameters"
    if metrics.selection:
        yield "Weights", metrics.selection
    if metrics.seconds:
        # The page itself is timed when it is there; what was trained elsewhere took no time here.
        known = {stage: value for stage, value in metrics.seconds.items() if stage != "page" and value}
        stages = [f"{stage} {duration(value)}" for stage, value in known.items()]
        yield "Time", ", ".join(stages)


def _skipped(run: RunData) -> list[Block]:
    skipped = run.data.skipped if run.data else ()
    if not skipped:
        return []
    lines = list(skipped[:_SKIPPED_SHOWN])
    if len(skipped) > len(lines):
        lines.append(f"… and {count(len(skipped) - len(lines))} more")
    note = Note(f"The data is without {plural(len(skipped), 'file')} that could not be read.", warning=True)
    return [note, Details("Which files", (Text("Files that were left out", "\n".join(lines)),))]


def ground_truth_section(run: RunData) -> Section | None:
    rows = tuple(
        (one.what, one.value if isinstance(one.value, str) else number(one.value), one.expected, one.meaning)
        for one in (*run.metrics.planted, *run.audit.ground_truth)
    )
    if not rows:
        return None
    columns = (Column("Measured"), Column("Found"), Column("Compare with"), Column("What it means"))
    lead = "This data was made with known faults, so each finding can be compared with the truth."
    return Section(_GROUND_TRUTH, lead, (Table("Findings next to what was planted.", columns, rows),))


def provenance_section(run: RunData) -> Section | None:
    blocks: list[Block] = []
    if command := run.environment.get("command"):
        blocks.append(Text("Command of this run", str(command)))
    if run.recipe:
        caption = "Recipe: save it as recipe.toml and repeat the run with sightline run recipe.toml"
        blocks.append(Text(caption, run.recipe))
    if rows := tuple((key, value) for key, value in _flat(run.environment) if key != "command"):
        blocks.append(Facts(rows))
    lead = "The recipe repeats this run. The environment is the one in which its numbers were measured."
    return Section(_PROVENANCE, lead, tuple(blocks)) if blocks else None


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, inner)) if isinstance(inner, list) else str(inner)
