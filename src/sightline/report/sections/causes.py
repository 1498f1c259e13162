"""What the audit found behind the mistakes: label issues, near-duplicates, slices."""

from __future__ import annotations

from sightline.audit.result import (
    DuplicatePair,
    Duplicates,
    IssueClaim,
    LabelIssue,
    LabelIssueList,
    PlantedCheck,
    Slice,
    SplitName,
)
from sightline.report.blocks import Block, Card, Cards, Details, Heading, Note, Section, Thumbs
from sightline.report.formatting import (
    count,
    number,
    p_value,
    page_name,
    percent,
    percent_digits,
    percent_range,
    plural,
    view,
)
from sightline.report.run_data import RunData

_GROUP = "Causes"
LABEL_ISSUES = Heading(
    "Label issues",
    "label-issues",
    _GROUP,
    terms=("Label issue", "Label quality", "Area under the margin", "Forgetting"),
)
DUPLICATES = Heading(
    "Near-duplicates", "near-duplicates", _GROUP, terms=("Near-duplicate", "Leak", "Expected by chance")
)
SLICES = Heading("Slices", "slices", _GROUP, terms=("Slice", "Shortcut", "Held-out half", "p-value"))
_ISSUES_SHOWN = 24
_PAIRS_SHOWN, _PAIRS_LISTED = 12, 120
_SLICE_IMAGES = 10
_SPLITS = {SplitName.TRAIN: "training", SplitName.TEST: "test"}


def label_issues_section(run: RunData) -> Section:
    issues = run.audit.label_issues
    lists = {SplitName.TRAIN: issues.train, SplitName.TEST: issues.test}
    blocks: list[Block] = []
    says = []
    for split, found in lists.items():
        if found is None:
            continue
        word = _SPLITS[split]
        total = len(run.audit.train if split is SplitName.TRAIN else run.audit.test)
        says.append(_claim(found, word, total))
        if check := found.planted:
            blocks.append(Note(_planted(check, word)))
        if found.rows:
            cards = tuple(_issue(run, split, one) for one in found.rows[:_ISSUES_SHOWN])
            caption = (
                f"The {word} labels with the lowest quality first, by {found.method}. Open one to decide."
            )
            blocks.append(Cards(caption, cards))
    if issues.folds:
        flagged = plural(issues.folds.flagged, "training label")
        blocks.append(Note(f"Models that did not see these images in training flag {flagged}."))
    if agreed := issues.agreement:
        blocks.append(
            Note(
                f"Of the {count(agreed.top)} most doubtful images of each list, {count(len(agreed.both))} "
                f"are on both (Jaccard index {number(agreed.jaccard)}; expected by chance "
                f"{number(agreed.expected_by_chance)})."
            )
        )
    lead = " ".join(["The label says one thing and the model another. Who is right?", *says])
    if issues.train is None:
        lead += (
            " Training labels are not available here: they need the training dynamics, or cross-validation."
        )
    return Section(LABEL_ISSUES, lead, tuple(blocks))


def _claim(found: LabelIssueList, word: str, total: int) -> str:
    """What may be said of a list, in a sentence or two."""
    labels = f"{count(found.flagged)} of {plural(total, word + ' label')}"
    if found.claim is IssueClaim.ONE_WITNESS:
        return (
            f"Of the {word} labels nothing is claimed: the model alone contradicts them, and a hard image "
            "looks like a wrong label to it. The list is where to look first; sightline audit RUN "
            "--calibrate asks a second witness."
        )
    if found.claim is IssueClaim.NOT_LEARNT:
        return f"This model has not learnt enough to judge the {word} labels; the list is only a ranking."
    if found.claim is IssueClaim.NOTHING or not found.flagged:
        return f"No {word} label stands out; the list is only a ranking."
    verb = "is" if found.flagged == 1 else "are"
    said = f"{labels} {verb} {found.claim}, contradicted by {' and '.join(found.witnesses)}"
    if found.precision is None:
        return f"{said}."
    low, high = found.precision.interval
    share = percent(found.precision.value, digits=0)
    return f"{said}: about {share} of them ({percent_range(low, high, digits=0)}) are wrong."


def _planted(check: PlantedCheck, word: str) -> str:
    """What came of planting wrong labels, in a sentence."""
    recall = percent_range(*check.recall.interval, digits=0)
    missed = f"it finds {percent(check.recall.value, digits=0)} of them ({recall})"
    if check.precision is None:
        held = "flags nothing else either"
    else:
        held = (
            f"of what it flags then, at least {percent(check.precision.value, digits=0)} "
            f"({percent_range(*check.precision.interval, digits=0)}) are planted ones"
        )
    return (
        f"Measured here: with {percent(check.share)} of the {word} labels planted wrong, {check.rounds} "
        f"times, {missed}, and {held}."
    )


def _issue(run: RunData, split: SplitName, issue: LabelIssue) -> Card:
    label, better = (page_name(run.class_names[c], limit=24) for c in (issue.label, issue.suggested))
    quality = () if issue.label_quality is None else (f"label quality {issue.label_quality:.2f}",)
    title = f"{better}?" if issue.suggested != issue.label else label
    href = view(img=issue.index) if split is SplitName.TEST else view(set="train", train=issue.index)
    lines = (f"label {label}", *quality, f"image {issue.index}")
    return Card((Thumbs(split, (issue.index,)),), title, lines, href)


def duplicates_section(run: RunData) -> Section | None:
    found = run.audit.duplicates
    if found is None:
        return None
    pairs = sorted(found.pairs, key=lambda pair: (pair.a_split == pair.b_split, pair.same_label))
    if not found.count:
        return Section(DUPLICATES, "No near-duplicates were found.", ())
    lead = f"{plural(found.count, 'pair')} of images are near-duplicates, none between training and test."
    if found.leaked:
        have = "test image has" if found.leaked == 1 else "test images have"
        lead = (
            f"At least {count(found.leaked)} {have} a near-duplicate in the training set: what the model "
            "gets right there may be memory."
        )
        lead += _without(found)
    caption = "Pairs between the splits first, then pairs whose labels differ. Are they the same picture?"
    shown = tuple(_pair(run, pair) for pair in pairs[:_PAIRS_LISTED])
    blocks: list[Block] = [Cards(caption, shown[:_PAIRS_SHOWN], pairs=True)]
    if rest := shown[_PAIRS_SHOWN:]:
        left_out = found.count - len(shown)
        caption = f"{plural(left_out, 'further pair is', 'further pairs are')} not shown." if left_out else ""
        blocks.append(Details(f"{plural(len(rest), 'more pair')}", (Cards(caption, rest, pairs=True),)))
    chance = "fewer than one" if found.expected_by_chance < 1 else number(found.expected_by_chance)
    blocks.append(Note(f"Expected by chance: {chance} of these pairs are no copies."))
    return Section(DUPLICATES, lead, tuple(blocks))


def _without(found: Duplicates) -> str:
    clean = found.accuracy_without
    if clean is None:
        return " No test image is left without them."
    digits = percent_digits(clean.interval)
    return (
        f" Without {'it' if found.leaked == 1 else 'them'} the accuracy is "
        f"{percent(clean.value, digits=digits)} ({percent_range(*clean.interval, digits=digits)})."
    )


def _pair(run: RunData, pair: DuplicatePair) -> Card:
    thumbs, names = [], []
    for split, index in ((pair.a_split, pair.a), (pair.b_split, pair.b)):
        table = run.audit.test if split is SplitName.TEST else run.audit.train
        label = page_name(run.class_names[int(table["label"].iloc[index])], limit=20)
        thumbs.append(Thumbs(split, (index,)))
        names.append(f"{_SPLITS[split]} {index}: {label}")
    words = "same label" if pair.same_label else "labels differ"
    return Card(tuple(thumbs), words, (*names, f"{pair.kind}, similarity {pair.similarity:.2f}"))


def slices_section(run: RunData) -> Section:
    slices = run.audit.slices
    if not slices:
        lead = "No group of images has more mistakes than the others, as far as the held-out half can tell."
        return Section(SLICES, lead, ())
    lead = (
        f"{plural(len(slices), 'group of images has', 'groups of images have')} more mistakes than the "
        "others. Each was found on one half of the test images and confirmed on the other. What do its "
        "images have in common?"
    )
    cards = tuple(_slice(number, one) for number, one in enumerate(slices))
    return Section(SLICES, lead, (Cards("The most certain one first.", cards),))


def _slice(number: int, one: Slice) -> Card:
    digits = percent_digits(one.interval)
    lines = (
        f"{percent(one.error, digits=digits)} wrong ({percent_range(*one.interval, digits=digits)}), "
        f"elsewhere {percent(one.rest, digits=digits)}",
        f"{plural(one.size, 'image')}, {p_value(one.p)}",
        one.evidence,
    )
    name = page_name(one.name, limit=120)
    title = f"Shortcut: {name}" if one.shortcut else name
    thumbs = Thumbs("test", one.rows[:_SLICE_IMAGES])
    return Card((thumbs,), title, tuple(line for line in lines if line), view(slice=number))
