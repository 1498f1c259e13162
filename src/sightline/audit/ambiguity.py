"""Which images are ambiguous, hard but right, easy but wrong: from several views or several models.

    >>> views = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.9, 0.1], [0.1, 0.9]]])  # (views, images, classes)
    >>> view_spread(views)[["ambiguity", "disagreement", "margin"]].round(3).values.tolist()
    [[0.469, 0.0, 0.8], [1.0, 0.531, 0.0]]

The entropy of the mean is the mean entropy, which is doubt that every view has, plus the mutual information
between view and class, which is how much the views disagree (Houlsby 2011; Depeweg 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.validation import CHUNK, confident
from sightline.errors import SightlineError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

KINDS = ("ambiguous", "hard but right", "easy but wrong")


def view_spread(probabilities: ArrayLike) -> pd.DataFrame:
    """Return the doubt about each image, a row per image in data order.

    probabilities: (V, N, C) of V views of each image, or V models (other seeds, an average of weights);
    V = 1 is allowed. Columns, the first three divided by log C, so that they are in [0, 1]: ambiguity
    (entropy of the mean over views), mean_entropy, disagreement (their difference), and margin (largest
    minus second largest mean probability, in [0, 1]), predicted (class of the largest).
    """
    import pandas as pd

    views = np.asarray(probabilities)
    if views.ndim != 3 or not views.shape[0] or views.shape[2] < 2:
        raise SightlineError(
            f"probabilities of views are {views.shape}; (V, N, C) is needed, V > 0 and C > 1"
        )
    _, count, classes = views.shape
    table: dict[str, np.ndarray] = {name: np.empty(count) for name in ("ambiguity", "mean_entropy", "margin")}
    table["predicted"] = np.empty(count, np.int64)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        mean = views[:, rows].mean(axis=0, dtype=np.float64)  # (n, C)
        table["ambiguity"][rows] = _entropy(mean)
        table["mean_entropy"][rows] = np.mean([_entropy(view) for view in views[:, rows]], axis=0)
        two = np.partition(mean, classes - 2, axis=1)[:, -2:]
        table["margin"][rows] = two[:, 1] - two[:, 0]
        table["predicted"][rows] = mean.argmax(axis=1)
    spread = pd.DataFrame(table)
    spread.insert(2, "disagreement", np.maximum(spread["ambiguity"] - spread["mean_entropy"], 0))
    return spread


@dataclass(frozen=True)
class Difficulty:
    """Three kinds of images, (N,) bool each, and the thresholds that made them.

    ambiguous: ambiguity of at least `ambiguity_from`. hard_but_right: right with a confidence of at most
    `hard_up_to`. easy_but_wrong: wrong with a confidence of at least `easy_from`, and not ambiguous.
    """

    ambiguous: np.ndarray
    hard_but_right: np.ndarray
    easy_but_wrong: np.ndarray
    ambiguity_from: float
    hard_up_to: float
    easy_from: float

    @property
    def kinds(self) -> np.ndarray:
        """(N,) names of `KINDS`, "" for the others; an image that is ambiguous and hard is ambiguous."""
        masks = [self.ambiguous, self.easy_but_wrong, self.hard_but_right]
        return np.select(masks, ["ambiguous", "easy but wrong", "hard but right"], "")


def sort_by_difficulty(
    ambiguity: ArrayLike,
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    ambiguous: float = 0.95,
    hard: float = 0.05,
    easy: float = 0.5,
) -> Difficulty:
    """Find the ambiguous, the hard but right and the easy but wrong images by quantiles.

    ambiguity: (N,) in [0, 1], as `view_spread` gives it. confidence, correct: (N,). ambiguous: the quantile
    of the ambiguities of all images from which on an image counts. hard, easy: quantiles of the confidences
    of the images that are right: up to `hard` is hard, a wrong image above `easy` is surer than that share
    of the right ones. Images without any doubt are never ambiguous.
    """
    confidence, correct = confident(confidence, correct)
    ambiguity, _ = confident(ambiguity, correct)
    if not all(0 <= quantile <= 1 for quantile in (ambiguous, hard, easy)):
        raise SightlineError(f"quantiles {ambiguous}, {hard}, {easy}; each is in [0, 1]")
    right = confidence[correct]
    high = float(np.quantile(ambiguity, ambiguous))
    low, sure = (float(v) for v in np.quantile(right, (hard, easy))) if len(right) else (0.0, 1.0)
    doubtful = (ambiguity >= high) & (ambiguity > 0)
    return Difficulty(
        ambiguous=doubtful,
        hard_but_right=correct & (confidence <= low),
        easy_but_wrong=~correct & (confidence >= sure) & ~doubtful,
        ambiguity_from=high,
        hard_up_to=low,
        easy_from=sure,
    )


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of each row divided by log C, with 0 log 0 = 0."""
    from scipy.special import entr

    return entr(probabilities.astype(np.float64)).sum(axis=1) / np.log(probabilities.shape[1])
