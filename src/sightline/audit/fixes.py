"""What to do first: the findings of an audit as actions, with their evidence and what they may gain, in
order.

Each function takes one finding and returns one fix, or None where the finding gives no reason to act. A gain
is in points (hundredths) of its unit and never more than what the action touches can give. Where only a new
training run can tell, there is none, and `how` says how to find out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.calibration import CrossFit
from sightline.audit.label_claims import JudgedLabels
from sightline.audit.result import Fix, FixKind, Gain, IssueClaim, SplitName, Threshold
from sightline.audit.slices import FoundSlice
from sightline.stats import wilson_interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

# What was measured wrongly comes first, because every other number rests on it; then what teaches the model;
# then what only changes how its answers are used.
_TIERS = {
    FixKind.RELABEL: 0,
    FixKind.DROP: 0,
    FixKind.COLLECT: 1,
    FixKind.TEMPERATURE: 2,
    FixKind.THRESHOLD: 2,
}
_ACCURACY, _MEASURED = "test accuracy", "measured test accuracy"
_SLICE = "Add training images of this kind, or an augmentation that makes them"
_SHORTCUT = "Add training images with the mark and another class, or an augmentation that hides the mark"
_TRAIN_AND_COMPARE = "sightline run RECIPE --fixes fixes.json; sightline compare RUN_A RUN_B"


def rank_fixes(fixes: Sequence[Fix | None], sizes: Mapping[SplitName, int]) -> list[Fix]:
    """Return the fixes in the order to do them, None left out.

    What has a gain that is known comes first: what is wrong with the data, then what teaches the model, then
    what changes how its answers are used, and among those the largest change in points. What only a new
    training run can tell stands apart after them, in the same order, by the share of the split that it
    touches. sizes: images of each split.
    """

    def key(fix: Fix) -> tuple[bool, int, float]:
        points = abs(fix.gain.value) if fix.gain else 100 * len(fix.images) / sizes[fix.split]
        return fix.gain is None, _TIERS[fix.kind], -points

    return sorted((fix for fix in fixes if fix is not None), key=key)


def share_gains(fixes: Sequence[Fix], wrong: ArrayLike) -> list[Fix]:
    """Return the fixes with the gains of those that collect images stated jointly.

    Slices and pairs overlap. A mistake is counted by the first fix that is about it; each further one keeps
    the share of its gain that its own mistakes have, and all together never gain more than the mistakes that
    there are. One without mistakes of its own is left out.

    Args:
        fixes: In their order.
        wrong: (N,) bool, the mistakes of the test split.
    """
    wrong = np.asarray(wrong, bool)
    counted, left, shared = np.zeros(len(wrong), bool), _points(wrong.mean()), []
    for fix in fixes:
        if fix.kind is not FixKind.COLLECT or fix.gain is None:
            shared.append(fix)
            continue
        mine = np.zeros(len(wrong), bool)
        mine[list(fix.images)] = True
        mine &= wrong
        share = (mine & ~counted).sum() / max(mine.sum(), 1)
        if not share:  # all of it is counted above
            continue
        value, low, high = (min(share * one, left) for one in (fix.gain.value, fix.gain.low, fix.gain.high))
        unit = fix.gain.unit + (", beside the fixes above" if share < 1 else "")
        shared.append(replace(fix, gain=Gain(value, low, high, unit)))
        counted |= mine
        left = max(0.0, left - value)
    return shared


def relabel_test(judged: JudgedLabels, correct: ArrayLike) -> Fix | None:
    """The fix for flagged labels of the test split (`judge_test_labels`); None without any.

    Only a mistake can become a right answer by a new label: the gain is the share of the flagged labels that
    is wrong, with its interval, of the flagged mistakes.
    """
    found = _flagged(judged.table)
    if found.empty:
        return None
    wrong = ~np.asarray(correct, bool)[found["index"]]
    highest, gain = _points(wrong.sum() / len(judged.table)), None
    if judged.precision is not None:
        low, high = judged.precision.interval
        gain = Gain(judged.precision.value * highest, low * highest, high * highest, _MEASURED)
    return Fix(
        kind=FixKind.RELABEL,
        title=f"{_looked(judged)} the labels of {_images(len(found), 'test')}",
        why=f"{_joined(judged.witnesses)} name another class. {_share(judged)}; {wrong.sum()} of them count "
        "as mistakes now. New labels change the measure, not the model.",
        gain=gain,
        images=_indices(found["index"]),
        split=SplitName.TEST,
        how="Decide relabel, keep or drop in the report and export fixes.json: "
        "sightline run RECIPE --fixes fixes.json",
    )


def relabel_train(judged: JudgedLabels) -> Fix | None:
    """The fix for flagged labels of the training split (`judge_train_labels`); None without any."""
    found = _flagged(judged.table)
    if found.empty:
        return None
    return Fix(
        kind=FixKind.RELABEL,
        title=f"{_looked(judged)} the labels of {_images(len(found), 'training')}",
        why=f"{_percent(len(found) / len(judged.table))} of the training labels are contradicted by "
        f"{_joined(judged.witnesses)}. {_share(judged)}. What correcting them gains is not known without "
        "training again.",
        gain=None,
        images=_indices(found["index"]),
        split=SplitName.TRAIN,
        how=f"Decide relabel, keep or drop in the report, export fixes.json, then: {_TRAIN_AND_COMPARE}",
    )


def _looked(judged: JudgedLabels) -> str:
    return "Correct" if judged.claim is IssueClaim.WRONG else "Look at"


def _joined(words: Sequence[str]) -> str:
    return " and ".join(words)


def _share(judged: JudgedLabels) -> str:
    """How many of the flagged labels are wrong, as a sentence without its full stop."""
    if judged.precision is None:
        return "How many of them are wrong is not known"
    low, high = judged.precision.interval
    how = "read off where they are surest" + (", and checked with planted ones" if judged.planted else "")
    share = f"{100 * judged.precision.value:.0f} % of them ({100 * low:.0f} to {100 * high:.0f})"
    return f"About {share} are wrong, {how}"


def drop_near_duplicates(correct: ArrayLike, leaked: ArrayLike) -> Fix | None:
    """The fix for test images with a near-duplicate in training, (N,) bool each; None without any.

    The gain is of the measured accuracy and mostly negative: it shows what the near-duplicates had added. Its
    range is the Wilson interval of the accuracy without them.
    """
    correct, leaked = np.asarray(correct, bool), np.asarray(leaked, bool)
    if not leaked.any() or leaked.all():
        return None
    rest, before = correct[~leaked], correct.mean()
    low, high = wilson_interval(int(rest.sum()), len(rest))
    value, low, high = (_points(share - before) for share in (rest.mean(), low, high))
    return Fix(
        kind=FixKind.DROP,
        title=f"Leave {_images(int(leaked.sum()), 'test')} with a near-duplicate in training out of the test",
        why=f"They are right in {_percent(correct[leaked].mean())}, all others in {_percent(rest.mean())}: "
        "a copy shows memory, not skill.",
        gain=Gain(value, low, high, _MEASURED),
        images=_indices(np.flatnonzero(leaked)),
        split=SplitName.TEST,
        how="Decide drop in the report and export fixes.json: sightline run RECIPE --fixes fixes.json",
    )


def drop_copies(copies: ArrayLike, *, total: int) -> Fix | None:
    """The fix for training images that repeat another training image, as indices; None without any.

    copies: all but one of each group of near-duplicates. total: training images.
    """
    copies = np.asarray(copies, int)
    if not len(copies):
        return None
    return Fix(
        kind=FixKind.DROP,
        title=f"Drop {_images(len(copies), 'training')}: near-duplicates of others",
        why=f"{_percent(len(copies) / total)} of the training images are near-duplicates: they weigh twice "
        "what they show once. What dropping them gains is not known without training again.",
        gain=None,
        images=_indices(copies),
        split=SplitName.TRAIN,
        how=f"Decide drop in the report, export fixes.json, then: {_TRAIN_AND_COMPARE}",
    )


def collect_for_slice(found: FoundSlice, total: int) -> Fix:
    """The fix for a slice: a kind of test images that is wrong more often than the others.

    If the slice became as good as the rest, it would gain its share of the images times (error - rest), both
    of the held-out half, which had no say in finding it; the range is that of the interval of its error, not
    below 0. In a shortcut the model looks at something that only goes with the class it names, so that images
    without that are needed. total: test images.
    """
    share, ends = len(found.rows) / total, (found.error, *found.interval)
    value, low, high = (_points(share * max(end - found.rest, 0)) for end in ends)
    return Fix(
        kind=FixKind.COLLECT,
        title=f"{'Break the shortcut' if found.shortcut else 'Collect or augment'}: {found.name}",
        why=f"Of these {len(found.rows)} test images those of the held-out half are wrong in "
        f"{_percent(found.error)}, against {_percent(found.rest)} of the others."
        + (f" {found.evidence}." if found.evidence else ""),
        gain=Gain(value, low, high, f"{_ACCURACY}, if they became like the others"),
        images=_indices(found.rows),
        split=SplitName.TEST,
        how=f"{_SHORTCUT if found.shortcut else _SLICE}, then train and compare: "
        "sightline compare RUN_A RUN_B",
    )


def collect_for_pair(
    pairs: pd.DataFrame,
    row: int,
    class_names: Sequence[str],
    *,
    images: ArrayLike,
    held: tuple[int, float, int],
) -> Fix:
    """The fix for a pair of classes, row `row` of `confusion_pairs`.

    Args:
        pairs: Of `confusion_pairs`.
        row: Which one.
        class_names: C names.
        images: Indices of its mistakes.
        held: Of the held-out half, which has no say in choosing the pair: its mistakes of the pair, those of
            the true class's middle pair (pairs that never occur included), and all its images. The gain is
            what the pair has beyond the middle one; its range is that of the interval of the pair's share.
    """
    pair, (count, usual, total) = pairs.iloc[row], held
    low, high = wilson_interval(count, total)
    value, low, high = (_points(max(0.0, one - usual / total)) for one in (count / total, low, high))
    true, predicted = class_names[int(pair["true"])], class_names[int(pair["predicted"])]
    back = f"the other way round {_times(int(pair['reverse']))}"
    return Fix(
        kind=FixKind.COLLECT,
        title=f"Collect images that show how “{true}” differs from “{predicted}”",
        why=f"“{true}” is taken for “{predicted}” {_times(int(pair['count']))}, in {_percent(pair['share'])} "
        f"of its images ({_percent(pair['interval_low'])} to {_percent(pair['interval_high'])}); {back}.",
        gain=Gain(value, low, high, f"{_ACCURACY}, if the pair became as rare as others of its class"),
        images=_indices(images),
        split=SplitName.TEST,
        how="Look at the mistakes in the report's confusion matrix, add training images of the two classes "
        "that look like them, then train and compare: sightline compare RUN_A RUN_B",
    )


def use_temperature(fitted: CrossFit) -> Fix | None:
    """The fix for confidence that is off; None where the gain is not clear of zero, or nothing fits."""
    low, high = fitted.gain
    if low <= 0 or not fitted.fitted:
        return None
    side = "too sure" if fitted.temperature > 1 else "not sure enough"
    return Fix(
        kind=FixKind.TEMPERATURE,
        title=f"Divide the logits by {fitted.temperature:.2f}",
        why=f"The model is {side}: calibration error {_percent(fitted.ece)}, with the temperature "
        f"{_percent(fitted.ece_after)} on images it was not fitted to. No prediction changes.",
        gain=Gain(_points(fitted.ece - fitted.ece_after), _points(low), _points(high), "calibration error"),
        images=(),
        split=SplitName.TEST,
        how=f"probabilities = softmax(logits / {fitted.temperature:.4f})",
    )


def use_threshold(threshold: Threshold, correct: ArrayLike) -> Fix | None:
    """The fix for answers that have to be safer than the model is; None where it would not gain."""
    error = 1 - float(np.asarray(correct, bool).mean())
    if threshold.error >= error:
        return None
    low, high = threshold.interval
    sure = (
        "guaranteed at 95 %" if threshold.guaranteed else f"not guaranteed: up to {_percent(threshold.bound)}"
    )
    return Fix(
        kind=FixKind.THRESHOLD,
        title=f"Send images below a confidence of {threshold.threshold:.3f} to a person",
        why=f"The model then answers {_percent(threshold.coverage)} of the images and is wrong in "
        f"{_percent(threshold.error)} of those instead of {_percent(error)} "
        f"({_percent(threshold.wanted_error)} was wanted; {sure}).",
        gain=Gain(
            _points(error - threshold.error),
            _points(error - high),
            _points(error - low),
            f"error, on the {_percent(threshold.coverage)} of the images that are answered",
        ),
        images=(),
        split=SplitName.TEST,
        how=f"answer only where confidence >= {threshold.threshold:.6g}",
    )


def _flagged(issues: pd.DataFrame) -> pd.DataFrame:
    """The rows to read, the lowest quality first, equal ones in data order."""
    return issues.loc[issues["flagged"]].sort_values(by="label_quality", kind="stable")


def _points(share: float) -> float:
    return 100 * float(share)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _images(count: int, split: str) -> str:
    return f"{count:,} {split} image" + ("" if count == 1 else "s")


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count:,} times")


def _indices(values: ArrayLike) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(values))
