"""How far two lists agree, and how far a list agrees with a truth that was planted.

>>> precision_recall(found=[3, 5, 8], planted=[3, 8, 9, 10])
ListQuality(found=3, planted=4, hits=2, precision=0.6666666666666666, recall=0.5)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import SightlineError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Agreement:
    """The overlap of the tops of two rankings of the same images.

    top: how many images of each were taken. both: indices that both list, in the order of their mean rank.
    jaccard: |both| / |either|. by_chance: the jaccard of two lists whose overlap is that of random lists.
    """

    top: int
    both: np.ndarray
    jaccard: float
    by_chance: float


def suspect_agreement(a: ArrayLike, b: ArrayLike, *, top: int) -> Agreement:
    """Compare the `top` most suspicious images of two scores (N,) of the same images, high first.

    Equal scores stand in data order; NaN stands last. Raises SightlineError unless 1 <= top <= N.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise SightlineError(f"the scores are {a.shape} and {b.shape}; two rankings need the same (N,)")
    if not 1 <= top <= len(a):
        raise SightlineError(f"the top {top} of {len(a)} images; from 1 to the number of images fit")
    top_a, top_b = (np.argsort(-scores, kind="stable")[:top] for scores in (a, b))
    both, first, second = np.intersect1d(top_a, top_b, return_indices=True)
    both = both[np.argsort(first + second, kind="stable")]
    chance = top**2 / len(a)
    return Agreement(top, both, len(both) / (2 * top - len(both)), chance / (2 * top - chance))


@dataclass(frozen=True)
class ListQuality:
    """A list beside the truth: sizes, hits, precision (hits / found), recall (hits / planted)."""

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
