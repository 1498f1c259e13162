"""How far a number that was measured on a sample can be trusted: intervals, and many tests at once."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import InputError

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


def exact_interval(successes: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share, low and high in [0, 1].

    Each end is passed by chance in at most (1 - confidence) / 2 of samples, whatever the share and however
    small n is; that of Wilson keeps this on the average only, and fails it next to 0 and 1. Source: Clopper &
    Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the binomial".

    Args:
        successes: Of n; fractions serve to ask what a share would show on another number of images.
        n: 0 says nothing: (0, 1).
        confidence: How often the interval covers the true share, at least.

    >>> low, high = exact_interval(90, 100)
    >>> f"{low:.4f} {high:.4f}"
    '0.8238 0.9510'
    """
    from scipy.special import betaincinv  # late, as in `_expanded_tail`

    tail, rest = (1 - confidence) / 2, n - successes
    low = float(betaincinv(successes, rest + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, rest, 1 - tail)) if rest > 0 else 1.0
    return low, high


def difference_interval(share_a: float, n_a: float, share_b: float, n_b: float) -> tuple[float, float]:
    """Return the 95 % interval of share_b - share_a, of two samples that have no image in common.

    Source: Newcombe (1998), "Interval estimation for the difference between independent proportions", method
    10: both Wilson intervals, joined.

    >>> low, high = difference_interval(48 / 80, 80, 56 / 70, 70)  # the paper's first example, turned round
    >>> f"{low:.4f} {high:.4f}"
    '0.0524 0.3339'
    """
    (low_a, low_b), (high_a, high_b) = wilson_intervals([share_a * n_a, share_b * n_b], [n_a, n_b])
    change = share_b - share_a
    down = ((share_b - low_b) ** 2 + (high_a - share_a) ** 2) ** 0.5
    up = ((high_b - share_b) ** 2 + (share_a - low_a) ** 2) ** 0.5
    return float(change - down), float(change + up)


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
    '0.0384 0.1596'
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


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bootstrap interval of the mean of `values` over their first axis.

    The expanded percentile interval of Hesterberg (2015), "What teachers should know about the bootstrap",
    section 4.2: the plain one is too narrow for few values, by the factor that separates Student's t from
    the normal.

    Args:
        values: (B, ...), one per image; the differences of two measures on the same images give the paired
            interval. All columns share the resamples.
        confidence: How often the interval covers the true mean.
        resamples: How many samples of B are drawn.
        seed: Of the draws.

    Returns:
        The lows and the highs, (...) each. With a single value nothing is known of the spread: -inf and inf.

    Raises:
        InputError: There are no values.

    >>> low, high = bootstrap_interval(np.arange(20.0))
    >>> bool(low < 9.5 < high)
    True
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise InputError("there are no values to take an interval of; measure at least one image")
    if len(values) == 1:
        return np.full(values.shape[1:], -np.inf), np.full(values.shape[1:], np.inf)
    count = len(values)
    # How often each value is drawn, instead of a copy of the values per resample.
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    means = np.tensordot(draws / count, values, axes=1)  # (resamples, ...)
    tail = _expanded_tail(count, confidence)
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def _expanded_tail(count: int, confidence: float) -> float:
    """Return the share of resamples to leave out at each end: at 95 %, less than 2.5 % for few values."""
    from scipy import stats  # late: it costs half a second, and intervals of shares do without

    t = stats.t.ppf(0.5 + confidence / 2, count - 1)
    return float(stats.norm.cdf(-t * (count / (count - 1)) ** 0.5))
