"""Optimizers: torch's own with learning rates by groups; Muon by a slow loop of the speed record."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import QUIET, make_data, make_model

from sightline.errors import InputTypeError
from sightline.models.resnet import resnet18
from sightline.training import Freeze, adam, adamw, constant, fit, load_recipe, muon, sgd
from sightline.training.optimizers import (
    OPTIMIZERS,
    Muon,
    build_optimizer,
    layer_depths,
    orthogonalize,
    set_lr,
)


def make_net(channels_last: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 6, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 16, 40), nn.Linear(40, 3),
    )  # fmt: skip
    return net.to(memory_format=torch.channels_last) if channels_last else net


def loss_of(net: nn.Module, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(10, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (10,), generator=generator)
    return nn.functional.cross_entropy(net(images), labels)


def assert_moved_alike(found: torch.Tensor, known: torch.Tensor, start: torch.Tensor) -> None:
    # Sums of bfloat16 in another order differ; what counts is small against the way that was gone.
    assert (found - known).norm() < 0.06 * (known - start).norm()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_matrices_step_as_torch_does_on_flattened_copies(nesterov, channels_last):
    net, plain = make_net(channels_last), make_net()
    ours = muon(
        momentum=0.8, nesterov=nesterov, weight_decay=0.1, steps=4, sgd_momentum=0.7,
        vector_lr_factor=2.0, head_lr_factor=4.0,
    )(net)  # fmt: skip
    hidden = [plain[0].weight, plain[3].weight, plain[6].weight]  # the last is higher than wide
    flat = [nn.Parameter(p.detach().flatten(1).clone()) for p in hidden]
    theirs = torch.optim.Muon(flat, lr=0.02, weight_decay=0.1, momentum=0.8, nesterov=nesterov, ns_steps=4)
    head = torch.optim.SGD([plain[7].weight], lr=0.08, momentum=0.7, nesterov=nesterov, weight_decay=0.025)
    vectors = [p for p in plain.parameters() if p.ndim == 1]
    rest = torch.optim.SGD(vectors, lr=0.04, momentum=0.7, nesterov=nesterov, weight_decay=0.05)
    for step in range(4):
        set_lr(ours, 0.02, None)
        ours.zero_grad(set_to_none=True)
        loss_of(net, step).backward()
        ours.step()

        plain.zero_grad()
        loss_of(plain, step).backward()
        for p, matrix in zip(hidden, flat, strict=True):
            matrix.grad = p.grad.flatten(1)
        for optimizer in (theirs, head, rest):
            optimizer.step()
        for p, matrix in zip(hidden, flat, strict=True):
            p.data.copy_(matrix.data.view(p.shape))
    for p, q, start in zip(net.parameters(), plain.parameters(), make_net().parameters(), strict=True):
        assert_moved_alike(p, q, start)
        assert p.is_contiguous(memory_format=torch.channels_last) or p.ndim != 4 or not channels_last


def test_unit_norm_steps_as_the_speed_record_does():
    net, plain = make_net(), make_net()
    ours = muon(momentum=0.6, steps=3, unit_norm=True)(net)
    filters = [plain[0].weight, plain[3].weight]
    means = [torch.zeros_like(p) for p in filters]
    for step in range(3):
        set_lr(ours, 0.02, None)
        ours.zero_grad(set_to_none=True)
        loss_of(net, step).backward()
        ours.step()

        plain.zero_grad()
        loss_of(plain, step).backward()
        with torch.no_grad():
            for p, mean in zip(filters, means, strict=True):
                mean.mul_(0.6).add_(p.grad)
                g = p.grad + 0.6 * mean
                p.mul_(len(p) ** 0.5 / p.norm())
                x = g.reshape(len(g), -1).bfloat16()
                x = x / (x.norm() + 1e-7)
                for _ in range(3):
                    product = x @ x.T
                    x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
                p.add_(x.view(p.shape), alpha=-0.02)
        # The rest by SGD; here only what Muon does to the filters is looked at.
        for name in (1, 3, 6, 7):
            for p, q in zip(plain[name].parameters(), net[name].parameters(), strict=True):
                if p not in set(filters):
                    p.data.copy_(q.data)
    for p, index in zip(filters, (0, 3), strict=True):
        assert_moved_alike(net[index].weight, p, make_net()[index].weight)


def test_an_orthogonal_matrix_has_singular_values_about_one_and_the_same_directions():
    torch.manual_seed(1)
    for shape in ((8, 20), (20, 8)):
        matrix = torch.randn(shape)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        found = orthogonalize(matrix).float()
        assert found.shape == shape
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6
        assert values.max() < 1.3
        inner = u.T @ found @ v.T  # diagonal, if the directions are kept
        torch.testing.assert_close(inner, inner.diag().diag(), rtol=0, atol=3e-2)


def test_it_trains_and_the_recipe_can_name_it():
    data = make_data()
    recipe = load_recipe("cifar10-94", ["optimizer.name=muon", "optimizer.unit_norm=true"])
    assert recipe.optimizer == {"name": "muon", "unit_norm": True}
    history = fit(
        make_model(data), data, epochs=6, batch_size=16, schedule=constant(0.05),
        optimizer=muon(unit_norm=True, steps=3, head_lr_factor=7),
        callbacks=[Freeze({"whitening.bias": 1})], **QUIET,
    )  # fmt: skip
    losses = [row["train_loss"] for row in history.epochs]
    assert losses[-1] < 0.9 * losses[0]
    assert np.isfinite(losses).all()


def test_normalisation_can_have_a_learning_rate_of_its_own():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = sgd(weight_decay=0.02, bias_lr_factor=64)(model)
    set_lr(optimizer, 0.5, 0.7)
    filters, vectors = optimizer.param_groups
    assert [id(p) for p in filters["params"]] == [id(p) for p in model[0].parameters()]
    assert [id(p) for p in vectors["params"]] == [id(p) for p in model[1].parameters()]
    assert (filters["lr"], filters["weight_decay"], filters["momentum"]) == (0.5, 0.02, 0.7)
    assert vectors["lr"] == 32
    assert vectors["lr"] * vectors["weight_decay"] == pytest.approx(filters["lr"] * filters["weight_decay"])


def test_every_optimizer_is_that_of_torch_and_leaves_frozen_parameters_out():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    kinds = {"sgd": torch.optim.SGD, "muon": Muon, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    for name, function in OPTIMIZERS.items():
        optimizer = function()(model)
        assert type(optimizer) is kinds[name]
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    optimizer = adamw()(model)
    set_lr(optimizer, 0.1, 0.85)
    assert optimizer.param_groups[0]["betas"] == (0.85, 0.999)


def test_an_optimizer_of_ones_own_keeps_the_ratios_of_its_learning_rates():
    data = make_data()

    def make(model):
        head = list(model.fc.parameters())
        rest = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in head)]
        return torch.optim.SGD([{"params": rest, "lr": 0.5}, {"params": head, "lr": 0.1}])

    own, by_factor = make_model(data), make_model(data)
    fit(own, data, epochs=1, batch_size=16, optimizer=make, schedule=constant(0.05), **QUIET)

    def with_factors(model):
        made = make(model)
        for group, factor in zip(made.param_groups, (1.0, 0.2), strict=True):
            group["lr_factor"] = factor
        return made

    fit(by_factor, data, epochs=1, batch_size=16, optimizer=with_factors, schedule=constant(0.05), **QUIET)
    for name, value in own.state_dict().items():
        torch.testing.assert_close(by_factor.state_dict()[name], value, msg=name)
    with pytest.raises(InputTypeError, match="optimizer: the function returned a list; it takes a model and"):
        fit(own, data, optimizer=lambda model: [], **QUIET)


def test_blocks_are_numbered_from_the_head_and_rates_fall_by_a_constant_factor():
    model = resnet18(3)
    depths = layer_depths(model)
    assert depths["fc.weight"] == depths["fc.bias"] == 0
    assert depths["layer4.1.conv2.weight"] == 1
    assert depths["layer1.0.conv1.weight"] == 8
    assert depths["conv1.weight"] == depths["bn1.bias"] == 9
    for make in (sgd, adam, adamw):
        optimizer = build_optimizer(make(layer_decay=0.5, weight_decay=0.1), model)
        set_lr(optimizer, 0.8, None)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in model.named_parameters():
            assert rates[id(parameter)] == pytest.approx(0.8 * 0.5 ** depths[name])
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


def test_rates_that_fall_with_depth_and_those_of_normalisation_multiply():
    model = resnet18(3)
    optimizer = build_optimizer(sgd(layer_decay=0.5, bias_lr_factor=4.0, weight_decay=0.1), model)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    group = found[id(dict(model.named_parameters())["layer4.1.bn2.bias"])]
    assert (group["lr_factor"], group["weight_decay"]) == (2.0, 0.025)


def test_a_network_that_numbers_nothing_has_one_block_and_a_head():
    net = nn.ModuleDict({"stem": nn.Linear(2, 2), "body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert list(layer_depths(net).values()) == [1, 1, 1, 1, 0, 0]
    assert layer_depths(nn.Linear(2, 2)) == {"weight": 0, "bias": 0}
