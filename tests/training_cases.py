"""A small data set, a small network and a death, for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from sightline.data import Augmentation, Dataset, Split
from sightline.models import create_model
from sightline.training import Callback, Checkpoint, Execution

QUIET = {"verbose": False, "execution": Execution("float32"), "device": "cpu"}
AUGMENTATION = Augmentation(crop_padding=1, flip="alternate")


def make_data(count: int = 48, size: int = 16) -> Dataset:
    """Three classes that differ in the mean of a channel."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = generator.integers(0, 160, (count, size, size, 3))
    images[np.arange(count), :, :, labels] += 60
    split = Split(images.astype(np.uint8), labels)
    return Dataset("three", ("red", "green", "blue"), split, split.take(np.arange(12)))


def make_model(data: Dataset) -> nn.Module:
    return create_model("speednet", data, seed=1, widths=[8, 8, 8])


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first, second) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class Killed(BaseException):
    """Stands for a process that ends without another word."""


class DieAfter(Callback):
    """Lets so many steps be and ends the next."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_begin(self, trainer) -> None:
        self.left = self.steps

    def on_step_end(self, trainer) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def at_every_step(folder: Path, *, resume: bool = False) -> Checkpoint:
    return Checkpoint(folder / "checkpoint.pt", seconds=0.0, resume=resume)
