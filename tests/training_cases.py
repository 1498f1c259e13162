"""A small data set, a small network and a death, for the tests of training."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from sightline.data import Augmentation, Dataset, Split
from sightline.models import create_model

QUIET = {"on_epoch": lambda history, epochs: None, "precision": "float32", "device": "cpu"}
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


def die_after(steps: int):
    """Return an `on_step` that lets so many steps be and ends the next."""
    done = itertools.count(1)

    def die(progress, images) -> None:
        if next(done) > steps:
            raise Killed

    return die
