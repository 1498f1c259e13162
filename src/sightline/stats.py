"""How far a counted share can be trusted."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
