"""What to do about the mistakes: the budget of their causes, and the fixes in order of what they gain."""

from __future__ import annotations

from typing import Any

from sightline.report.blocks import (
    Block,
    Budget,
    Column,
    Findings,
    Fix,
    Fixes,
    Link,
    Note,
    Part,
    Section,
    Table,
    Thumbs,
)
from sightline.report.formatting import count, page_name, percent, percent_range, plural, view
from sightline.report.gallery import ALL_CAUSES
from sightline.report.run_data import ReportData
from sightline.report.sections.explanations import MAPS_PART, maps_doubt

_FIRST = 5
_EVIDENCE = 11
# What each cause says of a mistake, for the reader who sees the word for the first time.
MEANINGS = {
    "label suspect": "the label is probably wrong, not the model",
    "leaked twin": "a near-duplicate is in the training set under another label",
    "shortcut": "the model follows a mark or a background that comes with another class",
    "ambiguous": "the picture itself leaves the answer open",
    "confused pair": "one of a pair of classes that are often taken for each other",
    "unexplained": "none of these: look at it",
}
# A warning names its subject; the part of the page that shows it follows from the word.
_PARTS = (
    (("leak", "duplicate", "twin"), "Duplicates", "duplicates"),
    (("calibrat", "confiden", "temperature"), "Calibration", "calibration"),
    (("shortcut", "slice"), "Slices", "slices"),
    (("label",), "Label suspects", "label-suspects"),
    (("corruption", "robust", "noise"), "Robustness", "robustness"),
)


def audit_summary(data: ReportData, anchors: frozenset[str]) -> list[Block]:
    """Return the blocks of the summary that an audit adds: warnings, budget, and the first fixes.

    anchors: of the sections that the page has, to which a warning may lead.
    """
    facts = data.audit.facts if data.audit else {}
    blocks: list[Block] = []
    rows = [(str(text), *_part_of(str(text), anchors)) for text in facts.get("warnings") or ()]
    if doubt := maps_doubt(data):
        rows.append((doubt, *MAPS_PART))
    if rows:
        blocks.append(Findings("Warnings", tuple(rows)))
    if budget := facts.get("budget"):
        blocks.append(_bar(budget, "Why the mistakes happen. Each has one cause, so the parts add up."))
    if fixes := facts.get("fixes"):
        shown = tuple(_brief(one) for one in fixes[:_FIRST])
        blocks.append(Fixes("What to fix first", shown, brief=True))
    return blocks


def _part_of(text: str, anchors: frozenset[str]) -> tuple[str, str]:
    for words, title, anchor in _PARTS:
        if anchor in anchors and any(word in text.lower() for word in words):
            return title, anchor
    return "", ""


def fixes_section(data: ReportData) -> Section | None:
    fixes = data.audit.facts.get("fixes") if data.audit else None
    if not fixes:
        return None
    lead = (
        f"{plural(len(fixes), 'action')} in the order of what each is expected to gain; look at the images "
        "before you trust the sentence above them."
    )
    block = Fixes("", tuple(_full(one, place) for place, one in enumerate(fixes)))
    return Section("Fixes", "fixes", "What to do", lead, (block,))


def _brief(fix: dict[str, Any]) -> Fix:
    return Fix(page_name(str(fix["title"]), most=160), _gain(fix), "", "", None, None)


def _full(fix: dict[str, Any], place: int) -> Fix:
    split, images = str(fix.get("split", "test")), tuple(int(i) for i in fix.get("images", ()))
    link = thumbs = None
    if images:
        words = f"{plural(len(images), 'image')} in the gallery"
        link = Link(words, view(set=split, fix=place + 1))
        thumbs = Thumbs(split, images[:_EVIDENCE])
    title = page_name(str(fix["title"]), most=160)
    return Fix(title, _gain(fix), str(fix.get("why", "")), str(fix.get("how", "")), link, thumbs)


def _gain(fix: dict[str, Any]) -> str:
    gain = fix.get("gain")
    if not gain:
        return ""
    value, low, high = (f"{gain[key]:.3g}".replace("-", "\u2212") for key in ("value", "low", "high"))
    return f"{value} {gain['unit']} ({low} to {high})"


def budget_section(data: ReportData) -> Section | None:
    budget = data.audit.facts.get("budget") if data.audit else None
    if not budget or not budget["mistakes"]:
        return None
    causes = _ordered(budget)
    first = max(causes, key=lambda one: one["count"])
    lead = (
        f"{percent(first['share'], digits=0)} of {plural(budget['mistakes'], 'mistake')} fall to "
        f"“{first['cause']}”; a mistake with several causes is counted once, under the first in this list "
        "that fits."
    )
    columns = (
        Column("Cause"),
        Column("Mistakes", numeric=True),
        Column("Share", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Also"),
        Column("What it means"),
    )
    rows = tuple(
        (
            Link(one["cause"], view(cause=one["cause"])),
            count(one["count"]),
            percent(one["share"]),
            percent_range(*one["interval"]),
            _overlaps(one),
            MEANINGS.get(one["cause"], ""),
        )
        for one in causes
    )
    caption = "“Also”: how many of these mistakes another cause would have fitted as well."
    table = Table(caption, columns, rows)
    return Section("Error budget", "error-budget", "What to do", lead, (table,))


def _bar(budget: dict[str, Any], caption: str) -> Block:
    total = budget["mistakes"]
    if not total:
        return Note("No test image was misclassified: there is nothing to explain.")
    parts, start = [], 0.0
    for one in _ordered(budget):
        share = one["count"] / total
        text = f"{one['cause']}: {plural(one['count'], 'mistake')}, {percent(share)}"
        color = ALL_CAUSES.index(one["cause"]) if one["cause"] in ALL_CAUSES else len(ALL_CAUSES) - 1
        href = view(cause=one["cause"])
        parts.append(Part(one["cause"], color, start, share, count(one["count"]), text, href))
        start += share
    return Budget(caption, tuple(parts))


def _ordered(budget: dict[str, Any]) -> list[dict[str, Any]]:
    known = {cause: place for place, cause in enumerate(ALL_CAUSES)}
    present = [one for one in budget["causes"] if one["count"]]
    return sorted(present, key=lambda one: known.get(one["cause"], len(known)))


def _overlaps(cause: dict[str, Any]) -> str:
    others = [f"{name} {count(n)}" for name, n in (cause.get("overlaps") or {}).items() if n]
    return ", ".join(others) or "–"
