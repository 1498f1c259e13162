"""The training loop.

    model = create_model("resnet18", data)
    history = fit(model, data, epochs=20, batch_size=512, schedule=one_cycle(0.4))

Everything random is a function of (seed, epoch), so a loop that was killed goes on from its checkpoint
to the same weights, on a CPU bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sightline.data import Augmentation, Dataset
from sightline.errors import SightlineError
from sightline.models import choose_device, choose_precision
from sightline.training.history import History, describe_epoch
from sightline.training.loop import Loop, Monitor, hold_out
from sightline.training.optimizer import OptimizerFactory, sgd
from sightline.training.schedule import Progress, Schedule, one_cycle
from sightline.training.update import check_outputs, training_batches

if TYPE_CHECKING:
    import albumentations


def print_epoch(history: History, epochs: int) -> None:
    """Print the line of the epoch that has just ended."""
    print(describe_epoch(history.epochs[-1], epochs))


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: OptimizerFactory | None = None,
    schedule: Schedule | None = None,
    momentum: Schedule | None = None,
    augmentation: Augmentation | albumentations.Compose | None = None,
    label_smoothing: float = 0.0,
    l1: float = 0.0,
    precision: str = "auto",
    device: str = "auto",
    validation: float = 0.0,
    keep: Literal["last", "best"] = "last",
    patience: int | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    resume: bool = False,
    on_epoch: Callable[[History, int], None] = print_epoch,
    on_step: Callable[[Progress, int], None] | None = None,
) -> History:
    """Train `model` in place on `data.train` and return the history; test figures are taken, never used.

    optimizer: default `sgd()`. schedule, momentum: functions of :class:`Progress`; default
    `one_cycle(0.1)` and the optimizer's own momentum. augmentation: crop, flip and hole on the device,
    or any albumentations.Compose through workers. label_smoothing: in [0, 1). l1: factor of the sum of
    absolute values of matrices and filters. validation: share of the training split, drawn by seed and
    stratified, held out to choose by. keep: "best" keeps the epoch with the lowest validation loss.
    patience: stop after so many epochs without a lower validation loss. checkpoint: a file written at
    the end of each epoch and about every `checkpoint_seconds`; resume: go on from it if it is there.
    on_epoch(history, epochs) and on_step(progress, images) are called as training goes.

    Raises SightlineError if the model does not fit the data, if the loss is not finite (with the step
    and a hint), or if `keep="best"` or `patience` is asked for without a validation split.
    """
    if validation == 0 and (keep == "best" or patience):
        raise SightlineError(
            f"keep={keep!r}, patience={patience} choose by a validation split, and validation is 0; "
            "set validation=0.1, or keep='last' and no patience"
        )
    place = choose_device(device)
    check_outputs(model, data, place)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    train, held = hold_out(data.train, validation, seed)
    batches = training_batches(
        train, data, batch_size=batch_size, augmentation=augmentation, seed=seed, device=place
    )
    loop = Loop(
        model=model,
        optimizer=(optimizer or sgd())(model),
        batches=batches,
        epochs=epochs,
        schedule=schedule or one_cycle(0.1),
        momentum=momentum,
        precision=choose_precision(precision, place),
        label_smoothing=label_smoothing,
        l1=l1,
        device=place,
        monitor=Monitor(data, held, keep=keep, patience=patience),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        on_step=on_step,
    )
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        if resume and checkpoint is not None and checkpoint.exists():
            loop.restore(checkpoint)
        while not loop.finished:
            loop.run_epoch()
            on_epoch(loop.history, epochs)
    return loop.conclude()
