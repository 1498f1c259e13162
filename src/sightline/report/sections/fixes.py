"""What to do about the mistakes: the budget of their causes, and the fixes in order of what they gain."""

from __future__ import annotations

import tomllib

from sightline.audit import result
from sightline.audit.result import Cause, CauseShare, SplitName
from sightline.report.blocks import Column, Fix, Fixes, Heading, Link, Section, Table, Thumbs
from sightline.report.formatting import (
    count,
    interval_text,
    page_name,
    percent,
    percent_digits,
    percent_range,
    plural,
    view,
)
from sightline.report.run_data import RunData

_FIXES = Heading("Fixes", "fixes", "What to do", terms=("Fix", "Confidence interval", "Label issue"))
_BUDGET = Heading(
    *("Error budget", "error-budget", "What to do"),
    terms=("Error budget", "Label issue", "Leak", "Shortcut", "Ambiguity"),
)
_EVIDENCE = 11  # images next to a fix
CAUSE_ORDER = tuple(Cause)
# What each cause says of a mistake, for the reader who sees the word for the first time.
_MEANINGS = {
    Cause.LABEL_ISSUE: "The model and a second witness both name another class: look at the label.",
    Cause.NEAR_DUPLICATE: "A near-duplicate of the image is in the training set.",
    Cause.SHORTCUT: "One of a class that is called where the evidence lies off the object: look for a mark.",
    Cause.AMBIGUOUS: "One of the 5 % of test images on which answers differ most, or are the least sure.",
    Cause.CONFUSED_PAIR: "The two classes are often taken for each other.",
    Cause.UNEXPLAINED: "None of these causes fits. Look at the image.",
}


def brief_fix(fix: result.Fix) -> Fix:
    """Return the title and the gain of a fix alone."""
    return Fix(page_name(fix.title, limit=160), _gain(fix), "", "", None, None)


def fixes_section(run: RunData) -> Section | None:
    fixes = run.audit.fixes
    if not fixes:
        return None
    lead = (
        f"{plural(len(fixes), 'action')}, in the order in which to do them. Look at the images before you "
        "trust the sentence above them."
    )
    block = Fixes("", tuple(_full_fix(fix, number, run) for number, fix in enumerate(fixes, 1)))
    return Section(_FIXES, lead, (block,))


def _full_fix(fix: result.Fix, number: int, run: RunData) -> Fix:
    link = thumbs = None
    if fix.images:
        words = f"{plural(len(fix.images), 'image')} in the gallery"
        link = Link(
            words, view(set=fix.split, fix=number) if fix.split is SplitName.TRAIN else view(fix=number)
        )
        thumbs = Thumbs(fix.split, fix.images[:_EVIDENCE])
    how = fix.how
    if tomllib.loads(run.recipe).get("training", {}).get("method") == "none":  # what the run was made by
        how = how.replace("sightline run RECIPE --fixes", "sightline inspect DATA ... --fixes")
    return Fix(page_name(fix.title, limit=160), _gain(fix), fix.why, how, link, thumbs)


def _gain(fix: result.Fix) -> str:
    """
    >>> fix = result.Fix("drop", "", "", result.Gain(0.2618, 0.0, 0.5, "test accuracy"), (), "test", "")
    >>> _gain(fix)
    '+0.26 points (0.00 to 0.50) of test accuracy'
    """
    gain = fix.gain
    if gain is None:
        return ""
    value, interval = interval_text(gain.value, gain.low, gain.high, sign=True).split(" ", 1)
    return f"{value} points {interval} of {gain.unit}"


def budget_section(run: RunData) -> Section | None:
    budget = run.audit.error_budget
    causes = [one for one in budget.causes if one.count]
    if not causes:
        return None
    first = max(causes, key=lambda one: one.count)
    lead = (
        f"The most frequent cause is “{first.cause}”: {percent(first.share, digits=0)} of "
        f"{plural(budget.mistakes, 'mistake')}. A mistake with several causes is counted once, under the "
        "first in this list."
    )
    columns = (
        Column("Cause"),
        Column("Mistakes", numeric=True),
        Column("Share", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Also"),
        Column("What it means"),
    )
    digits = percent_digits(*(one.interval for one in causes))
    rows = tuple(
        (
            Link(str(one.cause), view(cause=one.cause)),
            count(one.count),
            percent(one.share, digits=digits),
            percent_range(*one.interval, digits=digits),
            _overlaps(one),
            _MEANINGS[one.cause],
        )
        for one in causes
    )
    caption = "“Also”: how many images with this cause have another cause as well."
    return Section(_BUDGET, lead, (Table(caption, columns, rows),))


def _overlaps(one: CauseShare) -> str:
    return ", ".join(f"{cause} {count(n)}" for cause, n in one.overlaps.items() if n) or "–"
