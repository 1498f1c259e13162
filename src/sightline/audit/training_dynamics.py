"""What the course of training shows of each training image: wrong label, hard or easy, at no further cost.

Arrays are (E, N), epochs by images, as `predictions.Dynamics` holds them, with NaN where an image was not
trained on: the result of an image is that of the epochs that saw it, and NaN if none did.

    >>> margins = np.array([[-1.0, 0.5, -2.0], [2.0, 1.5, -4.0], [4.0, -0.5, -6.0]])
    >>> area_under_margin(margins).tolist()
    [1.6666666666666667, 0.5, -4.0]
    >>> forgetting_events(margins > 0).tolist()
    [0.0, 1.0, inf]
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sightline.errors import InputError


def area_under_margin(margins: np.ndarray) -> np.ndarray:
    """Return the mean over epochs of the label's logit minus the largest other: (N,) (Pleiss 2020, eq. 2).

    margins: (E, N). A wrong label pulls against what its look-alikes teach: its margin stays low, or
    grows late.
    """
    return _mean(margins)


def forgetting_events(correct: np.ndarray) -> np.ndarray:
    """Return how often each image was right and then, the next time it was seen, wrong: (N,) (Toneva 2019).

    correct: (E, N), bool, or floats 1, 0 and NaN. An image that was never right is infinity, which is how
    Toneva et al. sort it: an image that is never forgotten has been learnt.
    """
    correct = _table(correct)
    events, learnt = np.zeros(correct.shape[1]), np.zeros(correct.shape[1], bool)
    last = np.zeros(correct.shape[1])  # nothing is known before the first epoch
    for row in correct:
        seen = ~np.isnan(row)
        events += seen & (last == 1) & (row == 0)
        last = np.where(seen, row, last)
        learnt |= row == 1
    events[~learnt] = np.inf
    events[np.isnan(correct).all(axis=0)] = np.nan
    return events


def cartography(probabilities: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Return where each image lies on the map of the data (Swayamdipta 2020, section 2).

    Easy to learn is a high mean with a low spread, ambiguous a high spread, hard to learn a low mean with a
    low spread: wrong labels are among those.

    Args:
        probabilities: (E, N) of the label.
        correct: (E, N), bool, or floats 1, 0 and NaN.

    Returns:
        Columns: mean over the epochs, which they call confidence; spread, the standard deviation over the
        epochs (divided by E), their variability; correctness, the share of the epochs in which the image was
        right.
    """
    probabilities = _table(probabilities)
    mean = _mean(probabilities)
    squares = [np.square(row - mean) for row in probabilities]
    return pd.DataFrame(
        {"mean": mean, "spread": np.sqrt(_mean(np.stack(squares))), "correctness": _mean(correct)}
    )


def _table(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or not len(values):
        raise InputError(
            f"training dynamics are {values.shape}; an array (epochs, images) of at least one epoch is needed"
        )
    return values


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the epochs that saw the image, in float64; NaN without any."""
    values = _table(values)
    seen = ~np.isnan(values)
    count, total = seen.sum(axis=0), values.sum(axis=0, dtype=np.float64, where=seen)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
