"""Deletion, insertion, ROAD: closed forms, slow loops, ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import nonlinear, seeded

from sightline.errors import SightlineError
from sightline.faithfulness import (
    blur,
    class_logit,
    class_probability,
    deletion,
    insertion,
    mean,
    noisy_linear_imputation,
    random_map,
    road,
    road_least_first,
    road_most_first,
    zero,
)
from sightline.faithfulness.deletion_insertion import removal_order


def weighted_sum(weights: torch.Tensor):
    """A linear model without bias: each pixel is worth its weight times its value."""
    return lambda images, rows: (images * weights).sum(dim=(1, 2, 3))


def some_images(count: int = 3, side: int = 6, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, channels, side, side))).float()


def test_deletion_of_a_linear_score_has_the_area_of_its_closed_form():
    worth = torch.tensor([[8.0, 4, 2, 1]]).view(1, 1, 2, 2)
    found = deletion(weighted_sum(worth), torch.ones(1, 1, 2, 2), worth[0], fill=zero, steps=4)
    assert found.curve.tolist() == [[15, 7, 3, 1, 0]]
    assert found.values.tolist() == [(15 / 2 + 7 + 3 + 1 + 0) / 4]
    assert found.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (found.fill, found.n, found.higher_is_better) == ("zero", 1, False)


def test_insertion_of_a_linear_score_has_the_area_of_its_closed_form():
    worth = torch.tensor([[8.0, 4, 2, 1]]).view(1, 1, 2, 2)
    found = insertion(weighted_sum(worth), torch.ones(1, 1, 2, 2), worth[0], fill=zero, steps=4)
    assert found.curve.tolist() == [[0, 8, 12, 14, 15]]
    assert found.values.tolist() == [(0 + 8 + 12 + 14 + 15 / 2) / 4]
    assert found.shares.tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert found.higher_is_better


def test_a_perfect_order_is_the_best_there_is_and_its_reverse_the_worst():
    worth = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    areas = [
        deletion(weighted_sum(worth), torch.ones(1, 1, 4, 4), heat, fill=zero, steps=16).values[0]
        for heat in (worth[0], torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(1)), -worth[0])
    ]
    assert areas == sorted(areas)


def test_ties_are_broken_at_random_by_seed_and_every_pixel_has_its_own_rank():
    flat = np.zeros((400, 3, 3))
    ranks = removal_order(flat)
    assert (np.sort(ranks.reshape(400, -1), axis=1) == np.arange(9)).all()
    assert np.abs(ranks.mean(axis=0) - 4).max() < 0.6  # four standard errors
    assert (removal_order(flat) == ranks).all()
    assert (removal_order(flat, seed=1) != ranks).any()


def test_ties_among_zeros_do_not_touch_the_order_of_the_rest():
    ranks = removal_order(np.array([[[0.0, 0.5], [0.9, 0.0]]]))
    assert (ranks[0, 1, 0], ranks[0, 0, 1]) == (0, 1)
    assert sorted([ranks[0, 0, 0], ranks[0, 1, 1]]) == [2, 3]


def test_a_map_of_zeros_gets_what_a_random_map_gets():
    images = some_images(300, 4)
    weights = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    flat = deletion(weighted_sum(weights), images, np.zeros((300, 4, 4)), fill=zero, steps=16)
    chance = deletion(weighted_sum(weights), images, random_map(images, (4, 4), 0), fill=zero, steps=16)
    # Removing a random share leaves that share of the sum: half of it on average.
    whole = weighted_sum(weights)(images, None).numpy()
    for found in (flat, chance):
        assert abs((found.values / whole).mean() - 0.5) < 4 * (found.values / whole).std() / 300**0.5
    assert np.corrcoef(flat.values / whole, chance.values / whole)[0, 1] < 0.25


@pytest.mark.parametrize("fill", [zero, mean, blur, noisy_linear_imputation])
def test_deletion_equals_a_loop_over_single_steps_and_images(fill):
    model, images, classes = seeded(nonlinear), some_images(3, 12), [0, 2, 1]
    maps = np.random.default_rng(3).random((3, 12, 12))
    found = deletion(class_probability(model, classes), images, maps, fill=fill, steps=5)
    noise = np.random.default_rng([0, 1]).standard_normal(images.shape, dtype=np.float32)
    for i, image in enumerate(images):
        hot_first = np.argsort(-maps[i].ravel())
        curve = []
        for count in (0, 29, 58, 86, 115, 144):
            gone = torch.zeros(144, dtype=torch.bool)
            gone[hot_first[:count].copy()] = True
            gone = gone.view(1, 12, 12)
            filled = fill(image[None], gone, torch.from_numpy(noise[i : i + 1]))[0]
            seen = torch.where(gone, filled, image)
            with torch.no_grad():
                curve.append(float(model(seen[None]).softmax(1)[0, classes[i]]))
        assert found.curve[i] == pytest.approx(curve, abs=1e-6)
        assert found.shares.tolist() == [count / 144 for count in (0, 29, 58, 86, 115, 144)]
        area = sum((a + b) / 2 * w for a, b, w in zip(curve, curve[1:], np.diff(found.shares), strict=False))
        assert found.values[i] == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("measure", [deletion, insertion, road, road_most_first, road_least_first])
def test_the_size_of_a_batch_does_not_change_the_result(measure):
    model, images = seeded(nonlinear), some_images(3, 12)
    maps = np.random.default_rng(3).random((3, 12, 12)).round(1)  # with ties
    whole, pieces = (
        measure(class_probability(model, [0, 1, 2]), images, maps, batch_size=size) for size in (1000, 4)
    )
    assert whole.curve == pytest.approx(pieces.curve, abs=1e-6)


def test_no_more_images_than_the_batch_size_are_held_at_a_time_and_each_step_is_one_pass():
    sizes = []

    def score(images, rows):
        sizes.append(len(images))
        return images.mean(dim=(1, 2, 3))

    deletion(score, some_images(), np.zeros((3, 6, 6)), steps=20, batch_size=16)
    assert max(sizes) == 16
    assert sum(sizes) == 3 * 21


def test_road_is_the_gap_between_its_two_orders():
    model, images = seeded(nonlinear), some_images(4, 12)
    maps, score = np.random.default_rng(0).random((4, 12, 12)), class_probability(model, [0, 1, 2, 3])
    most, least, gap = (measure(score, images, maps) for measure in (road_most_first, road_least_first, road))
    assert gap.curve == pytest.approx(least.curve - most.curve)
    assert gap.values == pytest.approx(gap.curve.mean(axis=1))
    assert gap.shares.tolist() == [round(0.1 * k * 144) / 144 for k in range(1, 10)]
    assert gap.fill == "noisy_linear_imputation"
    assert road(score, images, -maps).values == pytest.approx(-gap.values)
    assert gap.chance.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (np.zeros((3, 3, 3)), {}, "maps are (3, 3, 3) for images (3, 3, 6, 6); pass (3, 6, 6)"),
        (np.zeros((6, 6)), {}, "pass (B, H, W), a single map as maps[None]"),
        (np.full((3, 6, 6), np.nan), {}, "map 0 holds NaN or infinity; leave it out"),
        (np.zeros((3, 6, 6)), {"steps": 0}, "steps is 0; it needs at least 1"),
        (np.zeros((3, 6, 6)), {"batch_size": 0}, "batch_size is 0; it needs at least 1"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(maps, options, message):
    with pytest.raises(SightlineError) as caught:
        deletion(lambda images, rows: images.sum((1, 2, 3)), some_images(), maps, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_shares_and_targets_that_do_not_fit_are_named():
    score = class_probability(seeded(nonlinear), [0, 1])
    with pytest.raises(SightlineError, match=r"images are torch.uint8 \(1, 3, 6, 6\); pass a float tensor"):
        deletion(score, torch.zeros(1, 3, 6, 6, dtype=torch.uint8), np.zeros((1, 6, 6)))
    with pytest.raises(SightlineError, match=r"shares are \[0.5, 2.0\]; pass numbers from 0 to 1"):
        road(score, some_images(2, 12), np.zeros((2, 12, 12)), shares=(0.5, 2.0))
    with pytest.raises(
        SightlineError, match="there are 2 targets and more images; pass one target per image"
    ):
        deletion(score, some_images(3, 12), np.zeros((3, 12, 12)))
    with pytest.raises(SightlineError, match="targets range from 0 to 9; the model has 4 classes: 0 to 3"):
        deletion(class_logit(seeded(nonlinear), [0, 9]), some_images(2, 12), np.zeros((2, 12, 12)))
