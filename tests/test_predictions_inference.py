"""Predictions in the order of the data; test-time augmentation: its pixels, its weights, its mean."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data import Split
from sightline.errors import InputError, SightlineError
from sightline.models import to_float
from sightline.predictions import TTA, Predictions, predict, predict_tta


def make_split(count: int = 7, size: int = 6) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split(images, np.arange(count) % 3)


def make_model(size: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 8), nn.GELU(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", list(TTA))
def test_weights_sum_to_one_and_the_images_themselves_come_first(name):
    images = torch.rand(2, 3, 5, 4)
    pairs = list(TTA[name](images))
    assert sum(weight for weight, _ in pairs) == 1
    assert torch.equal(pairs[0][1], images)
    assert {version.shape for _, version in pairs} == {images.shape}


def test_the_six_versions_take_their_pixels_by_this_rule():
    size = 5
    images = torch.rand(1, 3, size, size)

    def inside(at: int) -> int:  # by reflection, the edge not repeated
        return -at if at < 0 else 2 * (size - 1) - at if at >= size else at

    expected = []
    for move, weight in ((0, 0.25), (-1, 0.125), (1, 0.125)):
        moved = torch.empty_like(images)
        for y in range(size):
            for x in range(size):
                moved[0, :, y, x] = images[0, :, inside(y + move), inside(x + move)]
        mirrored = torch.stack([moved[..., size - 1 - x] for x in range(size)], dim=-1)
        expected += [(weight, moved), (weight, mirrored)]
    found = list(TTA["mirror_shifts"](images))
    assert len(found) == 6
    for (weight, version), (known_weight, known) in zip(found, expected, strict=True):
        assert weight == known_weight
        assert torch.equal(version, known)


def test_the_mean_is_that_of_the_logits_image_by_image():
    split, model = make_split(), make_model()
    found = predict_tta(model, split, tta="mirror_shifts", batch_size=3)
    assert np.array_equal(found.plain.logits, predict(model, split, batch_size=3).logits)
    assert found.probabilities.shape == (6, 7, 3)
    for n in range(len(split)):
        image = to_float(split.images[n : n + 1])
        with torch.no_grad():
            logits = [(weight, model(version)[0]) for weight, version in TTA["mirror_shifts"](image)]
        mean = sum(weight * each for weight, each in logits)
        np.testing.assert_allclose(found.mean.logits[n], mean, rtol=1e-5, atol=1e-6)
        for number, (_, each) in enumerate(logits):
            np.testing.assert_allclose(found.probabilities[number, n], each.softmax(0), rtol=1e-5)
    assert np.array_equal(found.mean.labels, split.labels)


def test_a_model_blind_to_mirroring_predicts_the_same_with_mirror():
    split = make_split()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    found = predict_tta(model, split, tta="mirror")
    np.testing.assert_allclose(found.mean.logits, found.plain.logits, rtol=1e-5, atol=1e-6)


def test_an_augmentation_can_be_a_function_and_an_unknown_name_is_one_line():
    def upside_down(images):
        yield 0.5, images
        yield 0.5, images.flip(-2)

    split, model = make_split(), make_model()
    turned = Split(np.ascontiguousarray(split.images[:, ::-1]), split.labels)
    found = predict_tta(model, split, tta=upside_down)
    assert np.array_equal(found.tables[1].logits, predict(model, turned).logits)
    with pytest.raises(SightlineError, match="tta 'miror' is not known; did you mean 'mirror'"):
        predict_tta(model, split, tta="miror")


class Mean(nn.Module):
    """Logits are the channel means of the picture; dropout shows whether evaluation mode is on."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.9)
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x):
        return self.head(self.drop(x.mean((2, 3))))


def split_of(count: int) -> Split:
    generator = np.random.default_rng(0)
    return Split(
        generator.integers(0, 256, (count, 5, 4, 3), dtype=np.uint8), generator.integers(0, 3, count)
    )


def test_predict_keeps_the_order_whatever_the_batch_and_leaves_the_modes_alone():
    model, split = Mean(), split_of(23)
    model.head.eval()
    expected = split.images.reshape(23, -1, 3).mean(1) / 255
    for batch_size in (1, 7, 500):
        found = predict(model, split, batch_size=batch_size)
        np.testing.assert_allclose(found.logits, expected, atol=1e-6)
    assert (model.training, model.drop.training, model.head.training) == (True, True, False)


def test_predict_restores_the_modes_after_an_exception():
    class Breaks(Mean):
        def forward(self, x):
            raise ZeroDivisionError

    model = Breaks()
    with pytest.raises(ZeroDivisionError):
        predict(model, split_of(2))
    assert model.training
    assert model.drop.training


def test_predict_says_what_does_not_fit():
    with pytest.raises(
        SightlineError, match="3 outputs and the data 2 classes; create the model with num_classes=2"
    ):
        predict(Mean(), split_of(4), class_names=("a", "b"))
    with pytest.raises(
        SightlineError, match=r"returned \(2, 3, 5, 4\); predict needs a tensor of logits \(2, C\)"
    ):
        predict(nn.Identity(), split_of(2))
    broken = Mean()
    broken.head.weight.data.fill_(float("nan"))
    with pytest.raises(SightlineError, match="not finite for 4 of 4 images"):
        predict(broken, split_of(4))


class _Returns(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, images: torch.Tensor):
        return self.wrap(images.mean(3)[:, :, :3].sum(1))


def test_logits_in_a_table_or_an_object_are_found():
    split = Split(np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8), np.arange(5) % 3)
    plain = predict(_Returns(lambda x: x), split)
    table = predict(_Returns(lambda x: {"loss": None, "logits": x}), split)
    thing = predict(_Returns(lambda x: types.SimpleNamespace(logits=x)), split)
    np.testing.assert_array_equal(plain.logits, table.logits)
    np.testing.assert_array_equal(plain.logits, thing.logits)


def test_rows_of_softmax_are_not_taken_for_logits():
    split = Split(np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8), np.arange(5) % 3)
    with pytest.raises(InputError, match="from_probabilities"):
        predict(_Returns(lambda x: x.softmax(1)), split)
    rows = np.array([[0.63, 0.37], [0.2, 0.8]])
    kept = Predictions.from_probabilities(rows, np.array([0, 1]), ("a", "b"))
    np.testing.assert_allclose(kept.probabilities, rows)
    with pytest.raises(InputError, match="sums to"):
        Predictions.from_probabilities(rows * 2, np.array([0, 1]), ("a", "b"))
