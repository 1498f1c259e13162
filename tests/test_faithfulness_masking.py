"""Average drop and increase, infidelity: by hand and by slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import nonlinear, pictures, seeded

from sightline.faithfulness import average_drop, average_increase, class_probability, infidelity, mean, zero


def linear(weights: torch.Tensor):
    return lambda images, rows: (images * weights).sum(dim=(1, 2, 3))


def test_average_drop_and_increase_by_hand():
    # Pixels are worth 0.5, 0.3, 0.2 and -0.4: the image scores 0.6.
    worth = torch.tensor([0.5, 0.3, 0.2, -0.4]).view(1, 1, 2, 2)
    maps = np.array([[[2.0, 0], [0, 0]], [[1, 1], [1, -3]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]])
    images = torch.ones(4, 1, 2, 2)
    drop = average_drop(linear(worth), images, maps)
    assert drop.values == pytest.approx([0.1 / 0.6, 0, 1, 0], abs=1e-6)
    assert average_increase(linear(worth), images, maps).values.tolist() == [0, 1, 0, 0]
    assert (drop.fill, drop.higher_is_better) == ("zero", False)


def test_average_drop_equals_a_loop_under_another_fill_and_any_batch_size():
    model, images, classes = seeded(nonlinear), pictures(3), [1, 2, 0]
    maps = np.random.default_rng(0).random((3, 12, 12)) - 0.3
    found = average_drop(class_probability(model, classes), images, maps, fill=mean, batch_size=2)
    for i, image in enumerate(images):
        heat = torch.from_numpy(np.maximum(maps[i], 0) / maps[i].max()).float()
        dimmed = heat * image + (1 - heat) * image.mean((1, 2), keepdim=True)
        with torch.no_grad():
            full, part = model(torch.stack([image, dimmed])).softmax(1)[:, classes[i]].tolist()
        assert found.values[i] == pytest.approx(max(0, full - part) / full, abs=1e-5)


@pytest.mark.parametrize("fill", [zero, mean])
def test_infidelity_of_the_exact_contributions_of_a_linear_model_is_zero(fill):
    images = pictures(4, 16)
    weights = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gone = torch.ones(4, 16, 16, dtype=torch.bool)
    gradient_times_change = (weights * (images - fill(images, gone, images))).sum(dim=1)
    found = infidelity(linear(weights), images, gradient_times_change, fill=fill)
    assert found.values == pytest.approx(np.zeros(4), abs=1e-6)
    scaled = infidelity(linear(weights), images, 7 * gradient_times_change, fill=fill)
    assert scaled.values == pytest.approx(np.zeros(4), abs=1e-6)


def test_infidelity_of_a_map_that_points_the_wrong_way_is_that_of_a_map_of_zeros():
    images, weights = pictures(3, 16), torch.rand(1, 3, 16, 16)
    contributions = (weights * images).sum(dim=1)
    wrong = infidelity(linear(weights), images, -contributions, fill=zero)
    nothing = infidelity(linear(weights), images, torch.zeros(3, 16, 16), fill=zero)
    assert wrong.values.tolist() == nothing.values.tolist()
    assert (nothing.values > 0).all()


def test_infidelity_of_one_worth_everywhere_is_the_variance_a_loop_finds():
    # A score of 1 per pixel of the left half, and a map that says: the same everywhere.
    images, weights = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    weights[..., :4] = 1
    seen = []

    def score(images, rows):
        seen.extend(images.clone())
        return linear(weights)(images, rows)

    found = infidelity(score, images, np.ones((1, 8, 8)), fill=zero, samples=30)
    areas = np.array([float((1 - image).sum()) for image in seen[1:]])
    drops = np.array([float(((1 - image) * weights[0]).sum()) for image in seen[1:]])
    assert len(areas) == 30
    assert set(np.sqrt(areas)) <= {1, 2, 3, 4}
    best = (areas * drops).sum() / (areas**2).sum()
    assert found.values[0] == pytest.approx(((best * areas - drops) ** 2).mean())
