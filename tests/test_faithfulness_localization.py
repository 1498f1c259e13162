"""Heat in masks, the pointing game, grids of images: by hand, by loops, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import Staged, pictures, pooled, seeded
from torch import nn

from sightline.attribution import heatmap
from sightline.errors import SightlineError
from sightline.faithfulness import (
    difull,
    energy_in_mask,
    grid_pointing_game,
    heat_in_masks,
    image_grids,
    pointing_game,
    randomization,
)


def hires(activations, gradients):
    return (activations * gradients).sum(dim=1)


def uniform(activations, gradients):
    return torch.ones_like(activations[:, 0])


def activity(activations, gradients):
    return activations.sum(dim=1)


def colour_net() -> nn.Sequential:
    """Classes are pure colours: red, green, blue, and white; convolutional up to its pooling."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    )
    with torch.no_grad():
        colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]])
        model[0].weight.copy_(colours[:, :, None, None])
        model[0].bias.copy_(torch.tensor([0.0, 0, 0, -2]))
        model[4].weight.copy_(20 * torch.eye(4))
        model[4].bias.zero_()
    return model.eval()


def colours(each: int = 3, size: int = 6) -> tuple[torch.Tensor, np.ndarray]:
    pure = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    labels = np.tile(np.arange(4), each)
    strength = torch.linspace(0.9, 1, len(labels))[:, None]
    return (pure[labels] * strength)[:, :, None, None].expand(-1, 3, size, size).contiguous(), labels


def snapshot(model: nn.Module) -> tuple:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state, [module.training for module in model.modules()], torch.get_rng_state()


def assert_untouched(model: nn.Module, before: tuple) -> None:
    state, modes, random_state = before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(not module._forward_hooks for module in model.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_heat_in_masks_is_the_share_of_positive_heat_and_of_a_flat_map_the_share_of_the_area():
    maps = np.array([[[3.0, -5], [1, 0]], [[0, 0], [0, -1]], [[0, 0], [0, 2]]])
    masks = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]], dtype=bool)
    assert heat_in_masks(maps, masks).tolist() == [0.75, 0.25, 0]
    found = energy_in_mask(torch.from_numpy(maps[:2]), torch.from_numpy(masks[:2]))
    assert found.values.tolist() == [0.75, 0.25]
    assert found.chance.tolist() == [0.5, 0.25]


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
    assert found.chance == pytest.approx([1 / 9] * 4)


@pytest.mark.parametrize("grid", [(3, 4), (2, 2), (7, 5), (16, 16)])
def test_the_chance_of_a_coarse_map_is_what_random_maps_of_its_grain_get(grid):
    count, size = 3000, (16, 16)
    masks = np.zeros((count, *size), dtype=bool)
    masks[:, 1:7, 4:11] = True  # 42 of 256 pixels
    found = pointing_game(heatmap(np.random.default_rng(1).random((count, *grid)), size), masks, grid=grid)
    assert len(set(found.chance)) == 1
    assert found.mean == pytest.approx(found.chance[0], abs=4 * found.values.std() / count**0.5)
    exact = {(2, 2): 0, (16, 16): 42 / 256}  # plateaus of 4 x 4 pixels in the corners, beside the mask
    assert found.chance[0] == pytest.approx(exact.get(grid, found.chance[0]), abs=0.01)


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
    assert found.chance[0] == pytest.approx(hits.mean())


def test_empty_and_misfitting_masks_are_named():
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[0, 0, 0] = True
    with pytest.raises(SightlineError, match="mask 1 is empty, as 1 of 2 are; leave those images out"):
        pointing_game(np.zeros((2, 3, 3)), masks)
    with pytest.raises(SightlineError, match=r"masks are \(2, 3, 3\) and maps \(1, 3, 3\); pass one mask"):
        energy_in_mask(np.zeros((1, 3, 3)), masks)


def test_grids_hold_distinct_confident_classes_and_use_an_image_once():
    images, labels = colours(each=3)
    labels = labels.copy()
    labels[0] = 1  # red, called green: not classified rightly, hence not used
    grids = image_grids(colour_net(), images, labels)
    assert grids.images.shape == (2, 3, 12, 12)
    assert 0 not in grids.sources
    assert len(set(grids.sources.ravel())) == 8
    for grid, classes, sources in zip(grids.images, grids.classes, grids.sources, strict=True):
        assert sorted(classes) == [0, 1, 2, 3]
        for cell in range(4):
            row, column = divmod(cell, 2)
            part = grid[:, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6]
            assert torch.equal(part, images[sources[cell]])


def test_uniform_maps_play_the_grid_pointing_game_at_chance():
    images, labels = colours()
    found = grid_pointing_game(colour_net(), images, labels, method=uniform, layer="1")
    assert found.values == pytest.approx([0.25] * 3)
    assert found.chance.tolist() == [0.25] * 3


def test_a_model_that_tells_colours_apart_wins_the_grid_pointing_game():
    images, labels = colours()
    found = grid_pointing_game(colour_net(), images, labels, method=hires, layer="1")
    assert (found.values > 0.9).all()  # what is missing is resized across the border of the cells
    deaf = grid_pointing_game(colour_net(), images, labels, method=activity, layer="1")
    assert (deaf.values < 0.5).all()


def test_a_model_of_one_size_and_too_few_classes_are_named():
    images, labels = colours()
    fixed = nn.Sequential(*colour_net()[:2], nn.Flatten(), nn.Linear(4 * 36, 4)).eval()
    with torch.no_grad():
        fixed[3].weight.copy_(torch.eye(4).repeat_interleave(36, dim=1))
        fixed[3].bias.zero_()
    with pytest.raises(SightlineError) as caught:
        grid_pointing_game(fixed, images, labels, layer="1")
    assert str(caught.value).startswith("Sequential cannot take 12x12 images (")
    assert "convolutional up to a pooling over any size" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(SightlineError, match="4 classes have an image classified rightly with confidence"):
        grid_pointing_game(colour_net(), images, labels, n=3)


@pytest.mark.parametrize("method", ["grad_cam", hires])
def test_disconnected_cells_get_exactly_nothing(method):
    images, labels = colours(each=2)
    model = colour_net().train()
    before = snapshot(model)
    found = difull(model, images, labels, method=method, layer="1")
    assert found.values.tolist() == [0.0, 0.0]
    assert_untouched(model, before)


def test_disconnected_cells_get_nothing_in_a_deep_network_either():
    model, images = seeded(Staged, 4), pictures(40, 24)
    with torch.no_grad():
        labels = model(images).argmax(dim=1).numpy()
    if len(set(labels)) < 4:
        with torch.no_grad():  # every class as likely as the others on these images
            model.fc.bias -= model(images).mean(dim=0)
            labels = model(images).argmax(dim=1).numpy()
    found = difull(model, images, labels, confidence=0, grids=2, layer="layer2")
    assert found.values.tolist() == [0.0] * found.n


def test_a_method_that_shows_activity_is_caught_by_disconnected_cells():
    images, labels = colours(each=2)
    found = difull(colour_net(), images, labels, method=activity, layer="1")
    assert found.values == pytest.approx([0.75] * 2, abs=0.05)


def test_the_layer_may_be_a_module():
    model, images = seeded(pooled), pictures(3)
    by_name, by_module = (
        randomization(model, images, method=hires, layer=layer, steps=2).curve for layer in ("1", model[1])
    )
    assert by_name.tolist() == by_module.tolist()
