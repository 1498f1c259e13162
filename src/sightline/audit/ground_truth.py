"""On generated data: what was found next to what was planted.

>>> precision_recall(found=[3, 5, 8], planted=[3, 8, 9, 10])
ListQuality(found=3, planted=4, hits=2, precision=0.6666666666666666, recall=0.5)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.label_claims import JudgedLabels
from sightline.audit.result import Finding
from sightline.audit.slices import FoundSlice
from sightline.audit.training_dynamics import area_under_margin
from sightline.data import PlantedTruth
from sightline.predictions import Predictions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ListQuality:
    """A list next to the truth: sizes, hits, precision (hits / found), recall (hits / planted)."""

    found: int
    planted: int
    hits: int
    precision: float
    recall: float


def precision_recall(found: ArrayLike, planted: ArrayLike) -> ListQuality:
    """Compare a list of indices with the planted ones; the order does not count, nor does a repetition."""
    found, planted = np.unique(np.asarray(found, int)), np.unique(np.asarray(planted, int))
    hits = len(np.intersect1d(found, planted))
    nan = float("nan")
    return ListQuality(
        found=len(found),
        planted=len(planted),
        hits=hits,
        precision=hits / len(found) if len(found) else nan,
        recall=hits / len(planted) if len(planted) else nan,
    )


def check_planted(
    truth: PlantedTruth,
    train: Predictions,
    test: Predictions,
    heatmaps: np.ndarray,
    margins: np.ndarray | None = None,
) -> list[Finding]:
    """Return the findings for wrong labels, the shortcut, the leaks and the objects' masks.

    Args:
        truth: What was planted.
        train: Predictions on the training split.
        test: Predictions on the test split.
        heatmaps: (N, H, W) in [0, 1] of the test images, for the class that was predicted, at the images'
            size.
        margins: (E, N) of the training images over the epochs, where they were kept.
    """
    labels = [wrong_labels(truth, train)] if len(truth.wrong_labels) else []
    if margins is not None and labels:
        labels.append(wrong_labels_by_margin(truth, margins, train.loss))
    findings = [*labels, *shortcut(truth, test, heatmaps), leaks(truth, test)]
    return [finding for finding in (*findings, object_masks(truth, test, heatmaps)) if finding]


def wrong_labels(truth: PlantedTruth, train: Predictions) -> Finding:
    """How many of the W planted wrong labels are among the W training images with the largest loss."""
    planted = len(truth.wrong_labels)
    costliest = np.argsort(-train.loss, kind="stable")[:planted]
    found = len(np.intersect1d(costliest, truth.wrong_labels))
    return Finding(
        what=f"Wrong training labels among the {planted} training images with the largest loss",
        value=f"{found} of {planted}",
        expected=f"{planted**2 / len(train):.1f} expected by chance",
        meaning="A training image that stays expensive is the first place to look for a wrong label.",
    )


def wrong_labels_by_margin(truth: PlantedTruth, margins: np.ndarray, losses: np.ndarray) -> Finding:
    """The same for the smallest area under the margin, and the average precision of both orders.

    margins: (E, N) over the epochs, losses: (N,) at the end. All epochs count: over three seeds, leaving out
    the first changed the average precision by 0.001 at most. Images that were not trained on come last.
    """
    order = np.argsort(area_under_margin(margins), kind="stable")  # NaN is sorted to the end
    planted = len(truth.wrong_labels)
    found = len(np.intersect1d(order[:planted], truth.wrong_labels))
    by_margin = average_precision(order, truth.wrong_labels)
    by_loss = average_precision(np.argsort(-losses, kind="stable"), truth.wrong_labels)
    return Finding(
        what=f"Wrong training labels among the {planted} with the smallest area under the margin",
        value=f"{found} of {planted}, average precision {by_margin:.3f}",
        expected=f"average precision {by_loss:.3f} by the largest loss",
        meaning="The margin over all epochs of training knows more of a label than the loss at its end.",
    )


def average_precision(order: np.ndarray, wanted: np.ndarray) -> float:
    """Return the average precision of a ranking, in (0, 1]; NaN without any wanted image.

    It is the mean, over the wanted images, of the share of wanted ones up to their rank.

    Args:
        order: (N,) indices, first things first.
        wanted: (W,) indices.

    >>> average_precision(np.array([3, 0, 2, 1]), np.array([3, 2]))
    0.8333333333333333
    """
    from sklearn.metrics import average_precision_score

    relevant = np.isin(order, wanted)
    return (
        float(average_precision_score(relevant, -np.arange(len(order)))) if relevant.any() else float("nan")
    )


def shortcut(truth: PlantedTruth, test: Predictions, heatmaps: np.ndarray) -> list[Finding]:
    """How often the mark makes the model name its class, and how much of the heat then falls on it."""
    name = test.class_names[truth.shortcut_class]
    named = test.predicted == truth.shortcut_class
    others = test.labels != truth.shortcut_class
    marked, plain = truth.shortcut_test & others, ~truth.shortcut_test & others
    if not marked.any() or not plain.any():
        return []
    rate = Finding(
        what=f"Test images of other classes with the mark that are called “{name}”",
        value=_percent(named[marked].mean()),
        expected=f"{_percent(named[plain].mean())} without the mark",
        meaning=f"In training the mark appeared only on “{name}”: the model took it for a sign of the class.",
    )
    fooled = marked & named
    if not fooled.any():
        return [rate]
    top, left, bottom, right = truth.shortcut_box
    box = np.zeros(heatmaps.shape[1:], bool)
    box[top:bottom, left:right] = True
    heat = Finding(
        what=f"Heat on the mark, in marked images that are called “{name}”",
        value=_percent(_share_inside(heatmaps[fooled], box)),
        expected=f"{_percent(box.mean())} if heat were spread evenly",
        meaning="Where the map points at the mark, it shows the shortcut and not the object.",
    )
    return [rate, heat]


def leaks(truth: PlantedTruth, test: Predictions) -> Finding | None:
    """The accuracy on test images that were copied from training, next to that on all others."""
    leaked = np.zeros(len(test), bool)
    leaked[truth.leaks[:, 0]] = True
    if not leaked.any() or leaked.all():
        return None
    return Finding(
        what=f"Accuracy on the {leaked.sum()} test images that were copied from training",
        value=_percent(test.correct[leaked].mean()),
        expected=f"{_percent(test.correct[~leaked].mean())} on the other {(~leaked).sum()}",
        meaning="Copies of training images raise the test accuracy without any skill.",
    )


def object_masks(truth: PlantedTruth, test: Predictions, heatmaps: np.ndarray) -> Finding | None:
    """The share of the heat that falls on the object, in unmarked images that were predicted correctly."""
    chosen = test.correct & ~truth.shortcut_test
    if truth.test_masks is None or not chosen.any():
        return None
    masks = truth.test_masks[chosen]
    return Finding(
        what="Heat on the object, in images that were predicted correctly",
        value=_percent(_share_inside(heatmaps[chosen], masks)),
        expected=f"{_percent(masks.mean())} if heat were spread evenly",
        meaning="The more of the heat lies on the object, the less the map speaks of the background.",
    )


def _share_inside(heatmaps: np.ndarray, inside: np.ndarray) -> float:
    totals = heatmaps.sum(axis=(1, 2))
    shares = (heatmaps * inside).sum(axis=(1, 2))[totals > 0] / totals[totals > 0]
    return float(shares.mean()) if len(shares) else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def score_audit(
    truth: PlantedTruth,
    *,
    test: JudgedLabels,
    train: JudgedLabels | None,
    folds: JudgedLabels | None,
    leaked: np.ndarray | None,
    expected_by_chance: float,
    slices: Sequence[FoundSlice],
    correct: np.ndarray,
    class_names: Sequence[str],
) -> tuple[Finding, ...]:
    """Return how true each claim of the page is: label issues of both splits, leaks, shortcut, slices.

    leaked: (N_test,) bool, None where copies were not looked for. correct: (N_test,) bool.
    """
    scored = []
    lists = (
        ("training labels", train, truth.wrong_labels),
        ("training labels, by folds", folds, truth.wrong_labels),
        ("test labels", test, truth.wrong_test),
    )
    for words, judged, planted in lists:
        if judged is not None:
            scored += _labels_scored(words, judged, planted)
    if leaked is not None and len(truth.leaks):
        scored.append(
            Finding(
                what="Test images with a near-duplicate in training",
                value=_quality(precision_recall(np.flatnonzero(leaked), truth.leaks[:, 0])),
                expected=f"{expected_by_chance:.1f} pairs expected by chance",
                meaning=f"Copies were planted {', '.join(sorted(set(map(str, truth.leak_kinds))))}.",
            )
        )
    if truth.shortcut_test.any():
        scored.append(_shortcut_found(truth, slices, class_names))
        scored.append(_shortcut_gain(truth, slices, correct))
    if truth.degraded.any():
        scored.append(_degraded_found(truth, slices))
    return tuple(scored)


def _labels_scored(words: str, judged: JudgedLabels, planted: np.ndarray) -> list[Finding]:
    """The flagged labels and the share of them that is said to be wrong, next to what was planted."""
    flagged, total = np.flatnonzero(judged.flagged), len(judged.table)
    quality, share = precision_recall(flagged, planted), 100 * len(planted) / total
    order = np.argsort(judged.table["label_quality"].to_numpy(float), kind="stable")
    top = "" if not len(planted) else f"; ranking: average precision {average_precision(order, planted):.3f}"
    found = Finding(
        what=f"Flagged {words}",
        value=_quality(quality) + top,
        expected=f"precision {share:.1f} % expected by chance",
        meaning=f"The page says: {judged.claim.value}.",
    )
    if judged.precision is None:
        return [found]
    low, high = judged.precision.interval
    inside = "inside" if low <= quality.precision <= high else "outside"
    said = f"{100 * judged.precision.value:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
    return [
        found,
        Finding(
            what=f"Share of the flagged {words} that is wrong",
            value=f"{said} on the page",
            expected=f"{100 * quality.precision:.0f} % in truth: {inside} the interval",
            meaning="Labels that were wrong before anything was planted count as right here.",
        ),
    ]


def _shortcut_gain(truth: PlantedTruth, slices: Sequence[FoundSlice], correct: np.ndarray) -> Finding:
    """What breaking the shortcut is said to gain, next to what the marked images lose."""
    marked, plain = truth.shortcut_test, ~truth.shortcut_test
    lost = (
        marked.mean() * max(0.0, float(correct[plain].mean() - correct[marked].mean()))
        if plain.any()
        else 0.0
    )
    found = [one for one in slices if one.shortcut]
    said = "nothing: it was not found"
    if found:
        share, best = len(found[0].rows) / len(correct), found[0]
        ends = (100 * share * max(end - best.rest, 0) for end in (best.error, *best.interval))
        said = "{:.2f} points ({:.2f} to {:.2f}) on the page".format(*ends)
    return Finding(
        what="Gain of breaking the shortcut",
        value=said,
        expected=f"{100 * lost:.2f} points if marked images were like the others",
        meaning="The gain is what the images of the slice lose, and no more than that.",
    )


def _degraded_found(truth: PlantedTruth, slices: Sequence[FoundSlice]) -> Finding:
    """Whether a slice is of the images that were made worse."""
    planted = np.flatnonzero(truth.degraded)
    scores = [(precision_recall(one.rows, planted), one.name) for one in slices]
    hits = [(one, name) for one, name in scores if one.precision > 0.5]
    best = max(hits, key=lambda pair: pair[0].hits, default=None)
    return Finding(
        what=f"Slice of the images {truth.degraded_name}",
        value="not found" if best is None else f"{best[1]}: {_quality(best[0])}",
        expected=f"{len(planted)} test images {truth.degraded_name}",
        meaning="A slice counts as found where more than half of its images were made worse.",
    )


def _shortcut_found(truth: PlantedTruth, slices: Sequence[FoundSlice], class_names: Sequence[str]) -> Finding:
    expected = f"images called “{class_names[truth.shortcut_class]}” with evidence where the mark is"
    meaning = "The search did not know of the mark; the held-out half had no say in it."
    shortcuts = [one for one in slices if one.shortcut]
    if not shortcuts:
        return Finding(what="The shortcut", value="not found", expected=expected, meaning=meaning)
    best = shortcuts[0]
    share = np.isin(best.rows, np.flatnonzero(truth.shortcut_test)).mean()
    return Finding(
        what="The shortcut",
        value=f"found: {best.name}; {100 * share:.0f} % of them carry the mark",
        expected=expected,
        meaning=meaning,
    )


def _quality(quality: ListQuality) -> str:
    if not quality.found:
        return f"none listed, {quality.planted} planted"
    if not quality.planted:
        return f"{quality.found} listed, none planted"
    return (
        f"{quality.hits} of {quality.planted} planted found (recall {100 * quality.recall:.0f} %), "
        f"{quality.found} listed (precision {100 * quality.precision:.0f} %)"
    )
