"""Models: sizes and maps as published, normalisation inside, saved and opened again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data import Dataset, Split
from sightline.errors import SightlineError
from sightline.models import (
    MODELS,
    Normalize,
    choose_device,
    choose_precision,
    create_model,
    evaluating,
    load_model,
    save_model,
    summarize,
    to_float,
)


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


def test_normalisation_is_the_first_layer_and_is_that_of_the_training_split(data):
    for name in MODELS:
        model = create_model(name, data)
        assert next(model.children()) is model.normalize
        pixels = data.train.images.reshape(-1, 3) / 255
        np.testing.assert_allclose(model.normalize.mean.flatten(), pixels.mean(0), rtol=1e-6)
        np.testing.assert_allclose(model.normalize.std.flatten(), pixels.std(0), rtol=1e-6)
        whitened = model.normalize(to_float(torch.from_numpy(data.train.images)))
        torch.testing.assert_close(whitened.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)


def test_a_channel_that_never_varies_stays_finite():
    assert Normalize([0.5] * 3, [0.0] * 3)(torch.full((1, 3, 2, 2), 0.5)).abs().max() == 0


def test_the_seed_alone_decides_the_weights_and_the_global_state_is_left(data):
    before = torch.get_rng_state()
    first, again, other = (create_model("resnet18", data, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


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


def test_a_saved_model_gives_the_same_logits(data, tmp_path):
    model = create_model("speednet", data, seed=5, widths=[8, 16, 24]).eval()
    save_model(tmp_path, model, name="speednet", options={"widths": [8, 16, 24]}, data=data, epoch=3)
    opened, card = load_model(tmp_path)
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(opened(x), model(x))
    assert not opened.training
    assert card["parameters"] == count(model)
    assert card["class_names"] == list(data.class_names)
    assert card["image_size"] == [32, 32]
    assert card["epoch"] == 3


def test_damaged_model_files_are_one_clear_line(data, tmp_path):
    with pytest.raises(SightlineError, match=r"model\.json is missing; train first, or resume the run"):
        load_model(tmp_path)
    model = create_model("speednet", data)
    save_model(tmp_path, model, name="speednet", options={}, data=data, epoch=1)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(SightlineError, match="does not hold the weights"):
        load_model(tmp_path)
    weights.write_bytes(whole)
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**card, "options": {"widths": [8, 8, 8]}}))
    with pytest.raises(SightlineError, match="does not hold the weights"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**card, "name": "resnet99"}))
    with pytest.raises(
        SightlineError, match="names a model that cannot be made: model 'resnet99' is not known; did you mean"
    ):
        load_model(tmp_path)


def test_unknown_names_and_options_say_what_fits(data):
    with pytest.raises(SightlineError, match="model 'resnet8' is not known; did you mean 'resnet18'"):
        create_model("resnet8", data)
    with pytest.raises(SightlineError, match="options of model resnet18: width is not known; there are none"):
        create_model("resnet18", data, width=3)


def test_a_function_serves_as_a_model(data):
    def tiny(num_classes, normalize):
        return nn.Sequential(normalize, nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))

    assert create_model(tiny, data)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_the_summary_counts_what_is_there_and_leaves_the_modes_alone(data):
    model = create_model("resnet18", data)
    model.layer1.eval()
    text = summarize(model, data.image_size)
    assert "Total params: 11,173,962" in text
    assert "[1, 256, 8, 8]" in text
    assert model.training
    assert not model.layer1.training


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
        with pytest.raises(SightlineError, match="device 'cuda' is not there"):
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
