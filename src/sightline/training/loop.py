"""The state of a training run, one epoch of it, and what it saves."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.data import Dataset, ResidentBatches, Split, StreamedBatches
from sightline.data.splits import stratified_split
from sightline.errors import SightlineError
from sightline.predictions import predict
from sightline.training.checkpoint import load_checkpoint, save_checkpoint
from sightline.training.history import History, Row
from sightline.training.optimizer import set_rates
from sightline.training.schedule import Progress, Schedule
from sightline.training.update import train_step

_CHECK_EVERY = 50  # steps between looks at the losses on an accelerator, where a look waits for the device


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split | None]:
    """Return the rest and a part of `share`, drawn by seed with the same share of every class."""
    if share == 0:
        return split, None
    kept, held = stratified_split(split.labels, test_fraction=share, seed=seed)
    if not len(held):
        raise SightlineError(
            f"validation={share} of {len(split)} training images leaves no image to validate on"
        )
    return split.take(kept), split.take(held)


@dataclass
class Monitor:
    """Watches a model at the end of each epoch; chooses by the validation split alone."""

    data: Dataset
    held: Split | None
    keep: str
    patience: int | None
    best: dict[str, Any] = field(default_factory=dict)

    def measure(self, model: nn.Module, precision: str) -> Row:
        """Return validation_loss, validation_accuracy (if there is a split), test_loss, test_accuracy."""
        row: Row = {}
        for name, split in (("validation", self.held), ("test", self.data.test)):
            if split is not None:
                found = predict(model, split, class_names=self.data.class_names, precision=precision)
                row[f"{name}_loss"] = float(found.loss.mean())
                row[f"{name}_accuracy"] = float(found.correct.mean())
        return row

    def note(self, row: Row, model: nn.Module) -> None:
        """Remember the epoch of `row`, with its weights if they are to be kept, if it is the best so far."""
        if self.held is not None and row["validation_loss"] < self.best.get("loss", float("inf")):
            weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            self.best = {"loss": row["validation_loss"], "epoch": row["epoch"]}
            self.best |= {"weights": weights} if self.keep == "best" else {}

    def gives_up(self, epoch: int) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        return bool(self.patience) and epoch - self.best.get("epoch", epoch) >= self.patience


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
    label_smoothing: float
    l1: float
    device: torch.device
    monitor: Monitor
    checkpoint: Path | None
    checkpoint_seconds: float
    on_step: Callable[[Progress, int], None] | None
    history: History = field(default_factory=History)
    position: int = 0  # steps done in the current epoch
    seconds: float = 0.0  # spent in the current epoch before it was interrupted

    def __post_init__(self) -> None:
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
        started = saved = time.perf_counter()
        # Closed at once if a step fails: workers may stand behind it.
        with contextlib.closing(self.batches.epoch(self.epoch, start=self.position)) as batches:
            for batch in batches:
                self._step(batch.images, batch.labels)
                now = time.perf_counter()
                if now - saved > self.checkpoint_seconds and self.position < len(self.batches):
                    self.save(self.seconds + now - started)
                    saved = now
        self._check_losses(len(self.batches) - 1)
        self._close_epoch(started)
        self.save(0.0)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        progress = self.progress(self.position)
        set_rates(self.optimizer, self.schedule(progress), self.momentum(progress) if self.momentum else None)
        loss, hits = train_step(
            self.model,
            self.optimizer,
            images,
            labels,
            precision=self.precision,
            label_smoothing=self.label_smoothing,
            l1=self.l1,
        )
        self.losses[self.position] = loss
        self.sizes[self.position] = len(labels)
        self.hits += hits
        if self.device.type == "cpu" or self.position % _CHECK_EVERY == 0:
            self._check_losses(self.position)
        self.position += 1
        if self.on_step is not None:
            self.on_step(progress, len(labels))

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
        found = self.monitor.measure(self.model, self.precision)
        losses, images = self.losses.cpu(), int(self.sizes.sum())
        rates = [self.schedule(self.progress(i)) for i in range(len(self.batches))]
        first = self.epoch * len(self.batches) + 1
        row: Row = {
            "epoch": self.epoch + 1,
            "lr": rates[-1],
            "train_loss": float((losses.double() * self.sizes).sum() / images),
            "train_accuracy": int(self.hits) / images,
            **found,
            "seconds": self.seconds + time.perf_counter() - started,
            "images_per_second": images / trained,
        }
        self.history.steps.extend(
            {"step": first + i, "epoch": self.epoch + 1, "lr": rate, "loss": float(loss)}
            for i, (rate, loss) in enumerate(zip(rates, losses, strict=True))
        )
        self.monitor.note(row, self.model)
        self.history.epochs.append(row)
        self._clear()

    def save(self, seconds: float) -> None:
        """Write the checkpoint, if one is wanted."""
        if self.checkpoint is None:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs": self.history.epochs,
            "steps": self.history.steps,
            "position": self.position,
            "seconds": seconds,
            "losses": self.losses,
            "sizes": self.sizes,
            "hits": self.hits,
            "best": self.monitor.best,
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        save_checkpoint(self.checkpoint, state)

    def restore(self, path: Path) -> None:
        """Go back to what :meth:`save` wrote."""
        state = load_checkpoint(path)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise SightlineError(f"{path} belongs to another recipe ({first}); start the run anew") from None
        self.history = History(state["epochs"], state["steps"])
        self.position, self.seconds = state["position"], state["seconds"]
        self.losses = state["losses"].to(self.device)
        self.hits, self.sizes = state["hits"].to(self.device), state["sizes"]
        self.monitor.best = state["best"]
        torch.set_rng_state(state["rng"])
        if state["device_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], self.device)

    def conclude(self) -> History:
        """Give the model the weights that are to be kept and return the history."""
        kept = self.epoch
        if self.monitor.keep == "best":
            self.model.load_state_dict(self.monitor.best["weights"])
            kept = self.monitor.best["epoch"]
        return dataclasses.replace(self.history, kept=kept)
