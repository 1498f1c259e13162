"""The trainer: the state of one training and its loop.

    model = create_model("resnet18", data)
    history = fit(
        model, data, epochs=20, batch_size=512, schedule=one_cycle(0.4), validation=0.1,
        callbacks=[EMA(decay=0.99), KeepBest(), Checkpoint("checkpoint.pt", resume=True)],
    )

Everything random is a function of (seed, epoch), so a training that was killed goes on from its checkpoint
to the same weights, on a CPU bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from sightline import distributed, logs
from sightline.data import Dataset, OnDevice, ResidentBatches, Split, StreamedBatches
from sightline.data.dataset import stratified_split
from sightline.data.loaders import Batch
from sightline.distributed import average_statistics, replicate, reseed, total_losses
from sightline.errors import DivergedError, InputError, InputTypeError
from sightline.models import choose_device, choose_memory_format, choose_precision, evaluating
from sightline.predictions import measure
from sightline.predictions.inference import predict_shared
from sightline.training.callbacks import Callback, LogEpochs, RecordDynamics, WeightAverage
from sightline.training.checkpoint import Checkpoint
from sightline.training.execution import Execution, check_compiler
from sightline.training.history import History, Row
from sightline.training.optimizers import OptimizerFactory, build_optimizer, set_lr
from sightline.training.schedules import Progress, Schedule, one_cycle
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

_CHECK_EVERY = 50  # steps between looks at the losses on an accelerator, where a look waits for the device


@dataclass
class Trainer:
    """One training. `fit` makes it and runs it; its callbacks read it, and change what they have to.

    Attributes:
        model: The network that trains, in place.
        data: The whole data set.
        optimizer: Of the model's parameters.
        batches: The batches of an epoch; `len(batches)` is its steps.
        epochs: How many there are to be.
        schedule, momentum: Functions of the progress; momentum may be None.
        mix: Mixture of a batch's images, or None.
        objective: What is minimised.
        precision: Of the forward pass.
        memory_format: Of the images.
        device: Where the model is.
        seed: Of everything random.
        trained: (n,) int64, indices in the training split of the images that are trained on.
        held_out: The validation split, or None.
        callbacks: In the order in which they are called.
        history: Finished epochs and their steps.
        position: Steps done in the current epoch.
        batch, logits, loss, progress: Of the step that was done last: what was trained on (before mixing),
            (B, C) float32 before the weights changed, the plain mean cross-entropy as a tensor, and where in
            the training it was.
        weight: Factor of this process's mean loss in that step; 0 if it had no image of its own.
        average: The average of the weights that is measured and kept, or None.
        stop: Set it to end the training after this epoch.
        kept: The epoch that the final weights come from.
        parts: In how many a batch goes through the model.
        compiled: Whether a step runs compiled code; measuring between the epochs does not.
        still: Modules that stay in evaluation mode while the others train.
    """

    model: nn.Module
    data: Dataset
    optimizer: torch.optim.Optimizer
    batches: ResidentBatches | StreamedBatches
    epochs: int
    schedule: Schedule
    momentum: Schedule | None
    mix: Mix | None
    objective: Objective
    precision: str
    memory_format: torch.memory_format
    device: torch.device
    seed: int
    trained: np.ndarray
    held_out: Split | None
    callbacks: Sequence[Callback]
    history: History = field(default_factory=History)
    average: WeightAverage | None = None
    stop: bool = False
    kept: int | None = None
    parts: int = 1
    compiled: bool = False
    still: set[nn.Module] = field(default_factory=set)
    batch: Batch = field(init=False)
    logits: torch.Tensor = field(init=False)
    loss: torch.Tensor = field(init=False)
    progress: Progress = field(init=False)
    weight: float = field(init=False)

    def __post_init__(self) -> None:
        for one in self.callbacks:
            if not isinstance(one, Callback):
                raise InputTypeError(
                    f"callback {one!r} is a {type(one).__name__}; it has to be an object whose class extends "
                    "sightline.training.Callback"
                )
        self._recorder = RecordDynamics()
        # A checkpoint keeps what all others have done.
        last = [one for one in self.callbacks if isinstance(one, Checkpoint)]
        last += [one for one in self.callbacks if isinstance(one, LogEpochs)]
        self.callbacks = [self._recorder, *(one for one in self.callbacks if one not in last), *last]
        self._network: Any = self.model
        if self.compiled:
            check_compiler()
            self._network = torch.compile(self.model, dynamic=False)  # the last batch of an epoch is smaller
        self._replica = self.model  # what a step calls
        self._exit = contextlib.ExitStack()
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.position = 0
        self._seconds, self._since = 0.0, None  # spent in this epoch before, and when it went on
        self._losses = torch.zeros(len(self.batches), device=self.device)  # mean of each batch
        self._sizes = torch.zeros(len(self.batches))
        self._hits = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def epoch(self) -> int:
        """Finished epochs; also the number, from 0, of the one under way."""
        return len(self.history.epochs)

    @property
    def seconds(self) -> float:
        """Seconds spent in the epoch under way."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def images(self) -> int:
        """Images of the step that was done last, those of all processes together."""
        return self.batches.images(self.progress.step % len(self.batches))

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts the model has the weights that count: the average's, if there is one."""
        return contextlib.nullcontext() if self.average is None else self.average.shown(self.model)

    def finally_do(self, work: Callable[[], Any]) -> None:
        """Call `work` when the training ends, also if it ends with an error."""
        self._exit.callback(work)

    def run(self) -> History:
        """Train to the end and return the history; the global random state is left as it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        shown = logs.stage("training", total=self.epochs * len(self.batches))
        with shown as self._shown, self._exit, torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            self._call("on_train_begin")
            while self.epoch < self.epochs and not self.stop:
                self._run_epoch()
            if self.average is not None:
                self.average.give(self.model)
            self._call("on_train_end")
        return dataclasses.replace(self.history, kept=self.epoch if self.kept is None else self.kept)

    def _call(self, moment: str) -> None:
        for one in self.callbacks:
            getattr(one, moment)(self)

    def _run_epoch(self) -> None:
        """Train from the current position to the end of the epoch, measure, add a row to the history."""
        self.model.train()
        if self.position == 0:
            self._call("on_epoch_begin")
        for module in self.still:
            module.eval()
        self._replica = replicate(self._network, self.device)
        self._since = time.perf_counter()
        images, began = 0, time.perf_counter()
        # Closed at once if a step fails: workers may stand behind it.
        with contextlib.closing(self.batches.epoch(self.epoch, start=self.position)) as batches:
            for self.batch in batches:
                self._step(self.batch.images, self.batch.labels)
                self._call("on_step_end")
                images += self.images
                self._shown.done = self.progress.step + 1
                rate = images / max(time.perf_counter() - began, 1e-9)
                self._shown.note = f"epoch {self.epoch + 1}/{self.epochs}, {rate:.0f} images/s"
        self._check_losses(len(self.batches) - 1)
        self._measure()
        self._call("on_epoch_end")

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        progress, weight = self._progress(self.position), self.batches.weight(self.position)
        reseed(self.seed, self.epoch, self.position)
        set_lr(self.optimizer, self.schedule(progress), self.momentum(progress) if self.momentum else None)
        images = images.contiguous(memory_format=self.memory_format)  # (B, 3, H, W)
        mixed = None
        if self.mix is not None:
            mixed = self.mix(images, mix_generator(self.seed, self.epoch, self.position))
            images = mixed.images
        # A process without an image of its own takes part with weight 0, and leaves the statistics alone.
        with contextlib.nullcontext() if weight else evaluating(self.model):
            self.loss, self.logits = train_step(
                self._replica, self.optimizer, images, labels,
                precision=self.precision, objective=self.objective, mixed=mixed, weight=weight,
                parts=self.parts,
            )  # fmt: skip
        self._losses[self.position] = self.loss
        self._sizes[self.position] = len(labels) if weight else 0
        self._hits += (self.logits.argmax(1) == labels).sum() if weight else 0
        if self.device.type == "cpu" or self.position % _CHECK_EVERY == 0:
            self._check_losses(self.position)
        self.progress, self.weight = progress, weight
        self.position += 1

    def _progress(self, position: int) -> Progress:
        """Where the training is at step `position` of the current epoch."""
        watched = "validation_loss" if self.held_out is not None else "train_loss"
        losses = [row[watched] for row in self.history.epochs]
        return Progress(self.epoch * len(self.batches) + position, len(self.batches), self.epochs, losses)

    def _check_losses(self, position: int) -> None:
        bad = (~self._losses[: position + 1].isfinite()).nonzero()
        if len(bad):
            progress = self._progress(int(bad[0]))
            raise DivergedError(
                f"the loss is {float(self._losses[bad[0]]):g} at step {progress.step + 1} "
                f"(epoch {progress.epoch + 1}, learning rate {self.schedule(progress):.3g}); "
                "lower the learning rate (find-lr suggests one) or use precision float32"
            )

    def _measure(self) -> None:
        trained = self.seconds
        self._replica = self.model
        losses, sizes, hits = self._totals()
        with self.averaged():
            found = self._evaluate()
        losses, images = losses.cpu(), int(sizes.sum())
        lrs = [self.schedule(self._progress(i)) for i in range(len(self.batches))]
        first = self.epoch * len(self.batches) + 1
        row: Row = {
            "epoch": self.epoch + 1,
            "lr": lrs[-1],
            "train_loss": float((losses.double() * sizes).sum() / images),
            "train_accuracy": int(hits) / images,
            **found,
            "seconds": self.seconds,
            "images_per_second": images / trained,
        }
        self.history.steps.extend(
            {"step": first + i, "epoch": self.epoch + 1, "lr": lr, "loss": float(loss)}
            for i, (lr, loss) in enumerate(zip(lrs, losses, strict=True))
        )
        self.history.epochs.append(row)
        self._begin_epoch()

    def _evaluate(self) -> Row:
        """Return the cheap metrics of the validation split, if there is one, and of the test split."""
        row: Row = {}
        for name, split in (("validation", self.held_out), ("test", self.data.test)):
            if split is not None:
                names = self.data.class_names
                found = predict_shared(self.model, split, class_names=names, precision=self.precision)
                row[f"{name}_loss"] = float(found.loss.mean())
                row[f"{name}_accuracy"] = float(found.correct.mean())
                row[f"{name}_balanced_accuracy"] = measure(found, "balanced_accuracy")
                row[f"{name}_macro_f1"] = measure(found, "macro_f1")
        return row

    def _totals(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give the model the statistics of all processes; return their losses, sizes and hits as one's."""
        average_statistics(self.model.named_buffers())
        return total_losses(self._losses, self._sizes, self._hits)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` goes on from; to be called in every process, all return the same."""
        losses, sizes, hits = self._totals()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs": self.history.epochs,
            "steps": self.history.steps,
            "position": self.position,
            "seconds": self.seconds,
            "losses": losses,
            "sizes": sizes,
            "hits": hits,
            "stop": self.stop,
            "callbacks": {name: own for name, one in self._named_callbacks() if (own := one.state_dict())},
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned.

        Raises:
            KeyError: The state is of other callbacks.
            RuntimeError, ValueError: It is of another model or optimizer.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        kept = state["callbacks"]
        for name, one in self._named_callbacks():
            if name in kept:
                one.load_state_dict(kept.pop(name))
            elif one.state_dict():
                raise KeyError(f"it has no state of the callback {name}")
        if kept:
            raise KeyError(f"it has the state of a callback {min(kept)}, which is missing here")
        self.history = History(state["epochs"], state["steps"], dynamics=self._recorder.dynamics())
        self.position, self._seconds, self.stop = state["position"], state["seconds"], state["stop"]
        self._losses = state["losses"].to(self.device)
        self._hits, self._sizes = state["hits"].to(self.device), state["sizes"]
        if not distributed.leads():  # what was trained on so far is counted once
            self._hits, self._sizes = torch.zeros_like(self._hits), torch.zeros_like(self._sizes)
        torch.set_rng_state(state["rng"])
        if state["device_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], self.device)

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """Yield each callback with the name of its class, and a number from the second of a class on."""
        seen: Counter[str] = Counter()
        for one in self.callbacks:
            name = type(one).__qualname__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name} {seen[name]}"), one


def hold_out(split: Split, share: float, seed: int) -> tuple[np.ndarray, Split | None]:
    """Return the indices of the rest, and a part of `share`, drawn by seed with that share of each class."""
    if share == 0:
        return np.arange(len(split)), None
    if not 0 < share < 1:
        raise InputError(f"validation is {share}; it needs a share of the training images, from 0 to below 1")
    kept, held = stratified_split(split.labels, test_fraction=share, seed=seed, groups=split.groups)
    if not len(held):
        raise InputError(f"validation={share} of {len(split)} training images leaves no image to validate on")
    return kept, split.take(held)


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    parts: int = 1,
    sampler: Literal["shuffle", "balanced"] = "shuffle",
    optimizer: OptimizerFactory | None = None,
    schedule: Schedule | None = None,
    momentum: Schedule | None = None,
    augmentation: OnDevice | albumentations.Compose | None = None,
    mix: Mix | None = None,
    objective: Objective | Loss | None = None,
    validation: float = 0.0,
    callbacks: Sequence[Callback] = (),
    execution: Execution | None = None,
    device: str = "auto",
    seed: int = 0,
    verbose: bool = True,
) -> History:
    """Train `model` in place on `data.train` and return the history; test figures are taken, never used.

    Where `torch.distributed` is initialised, every process of the group calls this with the same arguments:
    each trains on its part of every batch of `batch_size` images and ends with the same weights. Process 0
    alone writes checkpoints and logs.

    Args:
        model: Returns one logit per class for images (B, 3, H, W) in [0, 1].
        data: The data set.
        epochs: How often each image is trained on.
        batch_size: Images per step, those of all processes together.
        parts: In how many a batch goes through the model, where the memory is small; see `train_step`.
        sampler: "shuffle" takes each image once an epoch; "balanced" draws as many, each class as often.
        optimizer: A function from a model to an optimizer; default `sgd()`.
        schedule: The learning rate, a function of :class:`Progress`; default `one_cycle(0.1)`.
        momentum: The momentum, likewise; default the optimizer's own.
        augmentation: An `Augmentation` or a `PhotoAugmentation` on the device, or any albumentations.Compose
            through workers.
        mix: Of a batch's images, `mixup()` or `cutmix()`; accuracy and loss in the history are then against
            each image's own label, the larger part.
        objective: What is minimised: an `Objective`, or a function (logits, labels) -> mean loss; default
            the cross-entropy.
        validation: Share of the training split that is held out, stratified and drawn by seed, to choose by:
            for `KeepBest`, `EarlyStopping` and the plateau schedule.
        callbacks: What else takes part: averages of the weights (`EMA`, `Lookahead`), `Freeze`, `KeepBest`,
            `EarlyStopping`, `Checkpoint`, or a `Callback` of your own. They are called in this order, a
            Checkpoint last.
        execution: Precision and memory format, which `measure_execution` finds, and whether to compile.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        seed: Of order, augmentation, mixing, dropout and the held-out images.
        verbose: Log a line for each epoch, and show it on stdout if nothing else listens to the log.

    Raises:
        InputError: The model does not fit the data, or a value is out of range.
        DivergedError: The loss is not finite; the message has the step and a hint.
    """
    torch_device = choose_device(device)
    execution = execution or Execution()
    layout = choose_memory_format(execution.memory_format)
    data.check_trainable()
    check_outputs(model, data, torch_device)
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    trained, held_out = hold_out(data.train, validation, seed)
    train = data.train if held_out is None else data.train.take(trained)
    batches = training_batches(
        train, data, batch_size=batch_size, augmentation=augmentation, seed=seed, device=torch_device,
        shard=(distributed.rank(), distributed.size()), balanced=sampler == "balanced",
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        data=data,
        optimizer=build_optimizer(optimizer, model),
        batches=batches,
        epochs=epochs,
        schedule=schedule or one_cycle(0.1),
        momentum=momentum,
        mix=mix,
        objective=objective if isinstance(objective, Objective) else Objective(loss=objective),
        precision=distributed.agreed(choose_precision(execution.precision, torch_device)),
        memory_format=layout,
        parts=parts,
        compiled=execution.compiled,
        device=torch_device,
        seed=seed,
        trained=trained,
        held_out=held_out,
        callbacks=[*callbacks, LogEpochs()] if verbose else callbacks,
    )
    with logs.shown(verbose):
        return trainer.run()
