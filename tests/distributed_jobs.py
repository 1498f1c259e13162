"""What two processes do together for `test_distributed.py`; each writes what it has at the end.

Run as `python distributed_jobs.py FOLDER` in the environment of each process. The functions that do not
need a second process serve the test as well, to do the same in one.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline import distributed
from sightline.data import Augmentation, Dataset, Split
from sightline.errors import SightlineError
from sightline.models import Normalize
from sightline.predictions.inference import predict_shared
from sightline.training import (
    Callback,
    Checkpoint,
    Execution,
    History,
    KeepBest,
    Lookahead,
    Objective,
    constant,
    fit,
    one_cycle,
    sgd,
)

OPTIONS: dict[str, Any] = {
    "epochs": 3, "batch_size": 16, "schedule": one_cycle(0.3), "objective": Objective(0.1, 1e-4),
    "optimizer": sgd(momentum=0.8, weight_decay=0.01), "seed": 4, "execution": Execution("float32"),
    "device": "cpu", "verbose": False, "validation": 0.2,
    "augmentation": Augmentation(crop_padding=1, flip="random", cutout_size=2, cutout_p=0.5),
}  # fmt: skip
LOOKAHEAD: dict[str, Any] = {"every": 3, "decay": 0.8, "power": 1.0}
CUT_AT = 6  # the step before which the checkpoint is copied: 49 images make 4 steps, so in the second epoch


def make_data(train: int = 61, test: int = 31) -> Dataset:
    """Three classes that differ in the mean of a channel; 49 of 61 are left to train on."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = np.arange(count) % 3
        images = generator.integers(0, 160, (count, 8, 8, 3))
        images[np.arange(count), :, :, labels] += 60
        return Split(images.astype(np.uint8), labels)

    return Dataset("three", ("red", "green", "blue"), split(train), split(test))


def make_model(data: Dataset, *, seed: int = 0, norm: bool = False, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            Normalize(data.mean.tolist(), data.std.tolist()),
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU(),
            nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip


def trained(folder: Path, name: str, *, resume: bool = False, **options: Any) -> tuple[nn.Module, History]:
    """Train the model without BatchNorm, and keep a copy of its checkpoint of step CUT_AT."""
    data, checkpoint = make_data(), folder / f"{name}.pt"
    model = make_model(data, seed=distributed.rank())  # process 0's weights are to win

    class Copy(Callback):
        def on_step_end(self, trainer) -> None:
            if trainer.progress.step == CUT_AT and distributed.leads():
                shutil.copy(checkpoint, folder / f"{name}-cut.pt")

    callbacks = [Copy(), KeepBest(), Checkpoint(checkpoint, seconds=0.0, resume=resume)]
    return model, fit(model, data, **{**OPTIONS, **options}, callbacks=callbacks)


class Steps(Callback):
    """Notes each step and how many images it had, in process 0."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_step_end(self, trainer) -> None:
        if distributed.leads():
            self.seen.append((trainer.progress.step, trainer.images))


def message(work) -> str:
    try:
        work()
    except (SightlineError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def fail_in(number: int, error: Exception) -> Any:
    def work() -> int:
        if distributed.rank() == number:
            raise error
        return distributed.rank()

    return work


def main(folder: Path) -> None:
    data = make_data()
    steps = Steps()
    model, history = trained(folder, "two")
    resumed, resumed_history = trained(folder, "one-cut", resume=True)
    options = {**OPTIONS, "objective": Objective(0.1)}
    normed = make_model(data, norm=True)
    fit(normed, data, **options, callbacks=[steps])
    averaged = make_model(data, norm=True)
    fit(averaged, data, **options, callbacks=[Lookahead(**LOOKAHEAD)])
    dropped = make_model(data, dropout=0.5)
    cut = {**options, "schedule": constant(0.1)}
    path = folder / "dropped.pt"
    fit(dropped, data, **cut | {"epochs": 1}, callbacks=[Checkpoint(path)])
    fit(dropped, data, **cut, callbacks=[Checkpoint(path, resume=True)])
    whole = make_model(data, dropout=0.5)
    fit(whole, data, **cut)
    tables = [
        predict_shared(model.eval(), data.test.take(np.arange(count)), class_names=data.class_names)
        for count in (31, 1)
    ]
    state = {
        "model": model.state_dict(), "resumed": resumed.state_dict(), "normed": normed.state_dict(),
        "averaged": averaged.state_dict(),
        "dropped": dropped.state_dict(), "whole": whole.state_dict(),
        "epochs": history.epochs, "steps": history.steps, "kept": history.kept,
        "margin": torch.from_numpy(history.dynamics.margin),
        "probability": torch.from_numpy(history.dynamics.probability),
        "resumed_margin": torch.from_numpy(resumed_history.dynamics.margin),
        "resumed_probability": torch.from_numpy(resumed_history.dynamics.probability),
        "resumed_epochs": resumed_history.epochs, "resumed_steps": resumed_history.steps, "seen": steps.seen,
        "logits": [torch.from_numpy(table.logits) for table in tables],
        "messages": [
            message(lambda: distributed.leader_does(fail_in(0, SightlineError("no such recipe")))),
            message(lambda: distributed.leader_does(fail_in(0, ValueError("two\nlines")))),
            message(lambda: distributed.all_do(fail_in(1, SightlineError("no such picture")))),
        ],
        "ranks": distributed.all_do(distributed.rank), "agreed": distributed.agreed(7 + distributed.rank()),
        "order": distributed.machine_first(distributed.rank),
        "total": distributed.total(torch.tensor([1 + distributed.rank()])),
    }  # fmt: skip
    torch.save(state, folder / f"rank{distributed.rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.joined():
        main(Path(sys.argv[1]))
