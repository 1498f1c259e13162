"""How far a number that was measured on a sample can be trusted: intervals, and many tests at once."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


Z_95 = NormalDist().inv_cdf(0.975)
"""Standard errors on either side of a mean that make a 95 % interval where it is normal: 1.96."""


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, low and high in [0, 1].

    Unlike the normal approximation it stays inside [0, 1] and is of use at 0, at n and for small n.
    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    Nothing counted says nothing: n = 0 gives (0, 1).

    >>> low, high = wilson_interval(90, 100)
    >>> f"{low:.4f} {high:.4f}"
    '0.8256 0.9448'
    """
    low, high = wilson_intervals(successes, n, confidence=confidence)
    return float(low), float(high)


def wilson_intervals(
    successes: ArrayLike, n: ArrayLike, *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score intervals of many shares at once, as arrays of lows and of highs.

    >>> low, high = wilson_intervals([90, 0], [100, 0])
    >>> low.round(4).tolist(), high.round(4).tolist()
    ([0.8256, 0.0], [0.9448, 1.0])
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    successes, counted = np.asarray(successes, float), np.asarray(n, float)
    n = np.maximum(counted, 1)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = np.maximum(0, centre - half), np.minimum(1, centre + half)
    return np.where(counted > 0, low, 0.0), np.where(counted > 0, high, 1.0)


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """Return the 95 % interval of the mean of many values, from their spread: (N,) -> low, high.

    A single value has no spread: its interval is without ends.

    >>> low, high = mean_interval([0.0, 1.0, 0.0, 1.0])
    >>> f"{low:.3f} {high:.3f}"
    '-0.066 1.066'
    """
    values = np.asarray(values, float)
    mean = float(values.mean())
    half = Z_95 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return mean - half, mean + half


def paired_interval(gained: ArrayLike, lost: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of a difference of two shares of the same n images.

    Args:
        gained: How many images only the second one has.
        lost: How many only the first one has.
        n: Images; NaN gives NaN.

    Returns:
        Lows and highs of (gained - lost) / n, in [-1, 1]: Wald's interval after half an image was added to
        each of the four cells. Source: Agresti & Min (2005), "Simple improved confidence intervals for
        comparing matched proportions".

    >>> low, high = paired_interval(30, 10, 200)
    >>> f"{low:.4f} {high:.4f}"
    '0.0378 0.1602'
    """
    n, gained, lost = np.asarray(n) + 2, np.asarray(gained) + 0.5, np.asarray(lost) + 0.5
    centre = (gained - lost) / n
    half = Z_95 * np.sqrt(((gained + lost) / n - centre**2) / n)
    return np.maximum(centre - half, -1), np.minimum(centre + half, 1)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return p-values (K,) corrected for their number by Holm's step-down method, in their order.

    The chance that any of them is at most 0.05 where nothing is to be found is then at most 0.05.
    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(stepped, 1)
    return corrected
