"""What a learning-rate range test found: its sweeps, the rules that read them, their files.

A rule takes learning rates (n,), each the one before times the same factor, and smoothed losses (n,), and
returns one of the learning rates, or in the case of the minimum a tenth of one. They are those of fastai; who
runs the test leaves out its start and its end first.

    >>> lr = np.array([0.001, 0.01, 0.1, 1.0, 10.0])
    >>> losses = np.array([2.3, 2.2, 1.0, 0.9, 4.0])
    >>> steepest(lr, losses), minimum_tenth(lr, losses)
    (0.01, 0.1)

A sweep raises the learning rate without ever lowering it, and what it shows of a network that warms up,
decays and regularises is its edge rather than its best. A trial squeezes the whole schedule into some tens of
steps; the loss at its end, over several learning rates, has one lowest point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sightline.files import write_json, write_text

LRRule = Callable[[np.ndarray, np.ndarray], float]


def steepest(lr: np.ndarray, losses: np.ndarray) -> float:
    """The learning rate from which one step takes the loss down most, by slope over log(lr)."""
    return float(lr[np.argmin(np.diff(losses) / np.diff(np.log(lr)))])


def valley(lr: np.ndarray, losses: np.ndarray) -> float:
    """The middle of the longest valley: half of the way down the longest falling subsequence of the losses.

    With L members, the last of them at index e (the first such, where several are as long), the learning
    rate is that at e - L + floor(L/3) + floor(L/6).
    """
    lengths = np.ones(len(losses), int)
    for i in range(1, len(losses)):  # the longest one that ends at i
        lengths[i] += lengths[:i][losses[:i] > losses[i]].max(initial=0)
    end = int(lengths.argmax())
    length = int(lengths[end])
    return float(lr[max(0, end - length + length // 3 + length // 6)])


def slide(lr: np.ndarray, losses: np.ndarray, *, width: int = 15, threshold: float = 0.005) -> float:
    """Slide a window of `width` steps down from the largest lr until the loss's slope is even over it.

    The slope is that per step; it is even once it differs by no more than `threshold` between the two
    ends of the window. The learning rate is that at the left end of the last window where it did.
    """
    width = min(width, len(lr) - 1)
    slope = np.gradient(losses)
    left = np.arange(len(lr) - width)[::-1]  # of every window, from the largest learning rate down
    even = np.abs(slope[left + width] - slope[left]) <= threshold
    uneven = int(even.argmax()) if even.any() else len(left)
    return float(lr[left[max(uneven - 1, 0)]])


def minimum_tenth(lr: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the learning rate at which the loss is lowest."""
    return float(lr[losses.argmin()] / 10)


LR_RULES: dict[str, LRRule] = {
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum/10": minimum_tenth,
}


RECOMMENDED_RULE = "slide"  # of the four, where there are no trials
TRIALS = "trials"
TRIMMED_END = 5  # points left out at the end of a sweep, where the loss turns up


@dataclass(frozen=True)
class RangeTest:
    """Sweeps over the same learning rates, one per seed.

    Attributes:
        lr: (n,) learning rates, each the one before times the same factor.
        loss: (S, n) the mean cross-entropy of each batch, without smoothing and penalty, in nats; NaN from
            where the sweep stopped.
        smoothed: (S, n) its debiased moving mean.
        seeds: The S seeds.
        trials: For each seed the loss at the end of short trainings, by their maximum learning rate; empty
            where there were none.
    """

    lr: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    seeds: tuple[int, ...] = (0,)
    trials: tuple[Mapping[float, float], ...] = ()

    @property
    def readings(self) -> pd.DataFrame:
        """What each rule of `LR_RULES` (column) reads off each sweep (row, by seed), and "trials".

        The first tenth of the range, where the mean still settles, and the last five points are left out.
        """
        rows = []
        for smoothed in self.smoothed:
            end = int(np.isfinite(smoothed).sum()) - TRIMMED_END
            part = slice(len(self.lr) // 10, end)
            rows.append({name: rule(self.lr[part], smoothed[part]) for name, rule in LR_RULES.items()})
        for row, trials in zip(rows, self.trials, strict=False):
            row[TRIALS] = best_of_trials(trials)
        return pd.DataFrame(rows, index=pd.Index(self.seeds, name="seed"))

    @property
    def suggestions(self) -> dict[str, float]:
        """The median over the seeds (of the logarithms, should their number be even) for each rule."""
        logs = {str(name): np.log(column.to_numpy(float)) for name, column in self.readings.items()}
        return {name: float(np.exp(np.median(values))) for name, values in logs.items()}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest over the seeds for each rule."""
        return {str(name): (float(c.min()), float(c.max())) for name, c in self.readings.items()}

    @property
    def recommended(self) -> str:
        """What `suggestion` follows: the trials, or without them the best of the four rules."""
        return TRIALS if self.trials else RECOMMENDED_RULE

    @property
    def suggestion(self) -> float:
        """The recommended learning rate, to three digits, as it is printed and written into a recipe."""
        return float(f"{self.suggestions[self.recommended]:.3g}")

    def to_frame(self) -> pd.DataFrame:
        """Return a row per step that was done: seed, lr, loss, smoothed."""
        return pd.concat(
            pd.DataFrame({"seed": seed, "lr": self.lr, "loss": loss, "smoothed": smoothed}).dropna()
            for seed, loss, smoothed in zip(self.seeds, self.loss, self.smoothed, strict=True)
        ).reset_index(drop=True)

    def save(self, folder: Path) -> None:
        """Write `range_test.csv` and `range_test.json`."""
        card = {
            "suggestion": self.suggestion,
            "recommended": self.recommended,
            "suggestions": self.suggestions,
            "ranges": self.ranges,
            "seeds": self.seeds,
            "trials": [
                {"seed": seed, "lr": lr, "loss": loss if math.isfinite(loss) else None}
                for seed, trials in zip(self.seeds, self.trials, strict=False)
                for lr, loss in trials.items()
            ],
        }
        table = self.to_frame().to_csv(index=False, lineterminator="\n")
        write_text(folder / "range_test.csv", table)
        write_json(folder / "range_test.json", card)


def debiased_means(values: np.ndarray, smoothing: float) -> np.ndarray:
    """Exponential moving mean of (n,) `values` over the sum of its weights (Kingma & Ba 2014, section 3).

    >>> debiased_means(np.array([1.0, 3.0, np.nan]), 0.5).round(3).tolist()
    [1.0, 2.333, nan]
    """
    age = np.subtract.outer(np.arange(len(values)), np.arange(len(values)))  # (n, n)
    weights = np.where(age >= 0, smoothing ** np.maximum(age, 0), 0.0)
    done = np.isfinite(values)
    means = weights @ np.where(done, values, 0.0) / weights.sum(axis=1)
    return np.where(np.logical_and.accumulate(done), means, np.nan)


_LONGER = 2.0  # a training of full length does best at about half of the best lr of a short one


def climb(loss_at: Callable[[float], float], start: float, *, limit: int = 10) -> dict[float, float]:
    """Return lr -> loss, from `start` on by factors of two until the lowest has a higher one on each side.

    Args:
        loss_at: The loss that a learning rate leads to, infinity where training runs away.
        start: The first learning rate.
        limit: At most so many are tried.

    >>> import math
    >>> climb(lambda lr: abs(math.log2(lr)), 0.25)
    {0.125: 3.0, 0.25: 2.0, 0.5: 1.0, 1.0: 0.0, 2.0: 1.0}
    """
    tried = {0: loss_at(start)}
    while len(tried) < limit:
        best = min(tried, key=lambda k: (tried[k], k))
        ahead = [k for k in (best - 1, best + 1) if k not in tried]
        if not ahead:
            break
        tried[ahead[0]] = loss_at(start * 2.0 ** ahead[0])
    return {start * 2.0**k: tried[k] for k in sorted(tried)}


def best_of_trials(trials: Mapping[float, float]) -> float:
    """Half of the learning rate at the vertex of the parabola through the lowest loss and its two neighbours.

    The parabola is one of log(lr); without two finite neighbours the vertex is the lowest itself.

    >>> best_of_trials({1.0: 3.0, 2.0: 1.0, 4.0: 3.0})
    1.0
    """
    lrs, losses = np.array(list(trials)), np.array(list(trials.values()))
    k = int(losses.argmin())
    shift = 0.0
    if 0 < k < len(losses) - 1 and np.isfinite(losses[k - 1 : k + 2]).all():
        left, middle, right = losses[k - 1 : k + 2]
        bend = left - 2 * middle + right
        shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(lrs[k] * 2.0**shift / _LONGER)
