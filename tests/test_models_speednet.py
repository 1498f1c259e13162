"""The fast small network: whitening, identity at the start, layers written out, small images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data import Dataset, Split
from sightline.errors import InputError
from sightline.models import create_model, to_float


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    names = tuple(f"class {k}" for k in range(10))
    return Dataset("noise", names, Split(images, np.arange(40) % 10), Split(images[:10], np.arange(10)))


def test_whitened_patches_are_uncorrelated_with_equal_spread():
    # Large noise makes every eigenvalue large against eps, so whitening is exact up to the sample.
    generator = np.random.default_rng(1)
    base = generator.normal(128, 40, (200, 16, 16, 1)) + generator.normal(0, 30, (200, 16, 16, 3))
    images = np.clip(base, 0, 255).astype(np.uint8)
    noise = Dataset("noise", ("a", "b"), Split(images, np.arange(200) % 2), Split(images, np.arange(200) % 2))
    model = create_model("speednet", noise)
    with torch.no_grad():
        out = model.whitening(model.normalize(to_float(torch.from_numpy(images))))
    out = out.permute(1, 0, 2, 3).flatten(1).double()  # (24, pixels)
    moments = out @ out.T / out.shape[1]
    torch.testing.assert_close(moments[:12, :12], torch.eye(12).double(), rtol=0, atol=2e-2)
    torch.testing.assert_close(out[12:], -out[:12], rtol=0, atol=1e-6)
    assert not model.whitening.weight.requires_grad


def test_speednet_starts_as_the_identity_and_its_scales_do_not_train(data):
    model = create_model("speednet", data)
    x = torch.rand(2, 24, 8, 8)
    torch.testing.assert_close(model.block1.conv1(x)[:, :24], x)
    assert not model.block1.bn1.weight.requires_grad
    assert model.block1.bn1.bias.requires_grad


def test_speednet_has_the_published_layers(data):
    # 24 whitening biases; the convolutions and the biases of their norms; the head.
    small, large = (64, 256, 256), (128, 512, 512)
    expected = {
        (small, False): 24 + 10 * 256, (large, True): 24 + 10 * 512,
    }  # fmt: skip
    for (widths, residual), total in expected.items():
        for inputs, outputs in zip((24, *widths), widths, strict=False):
            total += 9 * inputs * outputs + outputs + (1 + residual) * (9 * outputs**2 + outputs)
        model = create_model("speednet", data, widths=widths, residual=residual)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == total


@pytest.mark.parametrize("size", [1, 4, 8])
def test_images_that_are_too_small_are_one_line(size):
    images = np.zeros((4, size, size, 3), np.uint8)
    small = Dataset("small", ("a", "b"), Split(images, np.arange(4) % 2), Split(images, np.arange(4) % 2))
    with pytest.raises(InputError, match=f"images of {size}x{size} pixels: speednet needs at least 9x9"):
        create_model("speednet", small)


def test_the_smallest_images_that_fit_do():
    images = np.zeros((4, 9, 9, 3), np.uint8)
    small = Dataset("small", ("a", "b"), Split(images, np.arange(4) % 2), Split(images, np.arange(4) % 2))
    assert create_model("speednet", small)(torch.rand(2, 3, 9, 9)).shape == (2, 2)


def test_a_residual_block_equals_its_layers_written_out(data):
    block = create_model("speednet", data, widths=[8, 8, 8], residual=True, bn_momentum=0.1).block1
    assert {m.momentum for m in block.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    x = torch.rand(4, 24, 8, 8)
    act = nn.functional.gelu

    def norm(y):  # by the batch: no scale, no bias at first
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), keepdim=True, unbiased=False)
        return (y - mean) / (var + 1e-5).sqrt()

    def conv(y, layer):
        return nn.functional.conv2d(y, layer.weight, padding=1)

    first = act(norm(nn.functional.max_pool2d(conv(x, block.conv1), 2)))
    inner = norm(conv(act(norm(conv(first, block.conv2))), block.conv3))
    torch.testing.assert_close(block(x), act(first + inner), rtol=1e-4, atol=1e-5)
