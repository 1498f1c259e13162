"""The training loop.

    model = create_model("resnet18", data)
    history = fit(model, data, epochs=20, batch_size=512, schedule=one_cycle(0.4))

Everything random is a function of (seed, epoch), so a loop that was killed goes on from its checkpoint
to the same weights, on a CPU bit for bit.

The state of a training run, one epoch of it, and what it saves.

The state from which training goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from sightline import distributed
from sightline.data import Augmentation, Dataset, ResidentBatches, StreamedBatches
from sightline.distributed import average_statistics, fill_gaps, replicate, reseed, total_losses
from sightline.errors import SightlineError
from sightline.files import write_atomic
from sightline.models import choose_device, choose_memory_format, choose_precision, evaluating
from sightline.training.callbacks import (
    Average,
    AverageFactory,
    Mix,
    Monitor,
    Recorder,
    hold_out,
    mix_generator,
    none,
)
from sightline.training.history import History, Row, describe_epoch
from sightline.training.optimizers import OptimizerFactory, set_rates, sgd
from sightline.training.schedules import Progress, Schedule, one_cycle
from sightline.training.train_step import check_outputs, freezing, train_step, training_batches

if TYPE_CHECKING:
    import albumentations


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    packed = io.BytesIO()  # torch turns a full disk into an error of its own when it writes the file itself
    torch.save(state, packed)
    write_atomic(path, lambda file: file.write(packed.getbuffer()))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing in the file can run (`weights_only=True`).

    Raises SightlineError if the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SightlineError(f"{path} is not there; start the run anew") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SightlineError(f"{path} is damaged ({first}); delete it and start the run anew") from None


_CHECK_EVERY = 50  # steps between looks at the losses on an accelerator, where a look waits for the device


@dataclass
class Loop:
    """Everything that a step needs and a checkpoint keeps. `fit` makes one and runs it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: ResidentBatches | StreamedBatches
    epochs: int
    schedule: Schedule
    momentum: Schedule | None
    precision: str
    memory_format: torch.memory_format
    label_smoothing: float
    l1: float
    device: torch.device
    monitor: Monitor
    recorder: Recorder
    average: Average | None
    mix: Mix | None
    seed: int
    checkpoint: Path | None
    checkpoint_seconds: float
    on_step: Callable[[Progress, int], None] | None
    freeze: Callable[[int], None] = lambda epoch: None  # makes ready for an epoch
    history: History = field(default_factory=History)
    position: int = 0  # steps done in the current epoch
    seconds: float = 0.0  # spent in the current epoch before it was interrupted

    def __post_init__(self) -> None:
        self.replica = self.model  # what a step calls
        self._clear()

    def _clear(self) -> None:
        self.position, self.seconds = 0, 0.0
        self.losses = torch.zeros(len(self.batches), device=self.device)  # mean of each batch
        self.sizes = torch.zeros(len(self.batches))
        self.hits = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history.epochs)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        return self.epoch >= self.epochs or self.monitor.gives_up(self.epoch)

    def progress(self, position: int) -> Progress:
        """Return the progress at step `position` of the current epoch."""
        watched = "validation_loss" if self.monitor.held is not None else "train_loss"
        losses = [row[watched] for row in self.history.epochs]
        return Progress(self.epoch * len(self.batches) + position, len(self.batches), self.epochs, losses)

    def run_epoch(self) -> None:
        """Train from the current position to the end of the epoch, measure, add a row to the history."""
        self.model.train()
        self.freeze(self.epoch)
        self.replica = replicate(self.model, self.device)
        started = saved = time.perf_counter()
        # Closed at once if a step fails: workers may stand behind it.
        with contextlib.closing(self.batches.epoch(self.epoch, start=self.position)) as batches:
            for batch in batches:
                logits = self._step(batch.images, batch.labels)
                if self.batches.weight(self.position - 1):
                    self.recorder.note(batch.indices, batch.labels, logits)
                now = time.perf_counter()
                if self.position < len(self.batches) and self._save_is_due(now - saved):
                    self.save(self.seconds + now - started)
                    saved = now
        self._check_losses(len(self.batches) - 1)
        self._close_epoch(started)
        self.save(0.0)

    def _save_is_due(self, seconds: float) -> bool:
        # Clocks differ, and all processes have to save at the same step: process 0 says when.
        if self.checkpoint is None:
            return False
        if distributed.size() > 1 and self.device.type != "cpu" and self.position % _CHECK_EVERY:
            return False
        return distributed.agreed(seconds > self.checkpoint_seconds)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        progress, weight = self.progress(self.position), self.batches.weight(self.position)
        reseed(self.seed, self.epoch, self.position)
        set_rates(self.optimizer, self.schedule(progress), self.momentum(progress) if self.momentum else None)
        images = images.contiguous(memory_format=self.memory_format)
        mixed = None
        if self.mix is not None:
            mixed = self.mix(images, mix_generator(self.seed, self.epoch, self.position))
            images = mixed.images
        # A process without an image of its own takes part with weight 0, and leaves the statistics alone.
        with contextlib.nullcontext() if weight else evaluating(self.model):
            loss, logits = train_step(
                self.replica,
                self.optimizer,
                images,
                labels,
                precision=self.precision,
                label_smoothing=self.label_smoothing,
                l1=self.l1,
                mixed=mixed,
                weight=weight,
            )
        self.losses[self.position] = loss
        self.sizes[self.position] = len(labels) if weight else 0
        self.hits += (logits.argmax(1) == labels).sum() if weight else 0
        if self.average is not None:
            self.average.update(self.model, progress.step + 1, progress.steps)
        if self.device.type == "cpu" or self.position % _CHECK_EVERY == 0:
            self._check_losses(self.position)
        self.position += 1
        if self.on_step is not None and distributed.leads():
            self.on_step(progress, round(len(labels) * distributed.size() / weight))
        return logits

    def _check_losses(self, position: int) -> None:
        bad = (~self.losses[: position + 1].isfinite()).nonzero()
        if len(bad):
            progress = self.progress(int(bad[0]))
            raise SightlineError(
                f"the loss is {float(self.losses[bad[0]]):g} at step {progress.step + 1} "
                f"(epoch {progress.epoch + 1}, learning rate {self.schedule(progress):.3g}); "
                "lower the learning rate (find-lr suggests one) or use precision float32"
            )

    def _close_epoch(self, started: float) -> None:
        trained = self.seconds + time.perf_counter() - started
        self.replica = self.model
        losses, sizes, hits = self._put_together()
        with self._shown():
            found = self.monitor.measure(self.model, self.precision)
        losses, images = losses.cpu(), int(sizes.sum())
        rates = [self.schedule(self.progress(i)) for i in range(len(self.batches))]
        first = self.epoch * len(self.batches) + 1
        row: Row = {
            "epoch": self.epoch + 1,
            "lr": rates[-1],
            "train_loss": float((losses.double() * sizes).sum() / images),
            "train_accuracy": int(hits) / images,
            **found,
            "seconds": self.seconds + time.perf_counter() - started,
            "images_per_second": images / trained,
        }
        self.history.steps.extend(
            {"step": first + i, "epoch": self.epoch + 1, "lr": rate, "loss": float(loss)}
            for i, (rate, loss) in enumerate(zip(rates, losses, strict=True))
        )
        with self._shown():
            self.monitor.note(row, self.model)
        self.history.epochs.append(row)
        self.recorder.close_epoch()
        self.history = dataclasses.replace(self.history, dynamics=self.recorder.dynamics())
        self._clear()

    def _shown(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.average is None else self.average.shown(self.model)

    def _put_together(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give model and recorder what all processes have; return their losses, sizes and hits as one's."""
        average_statistics(self.model.named_buffers())
        if self.average is not None:
            average_statistics(self.average.slow.items())
        fill_gaps(self.recorder.current)
        return total_losses(self.losses, self.sizes, self.hits)

    def save(self, seconds: float) -> None:
        """Write the checkpoint, if one is wanted; with several processes, process 0 does, for all."""
        if self.checkpoint is None:
            return
        losses, sizes, hits = self._put_together()
        if not distributed.leads():
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs": self.history.epochs,
            "steps": self.history.steps,
            "position": self.position,
            "seconds": seconds,
            "losses": losses,
            "sizes": sizes,
            "hits": hits,
            "dynamics": self.recorder.state(),
            "best": self.monitor.best,
            "average": None if self.average is None else self.average.slow,
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        save_checkpoint(self.checkpoint, state)

    def restore(self, path: Path) -> None:
        """Go back to what :meth:`save` wrote."""
        state = distributed.leader_does(lambda: load_checkpoint(path))
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load(state["average"])
            self.recorder.restore(state["dynamics"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise SightlineError(f"{path} belongs to another recipe ({first}); start the run anew") from None
        self.history = History(state["epochs"], state["steps"], dynamics=self.recorder.dynamics())
        self.position, self.seconds = state["position"], state["seconds"]
        self.losses = state["losses"].to(self.device)
        self.hits, self.sizes = state["hits"].to(self.device), state["sizes"]
        if not distributed.leads():  # what was trained on so far is counted once
            self.hits, self.sizes = torch.zeros_like(self.hits), torch.zeros_like(self.sizes)
        self.monitor.best = state["best"]
        torch.set_rng_state(state["rng"])
        if state["device_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], self.device)

    def conclude(self) -> History:
        """Give the model the weights that are to be kept and return the history."""
        kept = self.epoch
        if self.average is not None:
            self.average.give(self.model)
        if self.monitor.keep == "best":
            self.model.load_state_dict(self.monitor.best["weights"])
            kept = self.monitor.best["epoch"]
        return dataclasses.replace(self.history, kept=kept)


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
        shard=(distributed.rank(), distributed.size()),
    )  # fmt: skip
    loop = Loop(
        model=model,
        optimizer=(optimizer or sgd())(model),
        batches=batches,
        epochs=epochs,
        schedule=schedule or one_cycle(0.1),
        momentum=momentum,
        precision=distributed.agreed(choose_precision(precision, place)),
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
        if resume and checkpoint is not None and distributed.agreed(checkpoint.exists()):
            loop.restore(checkpoint)
        while not loop.finished:
            loop.run_epoch()
            if distributed.leads():
                on_epoch(loop.history, epochs)
    return loop.conclude()
