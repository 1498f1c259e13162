"""Sets of classes that hold the true one as often as wanted, whatever the model (Vovk 2005; Sadinle 2019).

>>> p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
>>> conformal_sets(p, 0.68).astype(int).tolist()  # every class with 1 - p <= .68
[[1, 0, 0], [1, 1, 0]]
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.inputs import halves, labelled, of_label
from sightline.audit.result import ClassCoverage, ConformalSets
from sightline.errors import InputError
from sightline.stats import wilson_interval, wilson_intervals

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

WANTED_COVERAGES = (0.8, 0.9, 0.95, 0.99)


def conformal_threshold(labels: ArrayLike, probabilities: ArrayLike, *, coverage: float = 0.9) -> float:
    """Return the ceil((n + 1) coverage)-th smallest of 1 - p_y, in [0, 1].

    probabilities: (n, C) on images that neither trained nor chose the model. A set of all classes with
    1 - p up to the threshold then holds the true class of a new image with a probability of at least
    `coverage` (split conformal prediction with the score of Sadinle, Lei & Wasserman 2019). With too few
    images for that the threshold is 1: every class.
    """
    labels, probabilities = labelled(labels, probabilities)
    if not 0 < coverage < 1:
        raise InputError(f"a wanted coverage of {coverage}; it is a share between 0 and 1")
    scores = 1 - of_label(labels, probabilities).astype(np.float64)
    # A product such as 10 * .9 must not be rounded up because of its last bit.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else 1.0


def conformal_sets(probabilities: ArrayLike, threshold: float) -> np.ndarray:
    """Return which classes are in each image's set, (N, C) bool: those with 1 - p <= threshold."""
    return 1 - np.asarray(probabilities, np.float64) <= threshold


def check_conformal(
    labels: ArrayLike, probabilities: ArrayLike, *, coverage: float = 0.9, seed: int = 0
) -> ConformalSets:
    """Choose the threshold for `coverage` on a random half of the images and check it on the held-out half.

    An image whose set is a single class can go its way automatically, all others to a reader.

    Args:
        labels: (N,) integers in 0..C-1, N > 1.
        probabilities: (N, C) on images that neither trained nor chose the model.
        coverage: Share of the sets that is wanted to hold the label, between 0 and 1.
        seed: Of the halves.

    Raises:
        InputError: A value does not fit.
    """
    labels, probabilities = labelled(labels, probabilities)
    first, second = halves(len(labels), seed)
    threshold = conformal_threshold(labels[first], probabilities[first], coverage=coverage)
    sets, labels = conformal_sets(probabilities[second], threshold), labels[second]
    held, sizes, classes = of_label(labels, sets), sets.sum(axis=1), sets.shape[1]
    count, right = (np.bincount(labels, weights, classes) for weights in (None, held))
    low, high = wilson_intervals(right, count)
    return ConformalSets(
        coverage=coverage,
        threshold=threshold,
        realised=float(held.mean()),
        interval=wilson_interval(int(held.sum()), len(held)),
        mean_size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        empty=float((sizes == 0).mean()),
        per_class=tuple(
            ClassCoverage(k, count[k], right[k] / count[k] if count[k] else None, (low[k], high[k]))
            for k in range(classes)
        ),
    )


def measure_conformal(
    labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0
) -> tuple[ConformalSets, ...]:
    """Return the sets for coverages of 80, 90, 95 and 99 %; none for fewer than two images.

    Coverages below the accuracy are left out: they are kept by sets without a class, which help nobody.
    """
    right = float((probabilities.argmax(axis=1) == labels).mean()) if len(labels) else 0.0
    return tuple(
        check_conformal(labels, probabilities, coverage=coverage, seed=seed)
        for coverage in WANTED_COVERAGES
        if len(labels) > 1 and coverage > right
    )


def set_sizes(labels: np.ndarray, probabilities: np.ndarray, *, coverage: float = 0.9) -> np.ndarray:
    """Return how many classes are in each image's set, (N,), with the threshold from all images."""
    threshold = conformal_threshold(labels, probabilities, coverage=coverage)
    return conformal_sets(probabilities, threshold).sum(axis=1)
