"""Learning-rate range test (Smith 2015, arXiv:1506.01186): raise it step by step, watch the loss.

    test = find_learning_rate(model, data, batch_size=512)
    fit(model, data, schedule=one_cycle(test.suggestion))

It trains copies: nothing of it is left in the model, its optimizer or any random state.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn

from sightline import distributed
from sightline.data import Augmentation, Dataset, ResidentBatches, StreamedBatches
from sightline.data.loaders import Batch
from sightline.errors import DivergedError, InputError
from sightline.models import choose_device, choose_memory_format, choose_precision
from sightline.training.execution import Execution
from sightline.training.lr_range_test import TRIMMED_END, RangeTest, climb, debiased_means
from sightline.training.optimizers import OptimizerFactory, build_optimizer, keep_lr_ratios, set_lr
from sightline.training.schedules import Progress, Schedule
from sightline.training.train_step import (
    Loss,
    Mix,
    Objective,
    check_outputs,
    mix_generator,
    train_step,
    training_batches,
)

if TYPE_CHECKING:
    import albumentations


T = TypeVar("T")
ModelSource = nn.Module | Callable[[int], nn.Module]
OptimizerSource = OptimizerFactory | torch.optim.Optimizer | None


@dataclass(frozen=True)
class Copies:
    """What copies of a model are trained with. step: keyword arguments of `train_step`."""

    model: ModelSource
    optimizer: OptimizerSource
    data: Dataset
    batch_size: int
    augmentation: Augmentation | albumentations.Compose | None
    mix: Mix | None
    device: torch.device
    memory_format: torch.memory_format
    step: dict[str, Any]

    def losses(
        self, seed: int, count: int, lr_of: Callable[[int], float], stop: Callable[[np.ndarray], bool]
    ) -> np.ndarray:
        """Return the loss of each of `count` steps of a new copy, NaN from where it stopped.

        lr_of: the learning rate of a step, from 0. stop: whether the losses so far are enough; a loss that
        is not finite always is.
        """
        model, optimizer = self._make(seed)
        batches = training_batches(
            self.data.train, self.data, batch_size=self.batch_size, augmentation=self.augmentation,
            seed=seed, device=self.device,
        )  # fmt: skip
        losses = np.full(count, np.nan)
        with contextlib.closing(_endless(batches)) as stream:
            for i, (epoch, position, batch) in zip(range(count), stream, strict=False):
                set_lr(optimizer, lr_of(i), None)
                mixed = self.mix(batch.images, mix_generator(seed, epoch, position)) if self.mix else None
                images = mixed.images if mixed else batch.images
                loss = float(train_step(model, optimizer, images, batch.labels, mixed=mixed, **self.step)[0])
                if not math.isfinite(loss):
                    break
                losses[i] = loss
                if stop(losses[: i + 1]):
                    break
        return losses

    def _make(self, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return a copy of the model on the device in training mode, with an optimizer of its own."""
        source = self.model if isinstance(self.model, nn.Module) else self.model(seed)
        if isinstance(source, nn.parallel.DistributedDataParallel):
            source = source.module  # a sweep is one process's own: its gradients must not be averaged
        given = self.optimizer if isinstance(self.optimizer, torch.optim.Optimizer) else None
        if given is not None:
            own = {id(p) for p in source.parameters()}
            if not all(id(p) in own for group in given.param_groups for p in group["params"]):
                raise InputError(
                    "the optimizer trains parameters of another model; pass the one that was made for this "
                    "model, or a function such as sgd()"
                )
        trial, copied = copy.deepcopy((source, given))  # together: the copies belong to each other
        check_outputs(trial, self.data, self.device)
        trial.train().to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        _seed(seed, self.device)
        if copied is None:
            return trial, build_optimizer(self.optimizer, trial)  # pyright: ignore[reportArgumentType]
        copied.load_state_dict(copied.state_dict())  # moves the state to where the parameters are now
        keep_lr_ratios(copied)
        return trial, copied


def _endless(batches: ResidentBatches | StreamedBatches) -> Generator[tuple[int, int, Batch]]:
    """Yield epoch, position and batch, one epoch after the other."""
    for epoch in itertools.count():
        with contextlib.closing(batches.epoch(epoch)) as stream:
            yield from ((epoch, position, batch) for position, batch in enumerate(stream))


def shared_out(seeds: Sequence[int], work: Callable[[int], T]) -> list[T]:
    """Return the work on every seed, in their order; several processes share it out and exchange it."""
    mine = range(distributed.rank(), len(seeds), distributed.size())
    parts = distributed.all_do(lambda: {k: work(seeds[k]) for k in mine})
    together = {k: result for part in parts for k, result in part.items()}
    return [together[k] for k in range(len(seeds))]


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators that a step draws from, and no other device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Put Python's, NumPy's, the CPU's and the device's random state back as they were."""
    states = [(random.getstate, random.setstate), (torch.get_rng_state, torch.set_rng_state)]
    states.append((np.random.get_state, np.random.set_state))
    if device.type == "cuda":
        states.append(
            (lambda: torch.cuda.get_rng_state(device), lambda s: torch.cuda.set_rng_state(s, device))
        )
    elif device.type == "mps":
        states.append((torch.mps.get_rng_state, torch.mps.set_rng_state))
    kept = [(put, get()) for get, put in states]
    try:
        yield
    finally:
        for put, state in kept:
            put(state)


_FEWEST = 5  # points that a rule needs after the trimming


def find_learning_rate(
    model: nn.Module | Callable[[int], nn.Module],
    data: Dataset,
    *,
    batch_size: int = 128,
    optimizer: OptimizerFactory | torch.optim.Optimizer | None = None,
    augmentation: Augmentation | albumentations.Compose | None = None,
    mix: Mix | None = None,
    objective: Objective | Loss | None = None,
    execution: Execution | None = None,
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
    """Train a copy of `model` while the learning rate grows from `low` to `high`, once per seed.

    The learning rate grows by the same factor each step. A sweep ends early at a loss that is not finite, or
    once the smoothed loss is a tenth over where it began and over ln C, that of guessing. Model, optimizer,
    modes and every global random state are left as they were, bit for bit, also after an exception.

    Under torch.distributed the processes share the seeds out and exchange what they found: all of them
    return the same, which is also what one process finds. All of them must call it.

    Args:
        model: A network, new or already trained, alone or in DistributedDataParallel; or a function from a
            seed to a new network, so that the seeds differ in their weights too.
        data: Its training split is trained on.
        batch_size: Images per step.
        optimizer: A function from a model to an optimizer (default `sgd()`), or the optimizer that trains
            `model`: a copy goes on from its state, and keeps the ratios between the learning lrs of its
            groups.
        augmentation, mix, objective, execution, device: As of `fit`.
        low, high: First and last learning rate.
        steps: Of a sweep, and about those of a trial.
        smoothing: Share of the moving mean that is kept at each step, in [0, 1).
        schedule: A function from a maximum learning rate to a schedule, such as `one_cycle`. With it each
            sweep is followed by trials: trainings of about `steps` steps, which stand for `epochs` epochs, at
            powers of two times a quarter of the sweep's learning rate of lowest loss, until the best is
            found. They are the better guide and cost five or so sweeps.
        epochs: Of the training to come.
        seeds: Of the order of the images, of their augmentation and of dropout.
        on_sweep: Called with the seed and the number of steps after each sweep.

    Raises:
        InputError: The range, the steps or the seeds cannot be used, or the optimizer is another model's.
        DivergedError: A sweep ran away before it had left enough of a curve, or all trials did.
    """
    if not 0 < low < high or steps < 20 or not seeds or not 0 <= smoothing < 1:
        raise InputError(
            f"low={low}, high={high}, steps={steps}, smoothing={smoothing}, {len(seeds)} seeds; "
            "use 0 < low < high, at least 20 steps, smoothing in [0, 1) and at least one seed"
        )
    torch_device, execution = choose_device(device), execution or Execution()
    step = {
        "precision": distributed.agreed(choose_precision(execution.precision, torch_device)),
        "objective": objective if isinstance(objective, Objective) else Objective(loss=objective),
    }
    layout = choose_memory_format(execution.memory_format)
    copies = Copies(model, optimizer, data, batch_size, augmentation, mix, torch_device, layout, step)
    lrs = np.geomspace(low, high, steps)

    def work(seed: int) -> tuple[np.ndarray, dict[float, float]]:
        losses = _sweep(copies, lrs, smoothing, seed)
        if on_sweep is not None:
            on_sweep(seed, int(np.isfinite(losses).sum()))
        if schedule is None:
            return losses, {}
        lowest = lrs[int(np.nanargmin(debiased_means(losses, smoothing)))]
        tried = climb(functools.partial(_trial, copies, schedule, steps, epochs, seed), float(lowest / 4))
        if not np.isfinite(list(tried.values())).any():
            raise DivergedError(
                f"training ran away at every learning rate from {min(tried):.3g} to {max(tried):.3g}; "
                "use precision float32, or another schedule"
            )
        return losses, tried

    with random_states_kept(torch_device):
        found = shared_out(seeds, work)
    losses = np.stack([sweep for sweep, _ in found])  # (S, n)
    smoothed = np.stack([debiased_means(row, smoothing) for row in losses])
    trials = () if schedule is None else tuple(tried for _, tried in found)
    return RangeTest(lrs, losses, smoothed, tuple(int(seed) for seed in seeds), trials)


def _sweep(copies: Copies, lrs: np.ndarray, smoothing: float, seed: int) -> np.ndarray:
    """Return the (n,) losses while the learning rate grows; NaN from where the sweep stopped."""
    floor = math.log(copies.data.num_classes)
    losses = copies.losses(
        seed, len(lrs), lambda i: float(lrs[i]), lambda found: _ran_away(found, smoothing, floor=floor)
    )
    _check_sweep(losses, lrs)
    return losses


def _trial(
    copies: Copies, schedule: Callable[[float], Schedule], steps: int, epochs: int, seed: int, lr: float
) -> float:
    """Return the loss at the end of about `steps` steps along the schedule of `epochs` epochs to `lr`."""
    per_epoch = max(1, steps // epochs)
    count, lr_at = per_epoch * epochs, schedule(lr)
    losses = copies.losses(seed, count, lambda i: lr_at(Progress(i, per_epoch, epochs)), lambda found: False)
    end = losses[-max(5, count // 10) :].mean()
    return float(end) if math.isfinite(end) else math.inf


def _ran_away(losses: np.ndarray, smoothing: float, *, floor: float) -> bool:
    means = debiased_means(losses, smoothing)
    settled = min(len(means), 10) - 1  # where the mean says where the sweep began
    return bool(means[-1] > 1.1 * max(means[settled], floor))


def _check_sweep(losses: np.ndarray, lrs: np.ndarray) -> None:
    done = int(np.isfinite(losses).sum())
    if done - len(lrs) // 10 - TRIMMED_END < _FEWEST:
        raise DivergedError(
            f"the loss ran away after {done} of {len(lrs)} steps, at learning rate "
            f"{lrs[min(done, len(lrs) - 1)]:.3g}; lower the start of the range (low={lrs[0]:.3g})"
        )
