"""Models by name or as a function: made, checked, saved and opened again."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import pytest
import torch
from annotated_types import Ge
from torch import nn

from sightline.data import Dataset, Split
from sightline.errors import (
    DamagedFileError,
    InputError,
    InputTypeError,
    NotFoundError,
    SightlineError,
    UntrustedError,
)
from sightline.models import MODELS, Normalize, create_model, load_model, save_model, summarize, to_float


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    names = tuple(f"class {k}" for k in range(10))
    return Dataset("noise", names, Split(images, np.arange(40) % 10), Split(images[:10], np.arange(10)))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_normalisation_is_the_first_layer_and_is_that_of_the_training_split(data):
    for name in MODELS:
        model = create_model(name, data)
        assert next(model.children()) is model.normalize
        pixels = data.train.images.reshape(-1, 3) / 255
        np.testing.assert_allclose(model.normalize.mean.flatten(), pixels.mean(0), rtol=1e-6)
        np.testing.assert_allclose(model.normalize.std.flatten(), pixels.std(0), rtol=1e-6)
        whitened = model.normalize(to_float(torch.from_numpy(data.train.images)))
        torch.testing.assert_close(whitened.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)


def test_the_seed_alone_decides_the_weights_and_the_global_state_is_left(data):
    before = torch.get_rng_state()
    first, again, other = (create_model("resnet18", data, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


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
    with pytest.raises(NotFoundError, match=r"model\.json is missing; train first, or resume the run"):
        load_model(tmp_path)
    model = create_model("speednet", data)
    save_model(tmp_path, model, name="speednet", options={}, data=data, epoch=1)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(DamagedFileError, match=r"model\.safetensors does not hold the weights"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(NotFoundError, match=r"model\.safetensors is missing; train first"):
        load_model(tmp_path)
    weights.write_bytes(whole)
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**card, "options": {"widths": [8, 8, 8]}}))
    with pytest.raises(
        DamagedFileError, match=r"does not hold the weights .* its tensor .* \(64, 24, 3, 3\) and not"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"class_names": [1, 2]}, r"class_names is \[1, 2\]"),
        ({"class_names": "cat"}, "class_names is 'cat'"),
        ({"image_size": [32]}, r"image_size is \[32\]"),
        ({"options": []}, r"options is \[\]"),
        ({"name": 3}, "name is 3"),
        ({"epoch": "last"}, "epoch is 'last'"),
        (
            {"options": {"widths": [1, 2]}},
            "names a model that cannot be made: options of model speednet: widths",
        ),
    ],
)
def test_a_card_that_is_something_else_is_one_line(data, tmp_path, change, problem):
    save_model(tmp_path, create_model("speednet", data), name="speednet", options={}, data=data, epoch=1)
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(card | change))
    with pytest.raises(DamagedFileError, match=problem):
        load_model(tmp_path)


def test_unknown_names_and_options_say_what_fits(data):
    with pytest.raises(SightlineError, match="model 'resnet8' is not known; did you mean 'resnet18'"):
        create_model("resnet8", data)
    with pytest.raises(SightlineError, match="options of model resnet18: width is not known; there are none"):
        create_model("resnet18", data, width=3)


def tiny(num_classes: int, normalize: Normalize, *, width: Annotated[int, Ge(1)] = 2) -> nn.Module:
    return nn.Sequential(
        normalize,
        nn.Conv2d(3, width, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


def test_a_function_serves_as_a_model_and_is_opened_again_by_its_name(data, tmp_path):
    model = create_model(tiny, data, seed=1, width=3).eval()
    named = create_model("test_models_registry:tiny", data, seed=1, width=3).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images), named(images))
    save_model(tmp_path, model, name=tiny, options={"width": 3}, data=data, epoch=1)
    assert json.loads((tmp_path / "model.json").read_text())["name"] == "test_models_registry:tiny"
    with pytest.raises(UntrustedError, match="--trust test_models_registry"):
        load_model(tmp_path)
    with pytest.raises(UntrustedError, match="--trust test_models_registry"):
        create_model("test_models_registry:tiny", data, trust=["test_models"])
    opened, _ = load_model(tmp_path, trust=["test_models_registry"])
    assert torch.equal(opened(images), model(images))
    assert torch.equal(opened[0].mean, model[0].mean)


def test_a_model_that_is_not_known_here_is_not_a_damaged_file(data, tmp_path):
    save_model(tmp_path, create_model(tiny, data), name="tiny", options={}, data=data, epoch=1)
    with pytest.raises(
        InputError, match=r"model\.json: model 'tiny' is not known; .*, or install the package"
    ) as caught:
        load_model(tmp_path)
    assert not isinstance(caught.value, DamagedFileError)


def theirs(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))


def test_a_network_that_does_not_normalise_is_given_normalised_images(data, tmp_path):
    net = theirs()
    torch.save(net.state_dict(), tmp_path / "theirs.pt")
    mean, std = (0.2, 0.3, 0.4), (0.5, 0.25, 0.125)
    made = create_model(theirs, data, weights=tmp_path / "theirs.pt", statistics=(mean, std))
    images = to_float(data.train.images[:5])
    by_hand = (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(made(images), net(by_hand))
    save_model(tmp_path, made, name=theirs, options={}, data=data, epoch=0)
    torch.testing.assert_close(load_model(tmp_path, trust=None)[0](images), net(by_hand))


def test_a_function_that_makes_no_network_is_refused(data):
    with pytest.raises(InputTypeError, match="returned a int; its function has to return"):
        create_model(lambda num_classes, normalize: 3, data)
    with pytest.raises(InputError, match=r"cannot be made with options .*: inconsistent"):
        create_model(lambda num_classes, **options: torch.zeros(2) @ torch.zeros(3), data)


def test_what_could_not_be_opened_again_is_not_saved(data, tmp_path):
    def local(num_classes, normalize):
        return nn.Sequential(normalize, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

    model = create_model(local, data)
    with pytest.raises(
        InputError, match="lives in test_models_registry, where another process cannot find it"
    ):
        save_model(tmp_path, model, name=local, options={}, data=data, epoch=1)
    with pytest.raises(
        InputError, match=r"option width of model 'tiny' is .*, which cannot be saved; numbers"
    ):
        save_model(tmp_path, model, name="tiny", options={"width": np.int64(3)}, data=data, epoch=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"widths": []}, "widths is"),
        ({"widths": [-1, 2, 3]}, r"widths\.0 is -1"),
        ({"widths": [1, 1.5, 3]}, r"widths\.1 is 1\.5"),
        ({"widths": [1, 2, float("nan")]}, r"widths\.2 is nan"),
        ({"widths": "abc"}, "widths is 'abc'"),
        ({"bn_momentum": 7}, "bn_momentum is 7"),
        ({"bn_momentum": float("nan")}, "bn_momentum is nan"),
        ({"residual": 3}, "residual is 3"),
        ({"width": [1, 2, 3]}, "width is not known; did you mean 'widths'"),
    ],
)
def test_options_are_checked_by_the_annotations(data, options, problem):
    with pytest.raises(InputError, match=problem):
        create_model("speednet", data, **options)


def test_the_summary_counts_what_is_there_and_leaves_the_modes_alone(data):
    model = create_model("resnet18", data)
    model.layer1.eval()
    text = summarize(model, data.image_size)
    assert "Total params: 11,173,962" in text
    assert "Total mult-adds (M): " in text  # and no "Units.MEGABYTES"
    assert "[1, 256, 8, 8]" in text
    assert model.training
    assert not model.layer1.training
