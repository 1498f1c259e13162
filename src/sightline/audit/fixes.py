"""What to do first: the findings of an audit as actions, with their evidence and what they may gain, in
order.

Each function takes one finding and returns one fix, or None where the finding gives no reason to act. A gain
is in points (hundredths) of its unit and never more than what the action touches can give. Where only a new
training run can tell, there is none, and `how` says how to find out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.calibration import CrossFit
from sightline.audit.result import Fix, FixKind, Gain, SplitName, Threshold
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

CONFIRMED = 0.51
"""Of the labels that confident learning flagged in ten test sets, people found 51 % wrong (Northcutt, Athalye
& Mueller 2021, "Pervasive label errors in test sets")."""


def rank_fixes(fixes: Sequence[Fix | None], sizes: Mapping[SplitName, int]) -> list[Fix]:
    """Return the fixes in the order to do them, None left out.

    First what is wrong with the data, then what teaches the model, then what changes how its answers are
    used. Among those by the size of the expected change in points; where it is not known, by the share of the
    split that it touches, which bounds it. sizes: images of each split.
    """

    def key(fix: Fix) -> tuple[int, float]:
        points = abs(fix.gain.value) if fix.gain else 100 * len(fix.images) / sizes[fix.split]
        return _TIERS[fix.kind], -points

    return sorted((fix for fix in fixes if fix is not None), key=key)


def relabel_test(issues: pd.DataFrame, correct: ArrayLike, *, confirmed: float = CONFIRMED) -> Fix | None:
    """The fix for label issues of the test split (`find_label_issues`); None without any.

    Only a mistake can become a right answer by a new label: at most all flagged mistakes do, at least none.
    The value takes the share `confirmed` of them.
    """
    found = _flagged(issues)
    if found.empty:
        return None
    wrong = ~np.asarray(correct, bool)[found["index"]]
    highest = _points(wrong.sum() / len(issues))
    return Fix(
        kind=FixKind.RELABEL,
        title=f"Check the labels of {_images(len(found), 'test')}",
        why=f"The model confidently names another class; {wrong.sum()} of them count as mistakes now. "
        "New labels change the measure, not the model.",
        gain=Gain(confirmed * highest, 0.0, highest, _MEASURED),
        images=_indices(found["index"]),
        split=SplitName.TEST,
        how="Decide relabel, keep or drop in the report and export fixes.json: "
        "sightline run RECIPE --fixes fixes.json",
    )


def relabel_train(issues: pd.DataFrame, *, evidence: str) -> Fix | None:
    """The fix for label issues of the training split; None without any.

    issues: of `label_issues_from_dynamics` or `find_label_issues`. evidence: where the list comes from, as
        the end of a sentence: "their margin stayed negative in training".
    """
    found = _flagged(issues)
    if found.empty:
        return None
    share = len(found) / len(issues)
    return Fix(
        kind=FixKind.RELABEL,
        title=f"Check the labels of {_images(len(found), 'training')}",
        why=f"{_percent(share)} of the training labels are probably wrong: {evidence}. "
        "What correcting them gains is not known without training again.",
        gain=None,
        images=_indices(found["index"]),
        split=SplitName.TRAIN,
        how=f"Decide relabel, keep or drop in the report, export fixes.json, then: {_TRAIN_AND_COMPARE}",
    )


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


def collect_for_slice(found: FoundSlice, wrong: ArrayLike) -> Fix:
    """The fix for a slice: a kind of test images that is wrong more often than the others. wrong: (N,) bool.

    If the slice became as good as the rest, it would gain its share of the images times (error - rest); the
    range is that of the Wilson interval of its error rate, not below 0. In a shortcut the model looks at
    something that only goes with the class it names, so that images without that are needed.
    """
    wrong, rows = np.asarray(wrong, bool), found.rows
    mistakes = int(wrong[rows].sum())
    error, share = mistakes / len(rows), len(rows) / len(wrong)
    ends = (error, *wilson_interval(mistakes, len(rows)))
    value, low, high = (_points(share * max(end - found.rest, 0)) for end in ends)
    evidence = f" {found.evidence}." if found.evidence else ""
    return Fix(
        kind=FixKind.COLLECT,
        title=f"{'Break the shortcut' if found.shortcut else 'Collect or augment'}: {found.name}",
        why=f"{_percent(error)} of these {len(rows)} test images are wrong, against {_percent(found.rest)} "
        f"of the others.{evidence}",
        gain=Gain(value, low, high, f"{_ACCURACY}, if they became like the others"),
        images=_indices(rows),
        split=SplitName.TEST,
        how=f"{_SHORTCUT if found.shortcut else _SLICE}, then train and compare: "
        "sightline compare RUN_A RUN_B",
    )


def collect_for_pair(
    pairs: pd.DataFrame, row: int, class_names: Sequence[str], *, images: ArrayLike, total: int
) -> Fix:
    """The fix for a pair of classes, row `row` of `confusion_pairs`.

    images: indices of its mistakes. At most all of them are gained, at least none; the value is what the
    pair has beyond the true class's middle pair (pairs that never occur included).
    """
    pair = pairs.iloc[row]
    counts = pairs["count"].to_numpy()[pairs["true"] == pair["true"]]
    usual = float(np.median(np.concatenate([counts, np.zeros(len(class_names) - 1 - len(counts))])))
    true, predicted = class_names[int(pair["true"])], class_names[int(pair["predicted"])]
    back = f"the other way round {_times(int(pair['reverse']))}"
    return Fix(
        kind=FixKind.COLLECT,
        title=f"Collect images that show how “{true}” differs from “{predicted}”",
        why=f"“{true}” is taken for “{predicted}” {_times(int(pair['count']))}, in {_percent(pair['share'])} "
        f"of its images ({_percent(pair['interval_low'])} to {_percent(pair['interval_high'])}); {back}.",
        gain=Gain(
            _points((pair["count"] - usual) / total),
            0.0,
            _points(pair["count"] / total),
            f"{_ACCURACY}, if the pair became as rare as others of its class",
        ),
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
