"""Views of test images: where each pixel comes from, their weights, and predictions by their mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data import Split
from sightline.errors import SightlineError
from sightline.models import to_float
from sightline.predictions import VIEWS, predict, predict_views


def make_split(count: int = 7, size: int = 6) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split(images, np.arange(count) % 3)


def make_model(size: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 8), nn.GELU(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", list(VIEWS))
def test_weights_sum_to_one_and_the_images_themselves_come_first(name):
    images = torch.rand(2, 3, 5, 4)
    pairs = list(VIEWS[name](images))
    assert sum(weight for weight, _ in pairs) == 1
    assert torch.equal(pairs[0][1], images)
    assert {view.shape for _, view in pairs} == {images.shape}


def test_the_six_views_take_their_pixels_by_this_rule():
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
    found = list(VIEWS["mirror_shifts"](images))
    assert len(found) == 6
    for (weight, view), (known_weight, known) in zip(found, expected, strict=True):
        assert weight == known_weight
        assert torch.equal(view, known)


def test_the_mean_is_that_of_the_logits_image_by_image():
    split, model = make_split(), make_model()
    found = predict_views(model, split, views="mirror_shifts", batch_size=3)
    assert np.array_equal(found.plain.logits, predict(model, split, batch_size=3).logits)
    assert found.probabilities.shape == (6, 7, 3)
    for n in range(len(split)):
        image = to_float(split.images[n : n + 1])
        with torch.no_grad():
            logits = [(weight, model(view)[0]) for weight, view in VIEWS["mirror_shifts"](image)]
        mean = sum(weight * each for weight, each in logits)
        np.testing.assert_allclose(found.mean.logits[n], mean, rtol=1e-5, atol=1e-6)
        for view, (_, each) in enumerate(logits):
            np.testing.assert_allclose(found.probabilities[view, n], each.softmax(0), rtol=1e-5)
    assert np.array_equal(found.mean.labels, split.labels)


def test_a_model_blind_to_mirroring_predicts_the_same_with_mirror():
    split = make_split()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    found = predict_views(model, split, views="mirror")
    np.testing.assert_allclose(found.mean.logits, found.plain.logits, rtol=1e-5, atol=1e-6)


def test_views_can_be_a_function_and_an_unknown_name_is_one_line():
    def upside_down(images):
        yield 0.5, images
        yield 0.5, images.flip(-2)

    split, model = make_split(), make_model()
    turned = Split(np.ascontiguousarray(split.images[:, ::-1]), split.labels)
    found = predict_views(model, split, views=upside_down)
    assert np.array_equal(found.views[1].logits, predict(model, turned).logits)
    with pytest.raises(SightlineError, match=r"views 'miror' are not known; did you mean 'mirror'"):
        predict_views(model, split, views="miror")
