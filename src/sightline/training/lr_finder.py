"""Learning-rate range test (Smith 2015, arXiv:1506.01186): raise the rate step by step, watch the loss.

test = find_learning_rate(model, data, batch_size=512)
fit(model, data, schedule=one_cycle(test.suggestion))
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from sightline.data import Augmentation, Dataset
from sightline.errors import SightlineError
from sightline.models import choose_device, choose_memory_format, choose_precision, processes
from sightline.training.copies import Copies, random_states_kept, shared_out
from sightline.training.lr_trials import climb
from sightline.training.mixing import Mix
from sightline.training.optimizer import OptimizerFactory
from sightline.training.range_test import TRIMMED_END, RangeTest, debiased_means
from sightline.training.schedule import Progress, Schedule

if TYPE_CHECKING:
    import albumentations

_FEWEST = 5  # points that a rule needs after the trimming


def find_learning_rate(
    model: nn.Module | Callable[[int], nn.Module],
    data: Dataset,
    *,
    batch_size: int = 128,
    optimizer: OptimizerFactory | torch.optim.Optimizer | None = None,
    augmentation: Augmentation | albumentations.Compose | None = None,
    mix: Mix | None = None,
    label_smoothing: float = 0.0,
    l1: float = 0.0,
    precision: str = "auto",
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto",
    device: str = "auto",
    low: float = 1e-5,
    high: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    schedule: Callable[[float], Schedule] | None = None,
    epochs: int = 1,
    seeds: Sequence[int] = (0, 1, 2),
    on_sweep: Callable[[int, int], None] | None = None,
) -> RangeTest:
    """Train a copy of `model` for `steps` steps while the rate grows from `low` to `high`, once per seed.

    With a `schedule`, a function from a maximum rate to a schedule such as `one_cycle`, each sweep is
    followed by trials: trainings of about `steps` steps, which stand for `epochs` epochs, at powers of two
    times a quarter of the sweep's rate of lowest loss, until the best is found. They are the better guide
    and cost five or so sweeps.

    model: a network, new or already trained, alone or in DistributedDataParallel; or a function from a
    seed to a new network, so that the seeds differ in their weights too. optimizer: a function from a
    model to an optimizer (default `sgd()`), or the optimizer that trains `model`: a copy goes on from its
    state, and keeps the ratios between the rates of its groups. seeds: of the order of the images, of
    their augmentation and of dropout. on_sweep(seed, steps) is called after each sweep.

    The rate grows by the same factor each step. A sweep ends early at a loss that is not finite, or once
    the smoothed loss is a tenth over where it began and over ln C, that of guessing. Model, optimizer,
    modes and every global random state are left as they were, bit for bit, also after an exception.

    Under torch.distributed the processes share the seeds out and exchange what they found: all of them
    return the same, which is also what one process finds. All of them must call it.

    Raises SightlineError if the range, the steps or the seeds cannot be used, if the optimizer is
    another model's, or if a sweep ran away before it had left enough of a curve, or all trials did.
    """
    if not 0 < low < high or steps < 20 or not seeds or not 0 <= smoothing < 1:
        raise SightlineError(
            f"low={low}, high={high}, steps={steps}, smoothing={smoothing}, {len(seeds)} seeds; "
            "use 0 < low < high, at least 20 steps, smoothing in [0, 1) and at least one seed"
        )
    place = choose_device(device)
    step = {
        "precision": processes.agreed(choose_precision(precision, place)),
        "label_smoothing": label_smoothing,
        "l1": l1,
    }
    layout = choose_memory_format(memory_format)
    copies = Copies(model, optimizer, data, batch_size, augmentation, mix, place, layout, step)
    rates = np.geomspace(low, high, steps)

    def work(seed: int) -> tuple[np.ndarray, dict[float, float]]:
        losses = _sweep(copies, rates, smoothing, seed)
        if on_sweep is not None:
            on_sweep(seed, int(np.isfinite(losses).sum()))
        if schedule is None:
            return losses, {}
        lowest = rates[int(np.nanargmin(debiased_means(losses, smoothing)))]
        tried = climb(functools.partial(_trial, copies, schedule, steps, epochs, seed), float(lowest / 4))
        if not np.isfinite(list(tried.values())).any():
            raise SightlineError(
                f"training ran away at every rate from {min(tried):.3g} to {max(tried):.3g}; "
                "use precision float32, or another schedule"
            )
        return losses, tried

    with random_states_kept(place):
        found = shared_out(seeds, work)
    losses = np.stack([sweep for sweep, _ in found])  # (S, n)
    smoothed = np.stack([debiased_means(row, smoothing) for row in losses])
    trials = () if schedule is None else tuple(tried for _, tried in found)
    return RangeTest(rates, losses, smoothed, tuple(int(seed) for seed in seeds), trials)


def _sweep(copies: Copies, rates: np.ndarray, smoothing: float, seed: int) -> np.ndarray:
    """Return the (n,) losses while the rate grows; NaN from where the sweep stopped."""
    floor = math.log(copies.data.num_classes)
    losses = copies.losses(
        seed, len(rates), lambda i: float(rates[i]), lambda found: _ran_away(found, smoothing, floor=floor)
    )
    _check_sweep(losses, rates)
    return losses


def _trial(
    copies: Copies, schedule: Callable[[float], Schedule], steps: int, epochs: int, seed: int, lr: float
) -> float:
    """Return the loss at the end of about `steps` steps along the schedule of `epochs` epochs to `lr`."""
    per_epoch = max(1, steps // epochs)
    count, rate = per_epoch * epochs, schedule(lr)
    losses = copies.losses(seed, count, lambda i: rate(Progress(i, per_epoch, epochs)), lambda found: False)
    end = losses[-max(5, count // 10) :].mean()
    return float(end) if math.isfinite(end) else math.inf


def _ran_away(losses: np.ndarray, smoothing: float, *, floor: float) -> bool:
    means = debiased_means(losses, smoothing)
    settled = min(len(means), 10) - 1  # where the mean says where the sweep began
    return bool(means[-1] > 1.1 * max(means[settled], floor))


def _check_sweep(losses: np.ndarray, rates: np.ndarray) -> None:
    done = int(np.isfinite(losses).sum())
    if done - len(rates) // 10 - TRIMMED_END < _FEWEST:
        raise SightlineError(
            f"the loss ran away after {done} of {len(rates)} steps, at learning rate "
            f"{rates[min(done, len(rates) - 1)]:.3g}; lower the start of the range (low={rates[0]:.3g})"
        )
