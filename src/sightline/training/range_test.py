"""What a learning-rate range test found: the sweeps, what each rule reads off them, and their files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sightline.files import write_text
from sightline.training.lr_trials import best_of_trials
from sightline.training.rate_rules import RATE_RULES

RECOMMENDED_RULE = "slide"  # of the four, where there are no trials
TRIALS = "trials"
TRIMMED_END = 5  # points left out at the end of a sweep, where the loss turns up


@dataclass(frozen=True)
class RangeTest:
    """Sweeps over the same learning rates, one per seed.

    lr: (n,) the rates, each the one before times the same factor. loss: (S, n) the mean cross-entropy of
    each batch, without smoothing and penalty, in nats; NaN from where the sweep stopped. smoothed: (S, n)
    its debiased moving mean. seeds: the S seeds. trials: for each seed the loss at the end of short
    trainings, by their maximum rate; empty where there were none.
    """

    lr: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    seeds: tuple[int, ...] = (0,)
    trials: tuple[Mapping[float, float], ...] = ()

    @property
    def readings(self) -> pd.DataFrame:
        """What each rule of `RATE_RULES` (column) reads off each sweep (row, by seed), and "trials".

        The first tenth of the range, where the mean still settles, and the last five points are left out.
        """
        rows = []
        for smoothed in self.smoothed:
            end = int(np.isfinite(smoothed).sum()) - TRIMMED_END
            part = slice(len(self.lr) // 10, end)
            rows.append({name: rule(self.lr[part], smoothed[part]) for name, rule in RATE_RULES.items()})
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
        write_text(folder / "range_test.json", json.dumps(card, indent=2))


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
