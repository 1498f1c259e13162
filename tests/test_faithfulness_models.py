"""Measures that explain again: randomisation, sensitivity, grids of images, disconnected cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import Staged, nonlinear, pictures, pooled, seeded
from torch import nn

from sightline.attribution import explain
from sightline.errors import SightlineError
from sightline.faithfulness import (
    difull,
    grid_pointing_game,
    image_grids,
    randomization,
    sensitivity,
    spearman,
    ssim,
    untrained_twin,
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


def test_an_untrained_twin_is_drawn_from_its_seed_and_leaves_the_model_alone():
    model = seeded(Staged).train()
    before = snapshot(model)
    twin, again, other = untrained_twin(model), untrained_twin(model), untrained_twin(model, seed=1)
    assert_untouched(model, before)
    for name, weight in twin.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        if weight.ndim > 1:
            assert not torch.equal(weight, model.get_parameter(name))
            assert not torch.equal(weight, other.get_parameter(name))
    assert torch.equal(twin.get_buffer("stem.1.running_mean"), torch.zeros(4))


def test_layers_of_one_shape_get_different_weights_and_odd_weights_are_shuffled():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.scale = nn.Parameter(torch.arange(50.0))

    model = Odd()
    twin = untrained_twin(model)
    assert not torch.equal(twin.first.weight, twin.second.weight)
    assert not torch.equal(twin.scale, model.scale)
    assert torch.equal(twin.scale.sort().values, model.scale)
    with pytest.raises(SightlineError, match="Identity has no weights, so there is no untrained twin of it"):
        untrained_twin(nn.Identity())


@pytest.mark.parametrize("similarity", [spearman, ssim])
def test_randomization_goes_from_the_model_to_its_untrained_twin(similarity):
    model, images = seeded(Staged), pictures(4, 24)
    before = snapshot(model)
    found = randomization(model, images, 2, method=hires, layer="layer2", steps=3, similarity=similarity)
    assert_untouched(model, before)
    own = explain(model, images, 2, method=hires, layer="layer2").maps
    twin = explain(untrained_twin(model), images, 2, method=hires, layer="layer2").maps
    assert found.curve.shape == (4, 4)
    assert found.curve[:, 0] == pytest.approx([1] * 4)
    assert found.values == pytest.approx(similarity(own, twin), abs=1e-6)
    assert found.curve[:, -1].tolist() == found.values.tolist()
    # 11 layers have weights: 5 convolutions with their batch norms, and the head.
    assert found.shares == pytest.approx([0, 4 / 11, 8 / 11, 1])
    assert found.baseline == pytest.approx(similarity(own, own[[3, 0, 1, 2]]))


def test_randomization_starts_at_the_top():
    model, images = seeded(Staged), pictures(2, 24)
    found = randomization(model, images, 1, method=activity, layer="layer1", steps=11)
    # The activations of layer1 do not know what happens above: 6 layers and a head of 7 of the 11.
    assert found.curve[:, 1:8] == pytest.approx(np.ones((2, 7)))
    assert (found.curve[:, 8] < 0.999).all()


def test_randomization_of_a_method_that_ignores_the_weights_stays_at_one():
    found = randomization(seeded(nonlinear), pictures(3), method=uniform, layer="1", steps=2)
    assert found.curve.tolist() == [[1, 1, 1]] * 3


def test_randomization_of_one_image_has_no_baseline():
    with pytest.raises(SightlineError, match="there is 1 image; randomization needs 2 or more"):
        randomization(seeded(nonlinear), pictures(1))


def test_sensitivity_of_a_constant_explanation_is_zero():
    found = sensitivity(seeded(nonlinear), pictures(2), method=uniform, layer="4", samples=3)
    assert found.values.tolist() == [0, 0]
    assert not found.higher_is_better


def test_sensitivity_equals_a_loop_over_draws_and_keeps_the_class_of_the_clean_image():
    model, images = seeded(nonlinear), pictures(3)
    found = sensitivity(model, images, method=hires, layer="4", radius=0.2, samples=4, seed=5)
    clean = explain(model, images, method=hires, layer="4")
    rng, largest = np.random.default_rng(5), np.zeros(3)
    for _ in range(4):
        noise = torch.from_numpy(rng.uniform(-0.2, 0.2, images.shape)).float()
        for i in range(3):
            seen = (images + noise)[i : i + 1]
            maps = explain(model, seen, int(clean.targets[i]), method=hires, layer="4").maps
            largest[i] = max(largest[i], np.sqrt(((maps[0] - clean.maps[i]) ** 2).sum()))
    assert found.values == pytest.approx(largest / np.sqrt((clean.maps**2).sum(axis=(1, 2))), rel=1e-4)
    assert (found.values > 0).all()


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
    assert found.baseline.tolist() == [0.25] * 3


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
