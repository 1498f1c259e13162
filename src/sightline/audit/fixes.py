"""What to do first: an action with its evidence and what it may gain, and the order of actions.

A gain is in points (hundredths) of a stated unit and never more than what the action touches can give. Where
only a new training run can tell, there is none, and `how` says how to find out.

Findings of the audit as fixes: each function takes one finding and states what its mending may gain.

None comes where a finding gives no reason to act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.audit.calibration import COLDEST, HOTTEST, CrossFit
from sightline.audit.selective import Rejection
from sightline.stats import wilson_interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

# What was measured wrongly comes first, because every other number rests on it; then what teaches the model;
# then what only changes how its answers are used.
TIERS = {"relabel": 0, "drop": 0, "collect": 1, "temperature": 2, "threshold": 2}


@dataclass(frozen=True)
class Gain:
    """An expected gain and its range, in points (hundredths) of `unit`; negative where a number falls."""

    value: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Fix:
    """One action: what to do, why, what it may gain, on which images (of `split`), and how to do it here.

    kind: a key of `TIERS`. gain: None where it is not known without training again.
    """

    kind: str
    title: str
    why: str
    gain: Gain | None
    images: tuple[int, ...]
    split: str
    how: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {**asdict(self), "images": list(self.images)}


def rank_fixes(fixes: Sequence[Fix | None], sizes: Mapping[str, int]) -> list[Fix]:
    """Return the fixes in the order to do them, None left out.

    First by `TIERS`: what is wrong with the data, then what teaches the model, then what changes how its
    answers are used. Within a tier by the size of the expected change in points; where it is not known, by
    the share of the split that it touches, which bounds it. sizes: {"train": N, "test": N}.
    """

    def key(fix: Fix) -> tuple[int, float]:
        points = abs(fix.gain.value) if fix.gain else 100 * len(fix.images) / sizes[fix.split]
        return TIERS[fix.kind], -points

    return sorted((fix for fix in fixes if fix is not None), key=key)


ACCURACY = "points of test accuracy"
MEASURED = "points of measured test accuracy"
_SLICE = "Add training images of this kind, or an augmentation that makes them"
_SHORTCUT = "Add training images with the sign and another class, or an augmentation that hides the sign"
_TRAIN_AND_COMPARE = "sightline run RECIPE --fixes fixes.json; sightline compare RUN_A RUN_B"

# Of the labels that confident learning flagged in ten test sets, people found 51 % wrong
# (Northcutt, Athalye & Mueller 2021, "Pervasive label errors in test sets").
CONFIRMED = 0.51


def relabel_test(suspects: pd.DataFrame, correct: ArrayLike, *, confirmed: float = CONFIRMED) -> Fix | None:
    """The fix for suspicious test labels (`label_suspects`); None without any.

    Only a mistake can become a right answer by a new label: at most all flagged mistakes do, at least none.
    The value takes the share `confirmed` of them.
    """
    found = _issues(suspects)
    if found.empty:
        return None
    wrong = ~np.asarray(correct, bool)[found["index"]]
    most = _points(wrong.sum() / len(suspects))
    return Fix(
        kind="relabel",
        title=f"Check the labels of {_images(len(found), 'test')}",
        why=f"The model confidently names another class; {wrong.sum()} of them count as mistakes now. "
        "New labels change the measure, not the model.",
        gain=Gain(confirmed * most, 0.0, most, MEASURED),
        images=_indices(found["index"]),
        split="test",
        how="Decide relabel, keep or drop in the report and export fixes.json: "
        "sightline run RECIPE --fixes fixes.json",
    )


def relabel_train(suspects: pd.DataFrame, *, evidence: str) -> Fix | None:
    """The fix for suspicious training labels (`suspects_from_dynamics`, `label_suspects`); None without any.

    evidence: where the list comes from, as the end of a sentence: "their margin stayed negative in training".
    """
    found = _issues(suspects)
    if found.empty:
        return None
    share = len(found) / len(suspects)
    return Fix(
        kind="relabel",
        title=f"Check the labels of {_images(len(found), 'training')}",
        why=f"{_percent(share)} of the training labels are suspicious: {evidence}. "
        "What mending them gains is not known without training again.",
        gain=None,
        images=_indices(found["index"]),
        split="train",
        how=f"Decide relabel, keep or drop in the report, export fixes.json, then: {_TRAIN_AND_COMPARE}",
    )


def drop_twins(correct: ArrayLike, leaked: ArrayLike) -> Fix | None:
    """The fix for test images with a near-duplicate in training, (N,) bool each; None without any.

    The gain is of the measured accuracy and mostly negative: it shows what the twins had added. Its range is
    the Wilson interval of the accuracy without them.
    """
    correct, leaked = np.asarray(correct, bool), np.asarray(leaked, bool)
    if not leaked.any() or leaked.all():
        return None
    rest, before = correct[~leaked], correct.mean()
    low, high = wilson_interval(int(rest.sum()), len(rest))
    value, low, high = (_points(share - before) for share in (rest.mean(), low, high))
    return Fix(
        kind="drop",
        title=f"Leave {_images(int(leaked.sum()), 'test')} with a twin in training out of the measure",
        why=f"They are right in {_percent(correct[leaked].mean())}, all others in {_percent(rest.mean())}: "
        "a copy shows memory, not skill.",
        gain=Gain(value, low, high, MEASURED),
        images=_indices(np.flatnonzero(leaked)),
        split="test",
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
        kind="drop",
        title=f"Drop {_images(len(copies), 'training')}: near-duplicates of others",
        why=f"{_percent(len(copies) / total)} of the training images are near-duplicates: they weigh twice "
        "what they show once. What dropping them gains is not known without training again.",
        gain=None,
        images=_indices(copies),
        split="train",
        how=f"Decide drop in the report, export fixes.json, then: {_TRAIN_AND_COMPARE}",
    )


def collect_for_slice(
    name: str,
    rows: ArrayLike,
    *,
    wrong: int,
    rest: float,
    total: int,
    evidence: str = "",
    shortcut: bool = False,
) -> Fix:
    """The fix for a slice: a group of test images that is wrong more often than the others.

    rows: indices of its test images, `wrong` of them mistakes. rest: error rate of the others, in [0, 1].
    total: test images. If the slice became as good as the rest, it would gain rows / total (error - rest);
    the range is that of the Wilson interval of its error rate, not below 0. shortcut: the model looks at
    something that only goes with the class it says, so that images without that are needed.
    """
    rows = np.asarray(rows, int)
    error, share = wrong / len(rows), len(rows) / total
    ends = (error, *wilson_interval(wrong, len(rows)))
    value, low, high = (_points(share * max(end - rest, 0)) for end in ends)
    return Fix(
        kind="collect",
        title=f"{'Break the shortcut' if shortcut else 'Collect or augment'}: {name}",
        why=f"{_percent(error)} of these {len(rows)} test images are wrong, against {_percent(rest)} of the "
        f"others. {evidence}".strip(),
        gain=Gain(value, low, high, f"{ACCURACY}, if they became like the others"),
        images=_indices(rows),
        split="test",
        how=f"{_SHORTCUT if shortcut else _SLICE}, then train and compare: sightline compare RUN_A RUN_B",
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
        kind="collect",
        title=f"Collect images that tell “{true}” from “{predicted}”",
        why=f"“{true}” is taken for “{predicted}” {_times(int(pair['count']))}, in {_percent(pair['share'])} "
        f"of its images ({_percent(pair['interval_low'])} to {_percent(pair['interval_high'])}); {back}.",
        gain=Gain(
            _points((pair["count"] - usual) / total),
            0.0,
            _points(pair["count"] / total),
            f"{ACCURACY}, if the pair became as rare as others of its class",
        ),
        images=_indices(images),
        split="test",
        how="Look at the mistakes in the report's confusion matrix, add training images of the two classes "
        "that look like them, then train and compare: sightline compare RUN_A RUN_B",
    )


def use_temperature(fitted: CrossFit) -> Fix | None:
    """The fix for confidence that is off; None where the gain is not clear of zero, or nothing fits.

    A temperature at the end of its range is none: the model made no mistake, or knows nothing.
    """
    low, high = fitted.gain
    if low <= 0 or not COLDEST < fitted.temperature < HOTTEST:
        return None
    side = "too sure" if fitted.temperature > 1 else "not sure enough"
    return Fix(
        kind="temperature",
        title=f"Divide the logits by {fitted.temperature:.2f}",
        why=f"The model is {side}: calibration error {_percent(fitted.ece)}, with the temperature "
        f"{_percent(fitted.ece_after)} on images it was not fitted to. No prediction changes.",
        gain=Gain(
            _points(fitted.ece - fitted.ece_after), _points(low), _points(high), "points of calibration error"
        ),
        images=(),
        split="test",
        how=f"probabilities = softmax(logits / {fitted.temperature:.4f})",
    )


def use_threshold(rejection: Rejection, correct: ArrayLike) -> Fix | None:
    """The fix for answers that have to be safer than the model is; None where it would not gain."""
    error = 1 - float(np.asarray(correct, bool).mean())
    if rejection.checked >= error:
        return None
    low, high = rejection.interval
    sure = (
        "guaranteed at 95 %" if rejection.guaranteed else f"not guaranteed: up to {_percent(rejection.bound)}"
    )
    return Fix(
        kind="threshold",
        title=f"Send images below a confidence of {rejection.threshold:.3f} to a reader",
        why=f"The model then answers {_percent(rejection.coverage)} of the images and is wrong in "
        f"{_percent(rejection.checked)} of those instead of {_percent(error)} "
        f"({_percent(rejection.error)} was wanted; {sure}).",
        gain=Gain(
            _points(error - rejection.checked),
            _points(error - high),
            _points(error - low),
            f"points of error, on the {_percent(rejection.coverage)} of the images that are answered",
        ),
        images=(),
        split="test",
        how=f"answer only where confidence >= {rejection.threshold:.6g}",
    )


def _issues(suspects: pd.DataFrame) -> pd.DataFrame:
    """The rows to read, the most suspicious first, equal ones in data order."""
    found = suspects.loc[suspects["issue"]]
    return found.sort_values(by="suspicion", ascending=False, kind="stable")


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
