"""Features: the input of the head, in data order, with the model left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data import Split
from sightline.errors import SightlineError
from sightline.models import MODELS, to_float
from sightline.predictions import predict, predict_features


class Declared(nn.Module):
    """The head is declared first and reads a view; a hidden linear layer runs before it."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.head = nn.Linear(5, classes)
        self.conv = nn.Conv2d(3, 6, 3)
        self.hidden = nn.Linear(6, 5)
        self.drop = nn.Dropout(0.9)

    def embed(self, x):
        return torch.tanh(self.hidden(self.conv(x).flatten(2).mean(2)))

    def forward(self, x):
        return 0.25 * self.head(self.drop(self.embed(x)))


@pytest.fixture
def split() -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
    return Split(images, generator.integers(0, 3, 23))


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_features_are_what_the_head_reads_and_a_batch_equals_its_images(split):
    torch.manual_seed(0)
    model = Declared()
    with torch.no_grad():
        expected = model.embed(to_float(split.images)).numpy()
    for batch_size in (1, 7, 500):
        predictions, features = predict_features(model, split, batch_size=batch_size)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=1e-6)
        np.testing.assert_array_equal(predictions.logits, predict(model, split, batch_size=batch_size).logits)
    assert model.training
    assert hooks_of(model) == 0


def test_the_heads_of_the_projects_own_networks_reproduce_the_logits(split):
    for name, scale, head in (("speednet", 1 / 9, "fc"), ("resnet18", 1, "fc"), ("custom_resnet", 1, "fc")):
        model = MODELS[name](3)
        images = Split(np.kron(split.images[:2], np.ones((1, 4, 4, 1), np.uint8)), split.labels[:2])
        predictions, features = predict_features(model, images)
        layer = getattr(model, head)
        with torch.no_grad():
            expected = layer(torch.from_numpy(features)).numpy() * scale
        np.testing.assert_allclose(predictions.logits, expected, atol=1e-4)


def test_the_hooks_go_also_after_an_exception(split):
    class Breaks(Declared):
        def forward(self, x):
            super().forward(x)
            raise ZeroDivisionError

    model = Breaks()
    with pytest.raises(ZeroDivisionError):
        predict_features(model, split)
    assert hooks_of(model) == 0


def test_a_model_without_a_linear_head_is_told_so(split):
    convolution = nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten())
    with pytest.raises(SightlineError, match="no linear layer ran in Sequential"):
        predict_features(convolution, split)
    inside = nn.Sequential(nn.Flatten(2), nn.Linear(64, 1), nn.Flatten())
    with pytest.raises(SightlineError, match=r"'1' takes \(23, 3, 64\) and has 1 outputs; .* one per class"):
        predict_features(inside, split)
