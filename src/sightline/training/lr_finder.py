"""Learning-rate range test (Smith 2015, arXiv:1506.01186): raise the rate step by step, watch the loss.

test = find_learning_rate(model, data, batch_size=512)
fit(model, data, schedule=one_cycle(test.suggestions["steepest"]))
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from sightline.data import Augmentation, Dataset
from sightline.errors import SightlineError
from sightline.files import write_text
from sightline.models import choose_device, choose_precision
from sightline.training.optimizer import OptimizerFactory, set_rates, sgd
from sightline.training.update import check_outputs, train_step, training_batches

if TYPE_CHECKING:
    import albumentations


@dataclass(frozen=True)
class RangeTest:
    """Learning rates tried (n,), the batch losses (n,), and their debiased moving mean (n,)."""

    lr: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray

    @property
    def suggestions(self) -> dict[str, float]:
        """Two readings: "steepest" fall of the smoothed loss over log(lr), and a tenth of its minimum's lr.

        Only the part before the minimum counts, without the first tenth, where the mean still settles.
        """
        lowest = int(self.smoothed.argmin())
        begin = min(len(self.lr) // 10, max(0, lowest - 2))
        part = slice(begin, max(lowest, begin + 2) + 1)
        slope = np.gradient(self.smoothed[part], np.log(self.lr[part]))
        return {
            "steepest": float(self.lr[part][slope.argmin()]),
            "minimum/10": float(self.lr[lowest] / 10),
        }

    def save(self, folder: Path) -> None:
        """Write `range_test.csv` and `range_test.json`."""
        import json

        import pandas as pd

        table = pd.DataFrame({"lr": self.lr, "loss": self.loss, "smoothed": self.smoothed})
        write_text(folder / "range_test.csv", table.to_csv(index=False, lineterminator="\n"))
        write_text(folder / "range_test.json", json.dumps({"suggestions": self.suggestions}, indent=2))


def find_learning_rate(
    model: nn.Module,
    data: Dataset,
    *,
    batch_size: int = 128,
    optimizer: OptimizerFactory | None = None,
    augmentation: Augmentation | albumentations.Compose | None = None,
    label_smoothing: float = 0.0,
    l1: float = 0.0,
    precision: str = "auto",
    device: str = "auto",
    low: float = 1e-5,
    high: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    seed: int = 0,
) -> RangeTest:
    """Train a copy of `model` for `steps` steps while the rate grows from `low` to `high`.

    The rate grows by the same factor each step; the test ends early once the smoothed loss is over
    four times its minimum, or not finite. Model, optimizer and random state are left as they were.

    Raises SightlineError if the range or the number of steps cannot be used, or if the loss is not
    finite before anything was learnt.
    """
    if not 0 < low < high or steps < 10:
        raise SightlineError(
            f"low={low}, high={high}, steps={steps}; use 0 < low < high and at least 10 steps"
        )
    place = choose_device(device)
    precision = choose_precision(precision, place)
    trial = copy.deepcopy(model)
    check_outputs(trial, data, place)
    trial.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    batches = training_batches(
        data.train, data, batch_size=batch_size, augmentation=augmentation, seed=seed, device=place
    )
    stream = (batch for epoch in itertools.count() for batch in batches.epoch(epoch))
    rates = np.geomspace(low, high, steps)
    losses: list[float] = []
    means: list[float] = []
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), contextlib.closing(stream):
        torch.manual_seed(seed)
        trainer = (optimizer or sgd())(trial)
        for rate, batch in zip(rates, stream, strict=False):
            set_rates(trainer, float(rate), None)
            loss, _ = train_step(
                trial, trainer, batch.images, batch.labels,
                precision=precision, label_smoothing=label_smoothing, l1=l1,
            )  # fmt: skip
            if not math.isfinite(float(loss)):
                break
            losses.append(float(loss))
            means.append(_debiased_mean(losses, smoothing))
            if means[-1] > 4 * min(means):
                break
    if len(losses) < 10:
        raise SightlineError(
            f"the loss was not finite after {len(losses)} steps at learning rate {rates[len(losses)]:.3g}; "
            "lower the start of the range"
        )
    return RangeTest(rates[: len(losses)], np.array(losses), np.array(means))


def _debiased_mean(values: list[float], smoothing: float) -> float:
    """Exponential moving mean of `values` over the sum of its weights (Kingma & Ba 2014, section 3)."""
    weights = smoothing ** np.arange(len(values))[::-1]
    return float(weights @ np.array(values) / weights.sum())
