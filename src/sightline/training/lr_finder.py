"""The learning rate to begin with: by a range test, or the default of network and optimizer.

The range test (Smith 2015, arXiv:1506.01186) raises the learning rate step by step and watches the loss.

    test = find_learning_rate(model, data, batch_size=512)
    fit(model, data, schedule=one_cycle(test.suggestion))

It trains copies: nothing of it is left in the model, its optimizer or any random state.
"""

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

from sightline import distributed
from sightline.data import Dataset, OnDevice, ResidentBatches, StreamedBatches
from sightline.data.loaders import Batch
from sightline.errors import DivergedError, InputError
from sightline.models import choose_device, choose_memory_format, choose_precision
from sightline.training.execution import Execution
from sightline.training.lr_range_test import QUARTER, TENTH, RangeTest, debiased_means
from sightline.training.optimizers import Muon, OptimizerFactory, build_optimizer, keep_lr_ratios, set_lr
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
    augmentation: OnDevice | albumentations.Compose | None
    mix: Mix | None
    device: torch.device
    memory_format: torch.memory_format
    step: dict[str, Any]
    on_step: Callable[[], None] | None

    def losses(self, seed: int, lrs: np.ndarray, stop: Callable[[np.ndarray], bool]) -> np.ndarray:
        """Return the loss of a step of a new copy at each of the (n,) `lrs`, NaN from where it stopped.

        stop: whether the losses so far are enough; a loss that is not finite always is.
        """
        model, optimizer = self.make(seed)
        batches = training_batches(
            self.data.train, self.data, batch_size=self.batch_size, augmentation=self.augmentation,
            seed=seed, device=self.device,
        )  # fmt: skip
        losses = np.full(len(lrs), np.nan)
        with contextlib.closing(_endless(batches)) as stream:
            for i, (epoch, position, batch) in zip(range(len(lrs)), stream, strict=False):
                set_lr(optimizer, float(lrs[i]), None)
                mixed = self.mix(batch.images, mix_generator(seed, epoch, position)) if self.mix else None
                images = mixed.images if mixed else batch.images
                loss = float(train_step(model, optimizer, images, batch.labels, mixed=mixed, **self.step)[0])
                if self.on_step is not None:
                    self.on_step()
                if not math.isfinite(loss):
                    break
                losses[i] = loss
                if stop(losses[: i + 1]):
                    break
        return losses

    def make(self, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
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


_FEWEST = 6  # points of a sweep, for a rule to have any left after the trimming
FEWEST_STEPS = 20  # of a sweep
_ABOVE, _BELOW = 100.0, 100.0  # from where to where a sweep goes, in units of the default


_ADAMS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam)


def usual_lr(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch_size: int, *, pretrained: bool = False
) -> float | None:
    """Return the default learning rate of a network and an optimizer, None for an optimizer that has none.

    | optimizer | network | learning rate | source |
    | --- | --- | --- | --- |
    | SGD, momentum 0.9 | with batch or group normalisation | 0.4 for 512 images | Page 2018, CIFAR-10 |
    | SGD, momentum 0.9 | without | 0.01 for 128 images | Krizhevsky 2012, section 5 |
    | SGD, momentum 0.9 | pretrained | 0.003 for 512 images | Kolesnikov 2019, arXiv:1912.11370 |
    | Adam and its kin | any | 0.003 | measured (benchmarks/RESULTS.md) |
    | Adam and its kin | pretrained | 0.00005 | Liu 2022, arXiv:2201.03545 |
    | Muon | any | 0.02 | Jordan 2024 |

    That of SGD grows with the root of the batch size, and is divided by what momentum multiplies a step with,
    1 / (1 - momentum). They are maxima, for schedules that rise and fall.
    """
    if isinstance(optimizer, Muon):
        return 0.02
    if isinstance(optimizer, _ADAMS):
        return 5e-5 if pretrained else 0.003
    if not isinstance(optimizer, torch.optim.SGD):
        return None
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
    normalised = any(isinstance(module, norms) for module in model.modules())
    lr, images = (0.003, 512) if pretrained else (0.4, 512) if normalised else (0.01, 128)
    return lr * math.sqrt(batch_size / images) * (1 - optimizer.param_groups[0]["momentum"]) / 0.1


def find_learning_rate(
    model: nn.Module | Callable[[int], nn.Module],
    data: Dataset,
    *,
    batch_size: int = 128,
    optimizer: OptimizerFactory | torch.optim.Optimizer | None = None,
    augmentation: OnDevice | albumentations.Compose | None = None,
    mix: Mix | None = None,
    objective: Objective | Loss | None = None,
    execution: Execution | None = None,
    device: str = "auto",
    low: float | None = None,
    high: float | None = None,
    steps: int = 100,
    smoothing: float | None = None,
    seeds: Sequence[int] = (0,),
    pretrained: bool = False,
    on_step: Callable[[], None] | None = None,
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
            `model`: a copy goes on from its state, and keeps the ratios between the learning rates of its
            groups.
        augmentation, mix, objective, execution, device: As of `fit`.
        low, high: First and last learning rate; by default a hundredth of the default for the network and
            the optimizer (`usual_lr`) and a hundred times it, or 1e-5 and 10 where there is none.
        steps: Of a sweep. 0 for no sweep: the suggestion is the default then.
        smoothing: Share of the moving mean that is kept at each step, in [0, 1); by default 1 - 10/steps,
            so that it is one over about a tenth of the sweep, and 0.9 at most.
        seeds: Of the order of the images, of their augmentation and of dropout; a sweep each.
        pretrained: Whether the weights have learnt from other data; the default is a smaller one then.
        on_step: Called after each step that this process has done.

    Raises:
        InputError: The range, the steps or the seeds cannot be used, or the optimizer is another model's, or
            there is neither a sweep nor a default.
        DivergedError: A sweep ran away before it had left enough of a curve.
    """
    torch_device, execution = choose_device(device), execution or Execution()
    step = {
        "precision": distributed.agreed(choose_precision(execution.precision, torch_device)),
        "objective": objective if isinstance(objective, Objective) else Objective(loss=objective),
    }
    layout = choose_memory_format(execution.memory_format)
    copies = Copies(
        model, optimizer, data, batch_size, augmentation, mix, torch_device, layout, step, on_step
    )
    with random_states_kept(torch_device):
        first = seeds[0] if seeds else 0
        usual, divisor = distributed.all_do(lambda: _known(*copies.make(first), batch_size, pretrained))[0]
        low = (usual / _BELOW if usual else 1e-5) if low is None else low
        high = (usual * _ABOVE if usual else 10.0) if high is None else high
        smoothing = max(0.0, min(0.9, 1 - 10 / max(steps, 1))) if smoothing is None else smoothing
        _check_range(low, high, steps, smoothing, seeds, usual)
        if not steps:
            none = np.empty((0, 0))
            return RangeTest(np.empty(0), none, none, (), usual, divisor, "no sweep was wanted")
        lrs = np.geomspace(low, high, steps)
        losses = np.stack(shared_out(seeds, lambda seed: _sweep(copies, lrs, smoothing, seed)))  # (S, n)
    smoothed = np.stack([debiased_means(row, smoothing) for row in losses])
    return RangeTest(lrs, losses, smoothed, tuple(int(seed) for seed in seeds), usual, divisor)


def _known(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch_size: int, pretrained: bool
) -> tuple[float | None, float]:
    """Return the default, and what the edge of a sweep is to be divided by."""
    divisor = TENTH if isinstance(optimizer, _ADAMS) else QUARTER
    return usual_lr(model, optimizer, batch_size, pretrained=pretrained), divisor


def _check_range(
    low: float, high: float, steps: int, smoothing: float, seeds: Sequence[int], usual: float | None
) -> None:
    if not 0 < low < high or 0 < steps < FEWEST_STEPS or steps < 0 or not seeds or not 0 <= smoothing < 1:
        raise InputError(
            f"low={low:g}, high={high:g}, steps={steps}, smoothing={smoothing:g}, {len(seeds)} seeds; use "
            f"0 < low < high, at least {FEWEST_STEPS} steps, smoothing in [0, 1) and at least one seed"
        )
    if not steps and usual is None:
        raise InputError(
            f"this optimizer has no default learning rate; search with at least {FEWEST_STEPS} steps"
        )


def _sweep(copies: Copies, lrs: np.ndarray, smoothing: float, seed: int) -> np.ndarray:
    """Return the (n,) losses while the learning rate grows; NaN from where the sweep stopped."""
    floor = math.log(copies.data.num_classes)
    losses = copies.losses(seed, lrs, lambda found: _ran_away(found, smoothing, floor=floor))
    _check_sweep(losses, lrs)
    return losses


def _ran_away(losses: np.ndarray, smoothing: float, *, floor: float) -> bool:
    means = debiased_means(losses, smoothing)
    settled = min(len(means), 10) - 1  # where the mean says where the sweep began
    return bool(means[-1] > 1.1 * max(means[settled], floor))


def _check_sweep(losses: np.ndarray, lrs: np.ndarray) -> None:
    done = int(np.isfinite(losses).sum())
    if done < len(lrs) // 10 + _FEWEST:
        raise DivergedError(
            f"the loss ran away after {done} of {len(lrs)} steps, at learning rate "
            f"{lrs[min(done, len(lrs) - 1)]:.3g}; lower the start of the range (low={lrs[0]:.3g})"
        )
