"""The state of a training run, one epoch of it, and what it saves."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from sightline.data import ResidentBatches, StreamedBatches
from sightline.errors import SightlineError
from sightline.models import evaluating, processes
from sightline.training.averaging import Average
from sightline.training.checkpoint import load_checkpoint, save_checkpoint
from sightline.training.distributed import average_statistics, fill_gaps, replicate, reseed, total_losses
from sightline.training.dynamics import Recorder
from sightline.training.history import History, Row
from sightline.training.mixing import Mix, mix_generator
from sightline.training.monitor import Monitor
from sightline.training.optimizer import set_rates
from sightline.training.schedule import Progress, Schedule
from sightline.training.update import train_step

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
        if processes.size() > 1 and self.device.type != "cpu" and self.position % _CHECK_EVERY:
            return False
        return processes.agreed(seconds > self.checkpoint_seconds)

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
        if self.on_step is not None and processes.leads():
            self.on_step(progress, round(len(labels) * processes.size() / weight))
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
        if not processes.leads():
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
        state = processes.leader_does(lambda: load_checkpoint(path))
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
        if not processes.leads():  # what was trained on so far is counted once
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
