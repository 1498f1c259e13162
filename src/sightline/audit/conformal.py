"""Sets of classes that hold the true one as often as wanted, whatever the model (Vovk 2005; Sadinle 2019).

>>> p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
>>> conformal_sets(p, 0.68).astype(int).tolist()  # every class with 1 - p <= .68
[[1, 0, 0], [1, 1, 0]]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.validation import halves, labelled, of_label
from sightline.errors import SightlineError
from sightline.stats import wilson_interval, wilson_intervals

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def conformal_threshold(labels: ArrayLike, probabilities: ArrayLike, *, coverage: float = 0.9) -> float:
    """Return the ceil((n + 1) coverage)-th smallest of 1 - p_y, in [0, 1].

    probabilities: (n, C) on images that neither trained nor chose the model. A set of all classes with
    1 - p up to the threshold then holds the true class of a new image with a probability of at least
    `coverage` (split conformal prediction with the score of Sadinle, Lei & Wasserman 2019). With too few
    images for that the threshold is 1: every class.
    """
    labels, probabilities = labelled(labels, probabilities)
    if not 0 < coverage < 1:
        raise SightlineError(f"a wanted coverage of {coverage}; it is a share between 0 and 1")
    scores = 1 - of_label(labels, probabilities).astype(np.float64)
    # A product such as 10 * .9 must not be rounded up because of its last bit.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else 1.0


def conformal_sets(probabilities: ArrayLike, threshold: float) -> np.ndarray:
    """Return which classes are in each image's set, (N, C) bool: those with 1 - p <= threshold."""
    return 1 - np.asarray(probabilities, np.float64) <= threshold


@dataclass(frozen=True)
class ConformalCheck:
    """A threshold from one half of the images, and what its sets were on the other half.

    realised: share of sets that hold the label, with its 95 % interval (Wilson). mean_size: classes in a
    set. single, empty: share of sets with one class and with none; a single one can go its way
    automatically, all others to a reader. per_class: a row for each class: count, realised, interval_low,
    interval_high (the promise is for the mean over all classes, not for each).
    """

    coverage: float
    threshold: float
    realised: float
    interval: tuple[float, float]
    mean_size: float
    single: float
    empty: float
    per_class: pd.DataFrame


def check_conformal(
    labels: ArrayLike, probabilities: ArrayLike, *, coverage: float = 0.9, seed: int = 0
) -> ConformalCheck:
    """Choose the threshold for `coverage` on a random half of the images and check it on the other half."""
    import pandas as pd

    labels, probabilities = labelled(labels, probabilities)
    first, second = halves(len(labels), seed)
    threshold = conformal_threshold(labels[first], probabilities[first], coverage=coverage)
    sets, labels = conformal_sets(probabilities[second], threshold), labels[second]
    held, sizes, classes = of_label(labels, sets), sets.sum(axis=1), sets.shape[1]
    count, right = (np.bincount(labels, weights, classes) for weights in (None, held))
    low, high = wilson_intervals(right, count)
    share = np.divide(right, count, out=np.full(classes, np.nan), where=count > 0)
    return ConformalCheck(
        coverage=coverage,
        threshold=threshold,
        realised=float(held.mean()),
        interval=wilson_interval(int(held.sum()), len(held)),
        mean_size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        empty=float((sizes == 0).mean()),
        per_class=pd.DataFrame(
            {"count": count, "realised": share, "interval_low": low, "interval_high": high}
        ),
    )
