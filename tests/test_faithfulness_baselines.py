"""Baseline maps: their grain, their formulas, the runner-up and the untrained network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import pictures
from torch import nn

from sightline.attribution import explain
from sightline.faithfulness import (
    BASELINES,
    baseline_maps,
    edge_map,
    gaussian_map,
    random_map,
    untrained_copy,
)

SIDE = 12


def patch_masks() -> np.ndarray:
    """The pixels that each of two classes reads: a square near a corner, and one in another."""
    masks = np.zeros((2, SIDE, SIDE), dtype=bool)
    masks[0, 1:4, 7:11] = masks[1, 8:11, 1:4] = True
    return masks


def patch_net() -> nn.Sequential:
    """Three classes: brightness in one square, brightness in another, and neither."""
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(SIDE**2, 3))
    with torch.no_grad():
        model[0].weight.fill_(1 / 3)
        model[0].bias.zero_()
        model[3].weight.zero_()
        model[3].weight[:2] = torch.from_numpy(patch_masks().reshape(2, -1)).float()
        model[3].bias.copy_(torch.tensor([-7.0, -7, 0]))
    return model.eval()


def hires(activations, gradients):
    return (activations * gradients).sum(dim=1)


def noise(activations, gradients):
    """A map of nothing, the same whenever it is asked for."""
    return torch.from_numpy(np.random.default_rng(9).random((len(activations), SIDE, SIDE)))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Dark noise, with the square that class 0 reads bright."""
    bright = torch.from_numpy(patch_masks()[0])
    return torch.where(bright, 0.7 + 0.3 * pictures(40, SIDE, seed=2), 0.6 * pictures(40, SIDE))


def test_baselines_have_the_grain_that_was_asked_for(images):
    for baseline in BASELINES.values():
        coarse = baseline(images, (3, 3), 0)
        assert coarse.shape == (40, SIDE, SIDE)
        assert coarse.min() >= 0
        assert coarse.max(axis=(1, 2)) == pytest.approx(np.ones(40))
        # A map of 3x3 cells is linear between their centres: its second differences vanish there.
        assert np.abs(np.diff(coarse[:, 2:6, 2], n=2, axis=1)).max() < 1e-6
    fine = random_map(images, (SIDE, SIDE), 0)
    assert np.unique(fine).size > 0.9 * fine.size
    assert (fine[0] != fine[1]).any()


def test_the_edge_map_of_a_step_is_its_sobel_magnitude():
    image = torch.zeros(1, 3, 5, 6)
    image[..., 3:] = 0.5
    image[..., 4:, :] = 0.9
    gray = np.pad(image[0].mean(0).numpy(), 1, mode="edge").astype(float)
    expected = np.zeros((5, 6))
    for i in range(5):
        for j in range(6):
            w = gray[i : i + 3, j : j + 3]
            across = (w[0, 2] + 2 * w[1, 2] + w[2, 2]) - (w[0, 0] + 2 * w[1, 0] + w[2, 0])
            down = (w[2, 0] + 2 * w[2, 1] + w[2, 2]) - (w[0, 0] + 2 * w[0, 1] + w[0, 2])
            expected[i, j] = np.hypot(across, down)
    assert edge_map(image, (5, 6), 0)[0] == pytest.approx(expected / expected.max(), abs=1e-6)


def test_the_gaussian_map_is_centred_and_falls_off_by_its_formula():
    found = gaussian_map(torch.zeros(2, 3, 9, 9), (9, 9), 0)
    assert found[1, 4, 4] == 1
    assert found[1, 4, 8] == pytest.approx(np.exp(-2))
    assert found[1] == pytest.approx(found[1].T)


def test_model_baselines_are_the_runner_up_and_the_untrained_network(images):
    model = patch_net()
    maps = baseline_maps(model, images, 0, grid=(SIDE, SIDE), method=hires, layer="1")
    with torch.no_grad():
        others = model(images)[:, 1:].argmax(dim=1) + 1
    expected = explain(model, images, others, method=hires, layer="1").heatmaps()
    assert maps["the map of another class"].tolist() == expected.tolist()
    untrained = explain(untrained_copy(model), images, 0, method=hires, layer="1").heatmaps()
    assert maps["the map of an untrained network"].tolist() == untrained.tolist()
    assert list(maps) == [
        *("a random map", "a centred blob", "an edge map"),
        *("the map of another class", "the map of an untrained network"),
    ]
