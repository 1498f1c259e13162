"""What every measure returns, and the interval of its mean."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from sightline.errors import SightlineError

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Measurement:
    """One number per image, and what it was got with.

    measure: its name. values: (B,) float64. higher_is_better: how to read them.
    curve: (B, S), the score at each step, or None. shares: (S,), the exact share of pixels (of
    layers, for `randomization`) changed at each step, or None. fill: the name of the function
    that replaced removed pixels, or None. baseline: (B,), what a map that knows nothing gets on
    each image, where that is known; else None.
    """

    measure: str
    values: np.ndarray
    higher_is_better: bool
    curve: np.ndarray | None = None
    shares: np.ndarray | None = None
    fill: str | None = None
    baseline: np.ndarray | None = None

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def interval(self, *, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the mean over images."""
        low, high = bootstrap_interval(self.values, seed=seed)
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval()
        fill = f", fill {self.fill}" if self.fill else ""
        chance = "" if self.baseline is None else f", chance {self.baseline.mean():.3f}"
        better = "higher" if self.higher_is_better else "lower"
        return (
            f"{self.measure} {self.mean:.3f} [{low:.3f}, {high:.3f}], n {self.n}{fill}{chance}; "
            f"{better} is better"
        )


def bootstrap_interval(
    values: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % bootstrap interval of the mean of `values` (B, ...) over its first axis.

    Pass the differences of two measures on the same images to get the paired interval. All columns
    share the resamples. The expanded percentile interval of Hesterberg (2015, section 4.2): the
    plain one is too narrow for few images by the factor that separates Student's t from the normal.
    With a single image nothing is known of the spread: the interval is (-inf, inf).

    >>> low, high = bootstrap_interval(np.arange(20.0))
    >>> bool(low < 9.5 < high)
    True
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise SightlineError("there are no values to take an interval of; measure at least one image")
    if len(values) == 1:
        return np.full(values.shape[1:], -np.inf), np.full(values.shape[1:], np.inf)
    count = len(values)
    # How often each image is drawn, instead of a copy of the values per resample.
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    means = np.tensordot(draws / count, values, axes=1)  # (resamples, ...)
    tail = _expanded_tail(count)
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def _expanded_tail(count: int) -> float:
    """Return the share of resamples to leave out at each end: less than 2.5 % for few images."""
    normal = statistics.NormalDist()
    z, free = normal.inv_cdf((1 + LEVEL) / 2), count - 1
    # Student's quantile by Cornish and Fisher's expansion, within 1 % from five images on.
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return normal.cdf(-t * (count / free) ** 0.5)
