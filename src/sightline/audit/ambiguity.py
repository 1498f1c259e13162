"""Which images are ambiguous, hard but right, easy but wrong: from several versions or several models.

    >>> answers = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.9, 0.1], [0.1, 0.9]]])  # (V, N, C)
    >>> measure_ambiguity(answers)[["ambiguity", "disagreement", "margin"]].round(3).values.tolist()
    [[0.469, 0.0, 0.8], [1.0, 0.531, 0.0]]

The entropy of the mean is the mean entropy, which is doubt that every answer has, plus the mutual
information between version and class, which is how much the answers disagree (Houlsby 2011; Depeweg 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.inputs import CHUNK, confident
from sightline.audit.result import Difficulty, DifficultyKind, DifficultyRow
from sightline.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

_LISTED = 200  # images of a kind


def measure_ambiguity(probabilities: ArrayLike) -> pd.DataFrame:
    """Return the doubt about each image, a row for each in data order.

    Args:
        probabilities: (V, N, C) by V versions of each image (test-time augmentation) or V models (other
            seeds, an average of weights); V = 1 is allowed.

    Returns:
        Columns, the first three divided by log C, so that they are in [0, 1]: ambiguity (entropy of the mean
        over V), mean_entropy, disagreement (their difference), margin (largest minus second largest mean
        probability, in [0, 1]), predicted (class of the largest). With one class there is no doubt.

    Raises:
        InputError: The array is not (V, N, C), or V or C is 0.
    """
    import pandas as pd

    answers = np.asarray(probabilities)
    if answers.ndim != 3 or not answers.shape[0] or not answers.shape[2]:
        raise InputError(f"probabilities are {answers.shape}; (V, N, C) is needed, V and C > 0")
    _, count, classes = answers.shape
    table: dict[str, np.ndarray] = {name: np.empty(count) for name in ("ambiguity", "mean_entropy", "margin")}
    table["predicted"] = np.empty(count, np.int64)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        mean = answers[:, rows].mean(axis=0, dtype=np.float64)  # (n, C)
        table["ambiguity"][rows] = _entropy(mean)
        table["mean_entropy"][rows] = np.mean([_entropy(one) for one in answers[:, rows]], axis=0)
        two = np.partition(mean, max(classes - 2, 0), axis=1)[:, -2:]
        table["margin"][rows] = two[:, -1] - two[:, 0] if classes > 1 else 1.0
        table["predicted"][rows] = mean.argmax(axis=1)
    spread = pd.DataFrame(table)
    spread.insert(2, "disagreement", np.maximum(spread["ambiguity"] - spread["mean_entropy"], 0))
    return spread


@dataclass(frozen=True)
class DifficultyMasks:
    """Three kinds of images, (N,) bool each, and the thresholds that made them.

    Attributes:
        ambiguous: Ambiguity of at least `ambiguity_from`.
        hard_but_right: Right with a confidence of at most `hard_up_to`.
        easy_but_wrong: Wrong with a confidence of at least `easy_from`, and not ambiguous.
    """

    ambiguous: np.ndarray
    hard_but_right: np.ndarray
    easy_but_wrong: np.ndarray
    ambiguity_from: float
    hard_up_to: float
    easy_from: float

    @property
    def kinds(self) -> np.ndarray:
        """(N,) of `DifficultyKind`, "" for the others; an image that is ambiguous and hard is ambiguous."""
        masks = [self.ambiguous, self.easy_but_wrong, self.hard_but_right]
        names = [DifficultyKind.AMBIGUOUS, DifficultyKind.EASY, DifficultyKind.HARD]
        return np.select(masks, [name.value for name in names], "")


def sort_by_difficulty(
    ambiguity: ArrayLike,
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    ambiguous: float = 0.95,
    hard: float = 0.05,
    easy: float = 0.5,
) -> DifficultyMasks:
    """Find the ambiguous, the hard but right and the easy but wrong images by quantiles.

    Images without any doubt are never ambiguous.

    Args:
        ambiguity: (N,) in [0, 1], as `measure_ambiguity` gives it.
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        ambiguous: Quantile of the ambiguities of all images from which on an image counts.
        hard: Quantile of the confidences of the images that are right up to which one is hard.
        easy: The same: a wrong image above it is surer than that share of the right ones.

    Raises:
        InputError: Shapes differ, or a value is outside [0, 1].
    """
    confidence, correct = confident(confidence, correct)
    ambiguity, _ = confident(ambiguity, correct)
    if not all(0 <= quantile <= 1 for quantile in (ambiguous, hard, easy)):
        raise InputError(f"quantiles {ambiguous}, {hard}, {easy}; each is in [0, 1]")
    right = confidence[correct]
    high = float(np.quantile(ambiguity, ambiguous))
    low, sure = (float(v) for v in np.quantile(right, (hard, easy))) if len(right) else (0.0, 1.0)
    doubtful = (ambiguity >= high) & (ambiguity > 0)
    return DifficultyMasks(
        ambiguous=doubtful,
        hard_but_right=correct & (confidence <= low),
        easy_but_wrong=~correct & (confidence >= sure) & ~doubtful,
        ambiguity_from=high,
        hard_up_to=low,
        easy_from=sure,
    )


def describe_difficulty(
    masks: DifficultyMasks, ambiguity: np.ndarray, confidence: np.ndarray, correct: np.ndarray
) -> Difficulty:
    """Return how many images there are of each kind, and the clearest of each. All (N,)."""
    ranks = {
        DifficultyKind.AMBIGUOUS: -ambiguity,
        DifficultyKind.HARD: confidence,
        DifficultyKind.EASY: -confidence,
    }
    kinds, rows = masks.kinds, []
    for kind, rank in ranks.items():
        index = np.flatnonzero(kinds == kind.value)
        ordered = index[np.argsort(rank[index], kind="stable")]
        wrong = int((~correct[index]).sum())
        rows.append(DifficultyRow(kind, len(index), wrong, tuple(ordered[:_LISTED].tolist())))
    return Difficulty(tuple(rows), masks.ambiguity_from, masks.hard_up_to, masks.easy_from)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of each row divided by log C, with 0 log 0 = 0; 0 for one class."""
    from scipy.special import entr

    classes = probabilities.shape[1]
    return entr(probabilities.astype(np.float64)).sum(axis=1) / (np.log(classes) if classes > 1 else 1)
