"""The residual networks: sizes and maps as published, layers written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data import Dataset, Split
from sightline.models import create_model


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    names = tuple(f"class {k}" for k in range(10))
    return Dataset("noise", names, Split(images, np.arange(40) % 10), Split(images[:10], np.arange(10)))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_published_ones(data):
    assert count(create_model("resnet18", data)) == 11_173_962
    assert count(create_model("custom_resnet", data)) == 6_573_130
    assert count(create_model("resnet34", data)) == 21_282_122


def maps_of(model: nn.Module, layers: list[str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for name in layers:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda m, i, o, name=name: found.update({name: tuple(o.shape[1:])}))
    with torch.no_grad():
        model(torch.rand(2, 3, 32, 32))
    return found


def test_maps_have_the_published_sizes(data):
    layers = ["layer1", "layer2", "layer3", "layer4"]
    assert maps_of(create_model("resnet18", data), layers) == {
        "layer1": (64, 32, 32), "layer2": (128, 16, 16), "layer3": (256, 8, 8), "layer4": (512, 4, 4),
    }  # fmt: skip
    assert maps_of(create_model("custom_resnet", data), ["prep", *layers[:3]]) == {
        "prep": (64, 32, 32), "layer1": (128, 16, 16), "layer2": (256, 8, 8), "layer3": (512, 4, 4),
    }  # fmt: skip
    blocks = ["block1", "block2", "block3"]
    assert maps_of(create_model("speednet", data), blocks) == {
        "block1": (64, 15, 15), "block2": (128, 7, 7), "block3": (256, 3, 3),
    }  # fmt: skip


def test_custom_resnet_equals_its_layers_written_out(data):
    model = create_model("custom_resnet", data).eval()
    state = model.state_dict()
    for name in state:  # running statistics that are not 0 and 1
        if name.endswith(("running_mean", "running_var")):
            state[name].uniform_(0.5, 1.5)
    x = torch.rand(2, 3, 32, 32)

    def conv(x, conv_name, bn_name, pool=False):
        x = nn.functional.conv2d(x, state[f"{conv_name}.weight"], padding=1)
        x = nn.functional.max_pool2d(x, 2) if pool else x
        mean, var = state[f"{bn_name}.running_mean"], state[f"{bn_name}.running_var"]
        weight, bias = state[f"{bn_name}.weight"], state[f"{bn_name}.bias"]
        scaled = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return (scaled * weight[:, None, None] + bias[:, None, None]).clamp(min=0)

    y = (x - model.normalize.mean) / model.normalize.std
    y = conv(y, "prep.0", "prep.1")
    for layer, residual in (("layer1", True), ("layer2", False), ("layer3", True)):
        first = f"{layer}.reduce" if residual else layer
        y = conv(y, f"{first}.0", f"{first}.2", pool=True)
        if residual:
            inner = conv(y, f"{layer}.residual.0.0", f"{layer}.residual.0.1")
            y = y + conv(inner, f"{layer}.residual.1.0", f"{layer}.residual.1.1")
    y = nn.functional.max_pool2d(y, 4).flatten(1)
    expected = y @ state["fc.weight"].T + state["fc.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
