"""How far a counted share can be trusted."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, low and high in [0, 1].

    Unlike the normal approximation it stays inside [0, 1] and is of use at 0, at n and for small n.
    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    Nothing counted says nothing: n = 0 gives (0, 1).

    >>> low, high = wilson_interval(90, 100)
    >>> f"{low:.4f} {high:.4f}"
    '0.8256 0.9448'
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
