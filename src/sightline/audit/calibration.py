"""Is the confidence to be trusted: calibration error, how much of it is noise, and the reliability table.

A model is calibrated if, of the images that it is 80 % sure of, 80 % are right (Guo 2017).

    >>> confidence, correct = [0.9, 0.9, 0.6, 0.6], [True, True, True, False]
    >>> round(calibration_error(confidence, correct), 4)  # bins at .9 and .6: (2 * .1 + 2 * .1) / 4
    0.1

A measured error is never zero, because accuracy in a bin is counted on few images: `calibration_floor`
says what a perfectly calibrated model with these very confidences would show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.arrays import confident
from sightline.errors import SightlineError
from sightline.predictions import wilson_intervals

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    Binning = Callable[[np.ndarray, int], np.ndarray]


def equal_width(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges (bins + 1,) of bins of one width in [0, 1] (Naeini 2015)."""
    return np.linspace(0, 1, bins + 1)


def equal_mass(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges (bins + 1,) of bins that hold about equally many images (Nguyen & O'Connor 2015).

    They are quantiles, so that equal confidences share a bin, whatever the order of the images; many
    equal ones make some bins empty.
    """
    return np.quantile(confidence, np.linspace(0, 1, bins + 1))


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = equal_width
) -> float:
    """Return the expected calibration error sum_b n_b/N |accuracy_b - confidence_b|, in [0, 1].

    confidence: (N,) in [0, 1], of the predicted class. correct: (N,) bool. binning: a function from the
    confidences and the number of bins to their edges: `equal_width`, `equal_mass` or your own. A bin holds
    its lower edge; the last one also its upper edge, so that a confidence of 1 counts (Guo 2017, eq. 3).
    """
    confidence, correct = confident(confidence, correct)
    places = bin_of(confidence, _edges(confidence, bins, binning))
    return float(np.abs(np.bincount(places, correct - confidence)).sum() / len(confidence))


@dataclass(frozen=True)
class CalibrationFloor:
    """The error that chance alone gives a perfectly calibrated model: its mean and its 95 % quantile."""

    mean: float
    high: float


def calibration_floor(
    confidence: ArrayLike,
    *,
    bins: int = 15,
    binning: Binning = equal_width,
    draws: int = 200,
    seed: int = 0,
) -> CalibrationFloor:
    """Return what `calibration_error` shows if each image is right with exactly its confidence.

    An error below `high` is within noise. The answers are drawn `draws` times; memory is that of one draw.
    Source: the consistency resampling of Bröcker & Smith (2007), with the confidences kept.
    """
    confidence, _ = confident(confidence, np.ones(np.shape(confidence), bool))
    places, rng = bin_of(confidence, _edges(confidence, bins, binning)), np.random.default_rng(seed)
    expected = np.bincount(places, confidence)
    errors = np.empty(draws)
    for draw in range(draws):
        right = rng.random(len(confidence)) < confidence
        errors[draw] = np.abs(np.bincount(places[right], minlength=len(expected)) - expected).sum()
    errors /= len(confidence)
    return CalibrationFloor(float(errors.mean()), float(np.quantile(errors, 0.95)))


def reliability(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = equal_width
) -> pd.DataFrame:
    """Return the table of the reliability diagram, a row for each bin, empty ones too.

    Columns: low, high (edges), count, confidence and accuracy (means in the bin, NaN where it is empty),
    interval_low, interval_high (Wilson interval of the accuracy at 95 %).
    """
    import pandas as pd

    confidence, correct = confident(confidence, correct)
    edges = _edges(confidence, bins, binning)
    places = bin_of(confidence, edges)
    count, right = (np.bincount(places, weights, bins) for weights in (None, correct))
    totals = np.maximum(count, 1)
    low, high = wilson_intervals(right, count)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": count,
            "confidence": np.where(count, np.bincount(places, confidence, bins) / totals, np.nan),
            "accuracy": np.where(count, right / totals, np.nan),
            "interval_low": low,
            "interval_high": high,
        }
    )


def bin_of(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The number of the bin of each confidence, (N,): a bin holds its lower edge, the last one both."""
    return np.searchsorted(edges[1:-1], confidence, side="right")


def _edges(confidence: np.ndarray, bins: int, binning: Binning) -> np.ndarray:
    if bins < 1:
        raise SightlineError(f"{bins} bins hold nothing; give 1 or more")
    edges = np.asarray(binning(confidence, bins), np.float64)
    if edges.shape != (bins + 1,) or (np.diff(edges) < 0).any():
        raise SightlineError(
            f"the binning returned edges {edges.shape}; {bins} bins need {bins + 1} that ascend"
        )
    return edges
