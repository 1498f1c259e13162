"""CAM, ShapleyCAM and Finer-CAM: methods that ask what follows the layer for more than a gradient."""

from functools import partial

import numpy as np
import pytest
import torch
from explain_nets import Staged, nonlinear, pictures, pooled, seeded
from torch import nn

from sightline.attribution import METHODS, explain
from sightline.errors import SightlineError


def test_cam_finds_the_layer_that_is_pooled_and_needs_no_gradient():
    model, images = seeded(Staged).requires_grad_(False), pictures(size=24)
    result = explain(model, images, [4, 0, 2], method="cam")
    assert (result.layer, result.maps.shape) == ("layer4", (3, 3, 3))
    A = []
    model.layer4.register_forward_hook(lambda module, inputs, output: A.append(output))
    model(images)
    for i, target in enumerate([4, 0, 2]):
        expected = sum(model.fc.weight[target, k] * A[0][i, k] for k in range(8))
        np.testing.assert_allclose(result.maps[i], expected, rtol=1e-5, atol=1e-6)


def test_cam_of_a_convolution_as_head():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    images = pictures()
    result = explain(model, images, 2, method="cam", layer="1")
    expected = model[2](model[:2](images))[:, 2] - model[2].bias[2]
    np.testing.assert_allclose(result.maps, expected.detach(), rtol=1e-4, atol=1e-6)


def test_cam_refuses_what_is_not_its_head():
    message = r"cam needs global average pooling and a linear head right after the layer, and 'layer3' is "
    with pytest.raises(SightlineError, match=message + r".*; use layer 'layer4', which is pooled"):
        explain(seeded(Staged), pictures(size=24), method="cam", layer="layer3")
    with pytest.raises(SightlineError, match=r"cam needs .* use hires_cam or grad_cam"):
        explain(seeded(nonlinear), pictures(), method="cam")
    maximum = seeded(pooled)
    maximum[2] = nn.AdaptiveMaxPool2d(1)  # looks the same, and is told by its numbers
    with pytest.raises(SightlineError, match="cam needs global average pooling"):
        explain(maximum, pictures(), method="cam", layer="1")


def tail_of_nonlinear(model: nn.Module, A: torch.Tensor, target: int) -> torch.Tensor:
    return model[3:](A[None])[0, target]


def test_shapley_cam_equals_second_differences():
    model, images = seeded(nonlinear).double(), pictures(2).double()
    result = explain(model, images, 1, layer="2", method="shapley_cam")
    for i, A in enumerate(model[:3](images).detach()):

        def gradient(scale: float, A=A) -> torch.Tensor:
            leaf = (scale * A).requires_grad_()
            return torch.autograd.grad(tail_of_nonlinear(model, leaf, 1), leaf)[0]

        step = 1e-5
        product = (gradient(1 + step) - gradient(1 - step)) / (2 * step)  # H A
        weights = (gradient(1) - product / 2).mean((1, 2))
        np.testing.assert_allclose(result.maps[i], (weights[:, None, None] * A).sum(0), rtol=1e-5, atol=1e-9)
        assert product.abs().max() > 1e-4


def test_shapley_cam_worked_out_by_hand():
    # y = (sum of A)^2 with A = [1 2]: g = 2 * 3 = 6, H A = 2 * 3 = 6 in each cell, so w = 6 - 3 = 3.
    class Square(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) ** 2

    model = nn.Sequential(nn.Identity(), Square())
    result = explain(model, torch.tensor([[[[1.0, 2.0]]]]), layer="0", method="shapley_cam")
    np.testing.assert_allclose(result.maps, [[[3.0, 6.0]]])


@pytest.mark.parametrize("build", [nonlinear, pooled])
def test_finer_cam_is_the_grad_cam_of_the_contrast(build):
    model, images, targets = seeded(build), pictures(4), [0, 1, 2, 3]
    result = explain(model, images, targets, layer="1", method="finer_cam")
    each = np.stack([explain(model, images, c, layer="1").maps for c in range(4)])  # (C, B, h, w)
    for i, target in enumerate(targets):  # three others of four classes: all are similar
        others = np.mean([each[c, i] for c in range(4) if c != target], axis=0)
        np.testing.assert_allclose(result.maps[i], each[target, i] - 0.6 * others, rtol=1e-4, atol=1e-7)


def test_finer_cam_compares_with_the_nearest_logits():
    model, images = seeded(pooled, classes=7), pictures(3)
    logits = model(images).detach()
    method = partial(METHODS["finer_cam"], gamma=1.0, similar=2)
    result = explain(model, images, 5, layer="1", method=method)
    assert result.method == "finer_cam"
    each = np.stack([explain(model, images, c, layer="1").maps for c in range(7)])
    for i in range(3):
        distance = {c: abs(float(logits[i, c] - logits[i, 5])) for c in range(7) if c != 5}
        near = sorted(distance, key=distance.get)[:2]
        np.testing.assert_allclose(result.maps[i], each[5, i] - each[near, i].mean(0), rtol=1e-4, atol=1e-7)


def test_finer_cam_needs_another_class():
    with pytest.raises(SightlineError, match="finer_cam compares classes, and the model has a single one"):
        explain(seeded(pooled, classes=1), pictures(), method="finer_cam")
