"""Learning-rate schedules: pure functions of how far training is.

A schedule is any function from :class:`Progress` to a number. It keeps no state, so a resumed run
needs nothing but its position and the losses of its finished epochs.

    >>> lr = one_cycle(0.4, peak=0.5, start_divisor=4, final_divisor=1, anneal="linear")
    >>> [round(lr(Progress(step, steps_per_epoch=2, epochs=2)), 3) for step in range(4)]
    [0.1, 0.3, 0.3, 0.1]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sightline.signatures import (
    AtLeastOne,
    BelowOne,
    Count,
    CountOrZero,
    LearningRate,
    NonNegative,
    Positive,
    Share,
)

Anneal = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Progress:
    """Where training is: about to do step `step` (from 0) of `steps_per_epoch * epochs`.

    losses: the watched loss of each finished epoch (validation if there is one, else training).
    """

    step: int
    steps_per_epoch: int
    epochs: int
    losses: Sequence[float] = field(default=())

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    @property
    def epoch(self) -> int:
        """The epoch that the step belongs to, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def fraction(self) -> float:
        """0 at the first step, 1 at the last."""
        return self.step / max(1, self.steps_per_epoch * self.epochs - 1)


Schedule = Callable[[Progress], float]


def _between(start: float, end: float, share: float, anneal: Anneal) -> float:
    if anneal == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share


def one_cycle(
    max_lr: LearningRate,
    *,
    peak: Share = 0.3,
    start_divisor: AtLeastOne = 25.0,
    final_divisor: AtLeastOne = 1e4,
    anneal: Anneal = "cosine",
) -> Schedule:
    """Rise from max_lr/start_divisor to max_lr at the share `peak` of the steps, then fall (Smith 2018).

    The last step has max_lr / start_divisor / final_divisor; final_divisor=1 ends where it began.
    The momentum stays as it is: see :func:`cycled_momentum`.
    """
    return _cycle(max_lr / start_divisor, max_lr, max_lr / start_divisor / final_divisor, peak, anneal)


def cycled_momentum(
    low: BelowOne, high: BelowOne, *, peak: Share = 0.3, anneal: Anneal = "cosine"
) -> Schedule:
    """Momentum against the learning rate of a one-cycle: `high` at both ends, `low` at the peak."""
    return _cycle(high, low, high, peak, anneal)


def triangle(
    max_lr: LearningRate, *, peak: Share = 0.2, start: NonNegative = 0.2, end: NonNegative = 0.07
) -> Schedule:
    """Straight lines from start*max_lr up to max_lr at the share `peak` of the steps, down to end*max_lr."""
    return _cycle(start * max_lr, max_lr, end * max_lr, peak, "linear")


def _cycle(start: float, top: float, end: float, peak: float, anneal: Anneal) -> Schedule:
    def lr_at(progress: Progress) -> float:
        at = progress.fraction
        if at < peak:
            return _between(start, top, at / peak, anneal)
        return _between(top, end, (at - peak) / (1 - peak) if peak < 1 else 0.0, anneal)

    return lr_at


def constant(lr: LearningRate) -> Schedule:
    """The same learning rate at every step."""
    return lambda progress: lr


def step(lr: LearningRate, *, every: Count = 10, gamma: Positive = 0.1) -> Schedule:
    """lr times gamma to the number of whole periods of `every` epochs that have passed."""
    return lambda progress: lr * gamma ** (progress.epoch // every)


def multistep(lr: LearningRate, *, milestones: list[Count], gamma: Positive = 0.1) -> Schedule:
    """lr times gamma for each of the epochs in `milestones` that has been reached."""
    return lambda progress: lr * gamma ** sum(progress.epoch >= milestone for milestone in milestones)


def cosine(lr: LearningRate, *, end: NonNegative = 0.0, warmup: Share = 0.0) -> Schedule:
    """Half a cosine from lr to end*lr (Loshchilov & Hutter 2016), after a straight rise over `warmup`."""
    return _cycle_with_straight_rise(lr, end * lr, warmup)


def _cycle_with_straight_rise(lr: float, end: float, warmup: float) -> Schedule:
    rise, fall = _cycle(0.01 * lr, lr, end, warmup, "linear"), _cycle(0.0, lr, end, warmup, "cosine")
    return lambda progress: rise(progress) if progress.fraction < warmup else fall(progress)


def plateau(
    lr: LearningRate, *, factor: BelowOne = 0.1, patience: CountOrZero = 3, threshold: NonNegative = 1e-4
) -> Schedule:
    """lr times factor each time the watched loss has not fallen for more than `patience` epochs.

    A loss counts as lower if it is below the best by the share `threshold`, as in
    torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    def lr_at(progress: Progress) -> float:
        now, best, waited = lr, math.inf, 0
        for loss in progress.losses:
            best, waited = (loss, 0) if loss < best * (1 - threshold) else (best, waited + 1)
            if waited > patience:
                now, waited = now * factor, 0
        return now

    return lr_at


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "one_cycle": one_cycle,
    "triangle": triangle,
    "constant": constant,
    "step": step,
    "multistep": multistep,
    "cosine": cosine,
    "plateau": plateau,
}
"""Makers of learning-rate schedules by name; their options are a recipe's `schedule` section."""
