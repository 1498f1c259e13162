"""Average drop, infidelity, pointing game, similarities, intervals: by hand and by slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import nonlinear, pictures, seeded

from sightline.errors import SightlineError
from sightline.faithfulness import (
    Measurement,
    average_drop,
    average_increase,
    class_probability,
    energy_in_mask,
    heat_in_masks,
    infidelity,
    mean,
    pointing_game,
    spearman,
    ssim,
    zero,
)


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


def test_heat_in_masks_is_the_share_of_positive_heat_and_of_a_flat_map_the_share_of_the_area():
    maps = np.array([[[3.0, -5], [1, 0]], [[0, 0], [0, -1]], [[0, 0], [0, 2]]])
    masks = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]], dtype=bool)
    assert heat_in_masks(maps, masks).tolist() == [0.75, 0.25, 0]
    found = energy_in_mask(torch.from_numpy(maps[:2]), torch.from_numpy(masks[:2]))
    assert found.values.tolist() == [0.75, 0.25]
    assert found.baseline.tolist() == [0.5, 0.25]


def test_the_pointing_game_asks_for_the_maximum_and_shares_ties():
    maps = np.zeros((4, 3, 3))
    maps[0, 1, 1], maps[0, 0, 0] = 2, 1
    maps[1, 0, 0] = 1
    maps[2, 0, 0] = maps[2, 1, 1] = 1
    maps[3] = -1  # nothing positive: any pixel will do
    masks = np.zeros((4, 3, 3), dtype=bool)
    masks[:, 1, 1] = True
    found = pointing_game(maps, masks)
    assert found.values == pytest.approx([1, 0, 0.5, 1 / 9])
    assert found.baseline == pytest.approx([1 / 9] * 4)


def test_the_tolerance_of_the_pointing_game_is_a_disc_around_the_mask():
    masks = np.zeros((1, 7, 7), dtype=bool)
    masks[0, 3, 3] = True
    hits = np.zeros((7, 7))
    for i in range(7):
        for j in range(7):
            maps = np.zeros((1, 7, 7))
            maps[0, i, j] = 1
            hits[i, j] = pointing_game(maps, masks, tolerance=2).values[0]
            assert hits[i, j] == ((i - 3) ** 2 + (j - 3) ** 2 <= 4)
    found = pointing_game(hits[None], masks, tolerance=2)
    assert found.baseline[0] == pytest.approx(hits.mean())


def test_empty_and_misfitting_masks_are_named():
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[0, 0, 0] = True
    with pytest.raises(SightlineError, match="mask 1 is empty, as 1 of 2 are; leave those images out"):
        pointing_game(np.zeros((2, 3, 3)), masks)
    with pytest.raises(SightlineError, match=r"masks are \(2, 3, 3\) and maps \(1, 3, 3\); pass one mask"):
        energy_in_mask(np.zeros((1, 3, 3)), masks)


def test_spearman_equals_scipy_with_ties_and_signs():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 5, 4)).round(), rng.normal(size=(6, 5, 4)).round()
    expected = [
        spearmanr(first.ravel(), second.ravel()).statistic for first, second in zip(a, b, strict=True)
    ]
    assert spearman(a, b) == pytest.approx(expected)
    flat = np.zeros((1, 2, 2))
    assert spearman(flat, np.arange(4.0).reshape(1, 2, 2)).tolist() == [0]
    assert spearman(flat, flat).tolist() == [1]


def test_ssim_equals_a_loop_over_windows():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9, 8)), rng.normal(size=(2, 9, 8))
    found = ssim(a, b)
    for image in range(2):
        x, y = a[image] / np.abs(a[image]).max(), b[image] / np.abs(b[image]).max()
        values = []
        for i in range(3):
            for j in range(2):
                p, q = x[i : i + 7, j : j + 7].ravel(), y[i : i + 7, j : j + 7].ravel()
                both = np.cov(p, q, bias=True)
                light = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
                values.append(light * (2 * both[0, 1] + 9e-4) / (both[0, 0] + both[1, 1] + 9e-4))
        assert found[image] == pytest.approx(np.mean(values))
    assert ssim(a, 3 * a) == pytest.approx([1, 1])


def test_a_measurement_reads_as_a_line():
    found = Measurement("deletion", np.full(4, 0.25), False, fill="mean", baseline=np.full(4, 0.5))
    assert str(found) == "deletion 0.250 [0.250, 0.250], n 4, fill mean, chance 0.500; lower is better"
