"""Training on copies: nothing of it is left in the model, its optimizer or any random state."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn

from sightline.data import Augmentation, Dataset, ResidentBatches, StreamedBatches
from sightline.data.plan import Batch
from sightline.errors import SightlineError
from sightline.models import processes
from sightline.training.mixing import Mix, mix_generator
from sightline.training.optimizer import OptimizerFactory, set_rates, sgd
from sightline.training.update import check_outputs, train_step, training_batches

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
        self, seed: int, count: int, rate_of: Callable[[int], float], stop: Callable[[np.ndarray], bool]
    ) -> np.ndarray:
        """Return the loss of each of `count` steps of a new copy, NaN from where it stopped.

        rate_of: the learning rate of a step, from 0. stop: whether the losses so far are enough; a loss that
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
                set_rates(optimizer, rate_of(i), None)
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
                raise SightlineError(
                    "the optimizer trains parameters of another model; pass the one that was made for this "
                    "model, or a function such as sgd()"
                )
        trial, trainer = copy.deepcopy((source, given))  # together: the copies belong to each other
        check_outputs(trial, self.data, self.device)
        trial.train().to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        _seed(seed, self.device)
        if trainer is None:
            return trial, (self.optimizer or sgd())(trial)  # pyright: ignore[reportCallIssue]
        trainer.load_state_dict(trainer.state_dict())  # moves the state to where the parameters are now
        first = trainer.param_groups[0]["lr"] or 1.0
        for group in trainer.param_groups:
            group.setdefault("lr_factor", group["lr"] / first)
        return trial, trainer


def _endless(batches: ResidentBatches | StreamedBatches) -> Generator[tuple[int, int, Batch]]:
    """Yield epoch, position and batch, one epoch after the other."""
    for epoch in itertools.count():
        with contextlib.closing(batches.epoch(epoch)) as stream:
            yield from ((epoch, position, batch) for position, batch in enumerate(stream))


def shared_out(seeds: Sequence[int], work: Callable[[int], T]) -> list[T]:
    """Return the work on every seed, in their order; several processes share it out and exchange it."""
    mine = range(processes.rank(), len(seeds), processes.size())
    parts = processes.all_do(lambda: {k: work(seeds[k]) for k in mine})
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
