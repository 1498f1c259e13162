"""Randomised weights, sensitivity, and similarities of maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import Staged, nonlinear, pictures, seeded
from torch import nn

from sightline.attribution import explain
from sightline.errors import SightlineError
from sightline.faithfulness import randomization, sensitivity, spearman, ssim, untrained_copy


def hires(activations, gradients):
    return (activations * gradients).sum(dim=1)


def uniform(activations, gradients):
    return torch.ones_like(activations[:, 0])


def activity(activations, gradients):
    return activations.sum(dim=1)


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


def test_an_untrained_copy_is_drawn_from_its_seed_and_leaves_the_model_alone():
    model = seeded(Staged).train()
    before = snapshot(model)
    untrained, again, other = untrained_copy(model), untrained_copy(model), untrained_copy(model, seed=1)
    assert_untouched(model, before)
    for name, weight in untrained.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        if weight.ndim > 1:
            assert not torch.equal(weight, model.get_parameter(name))
            assert not torch.equal(weight, other.get_parameter(name))
    assert torch.equal(untrained.get_buffer("stem.1.running_mean"), torch.zeros(4))


def test_layers_of_one_shape_get_different_weights_and_odd_weights_are_shuffled():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.scale = nn.Parameter(torch.arange(50.0))

    model = Odd()
    untrained = untrained_copy(model)
    assert not torch.equal(untrained.first.weight, untrained.second.weight)
    assert not torch.equal(untrained.scale, model.scale)
    assert torch.equal(untrained.scale.sort().values, model.scale)
    with pytest.raises(SightlineError, match="Identity has no weights, so no untrained copy"):
        untrained_copy(nn.Identity())


@pytest.mark.parametrize("similarity", [spearman, ssim])
def test_randomization_goes_from_the_model_to_its_untrained_copy(similarity):
    model, images = seeded(Staged), pictures(4, 24)
    before = snapshot(model)
    found = randomization(model, images, 2, method=hires, layer="layer2", steps=3, similarity=similarity)
    assert_untouched(model, before)
    own = explain(model, images, 2, method=hires, layer="layer2").maps
    untrained = explain(untrained_copy(model), images, 2, method=hires, layer="layer2").maps
    assert found.curve.shape == (4, 4)
    assert found.curve[:, 0] == pytest.approx([1] * 4)
    assert found.values == pytest.approx(similarity(own, untrained), abs=1e-6)
    assert found.curve[:, -1].tolist() == found.values.tolist()
    # 11 layers have weights: 5 convolutions with their batch norms, and the head.
    assert found.shares == pytest.approx([0, 4 / 11, 8 / 11, 1])
    assert found.chance == pytest.approx(similarity(own, own[[3, 0, 1, 2]]))


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
