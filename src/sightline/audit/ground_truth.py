"""What was found in generated data, beside what was planted there.

The audit's findings held against what was planted in generated data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from sightline.audit.label_issues import ListQuality, precision_recall
from sightline.audit.training_dynamics import area_under_margin
from sightline.data import PlantedTruth
from sightline.predictions import Predictions

if TYPE_CHECKING:
    from sightline.audit.pipeline import Findings


class Finding(TypedDict):
    """One line of the report: what was measured, what came, what to hold it against, what it means."""

    what: str
    value: str
    expected: str
    meaning: str


def check_planted(
    truth: PlantedTruth,
    train: Predictions,
    test: Predictions,
    heatmaps: np.ndarray,
    margins: np.ndarray | None = None,
) -> list[Finding]:
    """Return the findings for wrong labels, the shortcut, the leaks and the objects' masks.

    train, test: predictions on both splits. heatmaps: (N, H, W) in [0, 1] of the test images, for the
    class that was predicted, at the size of the images. margins: (E, N) of the training images over the
    epochs, where they were kept.
    """
    labels = [wrong_labels(truth, train)]
    if margins is not None:
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
        expected=f"{planted**2 / len(train):.1f} by chance",
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
    """Return the mean, over the wanted images, of the share of wanted ones up to their place in `order`.

    order: (N,) indices, first things first. wanted: (W,) indices. In (0, 1]; NaN without any wanted.

    >>> average_precision(np.array([3, 0, 2, 1]), np.array([3, 2]))
    0.8333333333333333
    """
    places = np.flatnonzero(np.isin(order, wanted))
    return float(((np.arange(len(places)) + 1) / (places + 1)).mean()) if len(places) else float("nan")


def shortcut(truth: PlantedTruth, test: Predictions, heatmaps: np.ndarray) -> list[Finding]:
    """How often the mark makes the model say its class, and how much of the heat then falls on it."""
    name = test.class_names[truth.shortcut_class]
    says = test.predicted == truth.shortcut_class
    others = test.labels != truth.shortcut_class
    marked, plain = truth.shortcut_test & others, ~truth.shortcut_test & others
    if not marked.any() or not plain.any():
        return []
    rate = Finding(
        what=f"Test images of other classes with the mark that are called “{name}”",
        value=_percent(says[marked].mean()),
        expected=f"{_percent(says[plain].mean())} without the mark",
        meaning=f"In training the mark appeared only on “{name}”: the model took it for a sign of the class.",
    )
    fooled = marked & says
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
    """The accuracy on test images that were copied from training, beside that on all others."""
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
    if not chosen.any():
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


def score_findings(truth: PlantedTruth, found: Findings) -> list[Finding]:
    """Return precision and recall of label suspects and leaks, and whether the shortcut was found."""
    scored = []
    lists = {"dynamics of training": found.train_suspects, "folds": found.fold_suspects}
    for source, suspects in lists.items():
        if suspects is not None:
            flagged = np.flatnonzero(suspects["issue"])
            share = len(truth.wrong_labels) / len(suspects)
            scored.append(
                Finding(
                    what=f"Suspicious training labels, from the {source}",
                    value=_quality(precision_recall(flagged, truth.wrong_labels)),
                    expected=f"precision {100 * share:.1f} % by chance",
                    meaning="The list of labels to check holds what was planted, and little else.",
                )
            )
    leaked = np.flatnonzero(found.duplicates.leaked)
    scored.append(
        Finding(
            what="Test images with a twin in training",
            value=_quality(precision_recall(leaked, truth.leaks[:, 0])),
            expected=f"{found.duplicates.chance:.1f} pairs by chance",
            meaning="Copies were planted exact, mirrored, brighter and noisy.",
        )
    )
    scored.append(_shortcut(truth, found))
    return scored


def _shortcut(truth: PlantedTruth, found: Findings) -> Finding:
    named = found.evidence.predictions.class_names[truth.shortcut_class]
    shortcuts = [one for one in found.slices if one.shortcut]
    expected = f"images called “{named}” with evidence in the top right corner"
    meaning = "The slices were searched without knowing of the mark; half of the images had no say in it."
    if not shortcuts:
        return Finding(what="The shortcut", value="not found", expected=expected, meaning=meaning)
    best = shortcuts[0]
    marked = np.flatnonzero(truth.shortcut_test)
    share = np.isin(best.rows, marked).mean()
    return Finding(
        what="The shortcut",
        value=f"found: {best.name}; {100 * share:.0f} % of them carry the mark",
        expected=expected,
        meaning=meaning,
    )


def _quality(quality: ListQuality) -> str:
    if not quality.found:
        return f"none found of {quality.planted} planted"
    return (
        f"{quality.hits} of {quality.planted} planted found (recall {100 * quality.recall:.0f} %), "
        f"{quality.found} listed (precision {100 * quality.precision:.0f} %)"
    )
