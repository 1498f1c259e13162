"""The training loop.

    model = create_model("resnet18", data)
    history = fit(model, data, epochs=20, batch_size=512, schedule=one_cycle(0.4))

Everything random is a function of (seed, epoch), so a loop that was killed goes on from its checkpoint
to the same weights, on a CPU bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sightline.data import Augmentation, Dataset
from sightline.errors import SightlineError
from sightline.models import choose_device, choose_memory_format, choose_precision, processes
from sightline.training.averaging import AverageFactory, none
from sightline.training.dynamics import Recorder
from sightline.training.history import History, describe_epoch
from sightline.training.loop import Loop
from sightline.training.mixing import Mix
from sightline.training.monitor import Monitor, hold_out
from sightline.training.optimizer import OptimizerFactory, sgd
from sightline.training.schedule import Progress, Schedule, one_cycle
from sightline.training.update import check_outputs, freezing, training_batches

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
    mix: Mix | None = None,
    average: AverageFactory | None = None,
    freeze: Mapping[str, int] | None = None,
    label_smoothing: float = 0.0,
    l1: float = 0.0,
    precision: str = "auto",
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto",
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
    or any albumentations.Compose through workers. mix: of the batches, `mixup()` or `cutmix()`; accuracy and
    loss in the history are then against each image's own label, the larger part. average: of the
    weights, `ema()` or `lookahead()`; default `none()`. freeze: after how many epochs a parameter or
    a layer, by its name, trains no more.
    label_smoothing: in [0, 1). l1: factor of the sum of absolute values of matrices and filters.
    precision, memory_format: `measure_execution` finds the fastest; "auto" is bfloat16 where the device
    multiplies it natively, and channels_last.
    validation: share of the training split, drawn by seed and stratified, held out to choose by.
    keep: "best" keeps the epoch with the lowest validation loss. patience: stop after so many epochs
    without a lower validation loss. checkpoint: a file written at the end of each epoch and about every
    `checkpoint_seconds`; resume: go on from it if it is there.
    on_epoch(history, epochs) and on_step(progress, images) are called as training goes.

    Where `torch.distributed` is initialised, every process of the group calls this with the same arguments:
    each trains on its part of every batch of `batch_size` images and ends with the same weights. Process 0
    alone writes the checkpoint and calls on_epoch and on_step.

    Raises SightlineError if the model does not fit the data, if the loss is not finite (with the step
    and a hint), or if `keep="best"` or `patience` is asked for without a validation split.
    """
    if validation == 0 and (keep == "best" or patience):
        raise SightlineError(
            f"keep={keep!r}, patience={patience} choose by a validation split, and validation is 0; "
            "set validation=0.1, or keep='last' and no patience"
        )
    place = choose_device(device)
    layout = choose_memory_format(memory_format)
    check_outputs(model, data, place)
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    kept, held = hold_out(data.train, validation, seed)
    train = data.train if held is None else data.train.take(kept)
    batches = training_batches(
        train, data, batch_size=batch_size, augmentation=augmentation, seed=seed, device=place,
        shard=(processes.rank(), processes.size()),
    )  # fmt: skip
    loop = Loop(
        model=model,
        optimizer=(optimizer or sgd())(model),
        batches=batches,
        epochs=epochs,
        schedule=schedule or one_cycle(0.1),
        momentum=momentum,
        precision=processes.agreed(choose_precision(precision, place)),
        memory_format=layout,
        label_smoothing=label_smoothing,
        l1=l1,
        device=place,
        monitor=Monitor(data, held, keep=keep, patience=patience),
        recorder=Recorder(len(data.train), kept, device=place),
        average=(average or none())(model),
        mix=mix,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        on_step=on_step,
    )
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), freezing(model, freeze or {}) as loop.freeze:
        torch.manual_seed(seed)
        if resume and checkpoint is not None and processes.agreed(checkpoint.exists()):
            loop.restore(checkpoint)
        while not loop.finished:
            loop.run_epoch()
            if processes.leads():
                on_epoch(loop.history, epochs)
    return loop.conclude()
