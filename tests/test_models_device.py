"""Devices and precisions by name, modes that come back, bytes to floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.data import Dataset, Split
from sightline.errors import SightlineError
from sightline.models import choose_device, choose_precision, create_model, evaluating, to_float


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    names = tuple(f"class {k}" for k in range(10))
    return Dataset("noise", names, Split(images, np.arange(40) % 10), Split(images[:10], np.arange(10)))


def test_modes_come_back_module_by_module(data):
    model = create_model("resnet18", data)
    model.layer2.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training
    assert not any(module.training for module in model.layer2.modules())
    assert all(module.training for module in model.layer3.modules())


def test_devices_and_precisions_by_name():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(SightlineError, match="device 'gpu' is not known; use auto, cpu, cuda or mps"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(SightlineError, match="device 'cuda' is not available"):
            choose_device("cuda")
    assert choose_precision("float32", torch.device("cpu")) == "float32"
    assert choose_precision("auto", torch.device("cpu")) in ("float32", "bfloat16")


def test_bytes_become_floats_between_0_and_1_in_channels_last_memory():
    images = torch.randint(0, 256, (4, 5, 6, 3), dtype=torch.uint8)
    floats = to_float(images)
    assert torch.equal((floats * 255).round().to(torch.uint8).permute(0, 2, 3, 1), images)
    assert floats.is_contiguous(memory_format=torch.channels_last)


def test_only_bytes_become_floats():
    with pytest.raises(
        SightlineError, match=r"images are torch.float32 \(1, 3, 4, 4\); to_float takes uint8"
    ):
        to_float(torch.rand(1, 3, 4, 4))
