"""What a learning-rate range test found: its sweeps, the one suggestion, the four classic rules, its files.

A sweep raises the learning rate without ever lowering it. What it shows is the range in which the loss falls,
over a factor of ten and more, and its edge, where the loss turns up. A training that warms up and decays did
best at about a quarter of that edge, with Adam and its kin at about a tenth; the factors are empirical. Where
there is no sweep, or it shows no edge, the suggestion is the default of the network and the optimizer.

A classic rule takes learning rates (n,), each the one before times the same factor, and smoothed losses (n,),
and returns one of the learning rates, or in the case of the minimum a tenth of one. They are those of fastai;
who runs the test leaves out its start and its end first.

    >>> lr = np.array([0.001, 0.01, 0.1, 1.0, 10.0])
    >>> losses = np.array([2.3, 2.2, 1.0, 0.9, 4.0])
    >>> steepest(lr, losses), minimum_tenth(lr, losses)
    (0.01, 0.1)
"""

from __future__ import annotations

from collections.abc import Callable
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
"""Rules that read a learning rate off a range test, by name."""


TRIMMED_END = 5  # points that the classic rules leave out at the end of a sweep, where the loss turns up
DEFAULT, SWEEP = "default", "sweep"  # where a suggestion comes from
QUARTER, TENTH = 4.0, 10.0  # what the edge of a sweep is divided by, TENTH with Adam and its kin
_SCATTERS = 3.0  # a fall of fewer standard deviations of a step's loss is no fall
_UNKNOWN = 8.0  # without a sweep the best learning rate lay up to so many times from the default


@dataclass(frozen=True)
class RangeTest:
    """Sweeps over the same learning rates, one per seed; none where there were too few steps for one.

    Attributes:
        lr: (n,) learning rates, each the one before times the same factor.
        loss: (S, n) the mean cross-entropy of each batch, without smoothing and penalty, in nats; NaN from
            where the sweep stopped.
        smoothed: (S, n) its debiased moving mean.
        seeds: The S seeds.
        usual: The default for the network and the optimizer (`usual_lr`), None where there is none.
        divisor: What the edge of the sweeps is divided by, for the suggestion.
        skipped: Why there is no sweep, "" where there is one.
    """

    lr: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    seeds: tuple[int, ...] = (0,)
    usual: float | None = None
    divisor: float = QUARTER
    skipped: str = ""

    @property
    def falling(self) -> tuple[float, float] | None:
        """The learning rates between which the loss falls in every sweep; None if that is not clear."""
        found = [falling_range(self.lr, *rows) for rows in zip(self.loss, self.smoothed, strict=True)]
        clear = [limits for limits in found if limits is not None]
        if not clear or len(clear) < len(found):
            return None
        low, high = max(limits[0] for limits in clear), min(limits[1] for limits in clear)
        return (low, high) if low < high else None

    @property
    def edge(self) -> float | None:
        """The learning rate of lowest loss; where that is unclear, where the first of the sweeps ran away."""
        if self.falling is not None:
            return self.falling[1]
        ends = [int(np.isfinite(row).sum()) for row in self.loss]
        stopped = [float(self.lr[end]) for end in ends if end < len(self.lr)]
        return min(stopped, default=None)

    @property
    def recommended(self) -> str:
        """What `suggestion` is: "default", that of network and optimizer, or "sweep"."""
        if self.usual is None:
            return SWEEP
        if self.falling is None and (self.edge is None or self.usual <= self.edge / self.divisor):
            return DEFAULT
        return SWEEP

    @property
    def suggestion(self) -> float:
        """One learning rate, to three digits, as it is printed and written into a recipe.

        The edge of the sweeps over `divisor`. Without a clear fall it is the default, unless the sweeps ran
        away near it; without a default too, the end of the sweeps stands for their edge.
        """
        if self.recommended == DEFAULT and self.usual is not None:
            return float(f"{self.usual:.3g}")
        edge = float(self.lr[-1]) if self.edge is None else self.edge
        return float(f"{max(edge / self.divisor, (self.falling or (0.0, 0.0))[0]):.3g}")

    @property
    def range(self) -> tuple[float, float]:
        """In which the best learning rate is to be expected: where the loss falls, else a guess."""
        low, high = self.falling or (self.suggestion / _UNKNOWN, self.edge or self.suggestion * _UNKNOWN)
        return float(f"{low:.2g}"), float(f"{high:.2g}")

    @property
    def reason(self) -> str:
        """In one clause, why it is this learning rate."""
        default = "the default of network and optimizer"
        if self.skipped:
            return f"{default}; {self.skipped}"
        share = {QUARTER: "a quarter", TENTH: "a tenth"}.get(self.divisor, f"1/{self.divisor:g}")
        if self.falling is not None:
            return f"{share} of {self.falling[1]:.3g}, where the loss is lowest"
        unclear = "the sweep shows no clear fall of the loss"
        if self.recommended == DEFAULT:
            return f"{default}; {unclear}"
        edge = "the largest that was tried" if self.edge is None else f"{self.edge:.3g}, where it ran away"
        return f"{share} of {edge}; {unclear}"

    @property
    def readings(self) -> pd.DataFrame:
        """What each rule of `LR_RULES` (column) reads off each sweep (row, by seed).

        The first tenth of the range, where the mean still settles, and the last five points are left out.
        """
        rows = []
        for smoothed in self.smoothed:
            done = int(np.isfinite(smoothed).sum())
            end = done - min(TRIMMED_END, done // 3)
            part = slice(len(self.lr) // 10, end)
            rows.append({name: rule(self.lr[part], smoothed[part]) for name, rule in LR_RULES.items()})
        return pd.DataFrame(rows, index=pd.Index(self.seeds[: len(rows)], name="seed"))

    @property
    def suggestions(self) -> dict[str, float]:
        """The one suggestion, by where it comes from: what figures and the page mark."""
        return {self.recommended: self.suggestion}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Its range, by the same name."""
        return {self.recommended: self.range}

    @property
    def rules(self) -> dict[str, tuple[float, float, float]]:
        """For each of the four classic rules its median over the seeds, its lowest and its highest."""
        logs = {str(name): np.log(column.to_numpy(float)) for name, column in self.readings.items()}
        found = {name: (np.median(values), values.min(), values.max()) for name, values in logs.items()}
        return {name: tuple(float(np.exp(value)) for value in three) for name, three in found.items()}  # pyright: ignore[reportReturnType]

    def to_frame(self) -> pd.DataFrame:
        """Return a row per step that was done: seed, lr, loss, smoothed."""
        if not len(self.loss):
            return pd.DataFrame(columns=["seed", "lr", "loss", "smoothed"])
        return pd.concat(
            pd.DataFrame({"seed": seed, "lr": self.lr, "loss": loss, "smoothed": smoothed}).dropna()
            for seed, loss, smoothed in zip(self.seeds, self.loss, self.smoothed, strict=True)
        ).reset_index(drop=True)

    def save(self, folder: Path, *, rules: bool = False, used: float | None = None) -> None:
        """Write `range_test.json` and, if there was a sweep, its table `range_test.csv`.

        rules: whether the four classic rules stand next to the suggestion. used: the learning rate that the
        training takes.
        """
        classic = self.rules if rules and len(self.loss) else {}
        card = {
            "suggestion": self.suggestion,
            "recommended": self.recommended,
            "reason": self.reason,
            "suggestions": self.suggestions | {name: three[0] for name, three in classic.items()},
            "ranges": self.ranges | {name: three[1:] for name, three in classic.items()},
            "seeds": self.seeds[: len(self.loss)],
            "usual": self.usual,
            "used": used,
        }
        if len(self.loss):
            table = self.to_frame().to_csv(index=False, lineterminator="\n")
            write_text(folder / "range_test.csv", table)
        write_json(folder / "range_test.json", card)


def falling_range(lr: np.ndarray, loss: np.ndarray, smoothed: np.ndarray) -> tuple[float, float] | None:
    """Return from which learning rate to which a sweep takes the loss down, None where it is unclear.

    From where a tenth of the fall is done to where the smoothed loss is lowest; it begins at the mean of the
    sweep's first tenth. It is unclear if the fall is less than three standard deviations of a step's loss.

    Args:
        lr: (n,) learning rates.
        loss, smoothed: (n,) losses, NaN from where the sweep stopped.

    >>> loss = np.array([2.3, 2.3, 2.3, 2.2, 2.0, 1.5, 1.6, 3.0])
    >>> falling_range(np.geomspace(0.001, 10000, 8), loss, loss)
    (1.0, 100.0)
    """
    done = int(np.isfinite(smoothed).sum())
    first = max(3, len(lr) // 10)
    if done <= first:
        return None
    lowest = int(np.nanargmin(smoothed))
    start = float(loss[:first].mean())
    fall = start - float(smoothed[lowest])
    scatter = float(np.diff(loss[: first * 2]).std()) / np.sqrt(2)  # where the learning rate does nothing yet
    if lowest < first or fall <= max(_SCATTERS * scatter, 1e-3):
        return None
    down = np.flatnonzero(smoothed[: lowest + 1] <= start - fall / 10)
    below = int(down[down >= 1].min(initial=lowest))
    return float(lr[below]), float(lr[lowest])


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
