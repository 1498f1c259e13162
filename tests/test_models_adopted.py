"""Models that were trained on normalised pictures, adopted: the same answers, from pictures in [0, 1]."""

from __future__ import annotations

import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import sightline as sl
from sightline.errors import InputError, InputTypeError, InputWarning
from sightline.models.resnet import resnet18

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def foreign() -> nn.Module:
    """A ResNet whose normalisation is the caller's."""
    torch.manual_seed(0)
    net = resnet18(5)
    net.normalize = nn.Identity()
    return net.eval()


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_an_adopted_model_answers_as_before(foreign, images):
    adopted = sl.adopt(foreign, mean=MEAN, std=STD)
    torch.testing.assert_close(adopted(images), foreign(normalised(images)))
    assert adopted.model is foreign
    assert not adopted.training
    own, names = foreign.state_dict(), adopted.state_dict()
    assert {f"model.{name}" for name in own} < set(names)


def test_maps_are_those_of_the_model_with_the_names_of_its_layers(foreign, images):
    adopted = sl.adopt(foreign, mean=MEAN, std=STD)
    for layer in ("layer3", "model.layer3", foreign.layer3):
        explained = sl.explain(adopted, images, layer=layer)
        assert explained.layer == "model.layer3"
        expected = sl.explain(foreign, normalised(images), layer="layer3")
        np.testing.assert_allclose(explained.maps, expected.maps, atol=1e-5)
    assert sl.explain(adopted, images).layer == f"model.{sl.explain(foreign, normalised(images)).layer}"
    with pytest.raises(InputError, match=r"no layer 'layer9'; did you mean 'layer"):
        sl.explain(adopted, images, layer="layer9")


def test_integrated_gradients_begin_at_black_once_the_model_is_adopted(foreign, images):
    adopted = sl.adopt(foreign, mean=MEAN, std=STD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sl.explain(adopted, images, 0, method="integrated_gradients")
    black = normalised(torch.zeros_like(images))
    with torch.no_grad():
        gap = (foreign(normalised(images)) - foreign(black))[:, 0]
    np.testing.assert_allclose(found.maps.sum(axis=(1, 2)), gap.numpy(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("method", ["integrated_gradients", "score_cam"])
def test_normalised_pictures_are_warned_of(foreign, images, method):
    with pytest.warns(
        InputWarning, match=r"images range from -2.* to 2.*probably normalised.*sightline.adopt"
    ):
        sl.explain(foreign, normalised(images)[:1], method=method)


def test_a_comparison_of_methods_warns_of_normalised_pictures(foreign, images):
    with pytest.warns(InputWarning, match="what the measures hide"):
        sl.compare_methods(
            foreign, normalised(images)[:2], methods=["grad_cam"], measures=["deletion"], budget="fast"
        )


def test_a_model_of_timm_is_adopted_by_its_own_configuration(torchvision, images):
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet", num_classes=5).eval()
    adopted = sl.adopt_timm(net)
    config = timm.data.resolve_model_data_config(net)
    assert adopted.normalize.mean.flatten().tolist() == pytest.approx(list(config["mean"]))
    assert adopted.normalize.std.flatten().tolist() == pytest.approx(list(config["std"]))
    assert adopted.input.size == tuple(config["input_size"][1:])
    assert sl.explain(adopted, images).maps.shape[0] == 3


def test_a_processor_of_hugging_face_says_how_pictures_were_normalised(foreign, images):
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(image_mean=list(MEAN), image_std=list(STD))
    adopted = sl.adopt(foreign, processor=processor)
    torch.testing.assert_close(adopted(images), foreign(normalised(images)))
    plain = sl.adopt(foreign, processor=transformers.ViTImageProcessor(do_normalize=False))
    torch.testing.assert_close(plain(images), foreign(images))


def test_what_does_not_fit_is_one_line(foreign):
    adopted = sl.adopt(foreign, mean=MEAN, std=STD)
    cases = [
        ({}, "mean= and std=, or processor="),
        ({"mean": MEAN}, "mean= and std=, or processor="),
        ({"mean": MEAN, "std": STD[:2]}, "one number per channel"),
        ({"mean": MEAN, "std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "divide both by 255"),
        ({"processor": types.SimpleNamespace()}, "no image_mean and image_std"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            sl.adopt(foreign, **options)
    with pytest.raises(InputError, match="adopted already"):
        sl.adopt(adopted, mean=MEAN, std=STD)
    with pytest.raises(InputTypeError, match=r"adopt takes an nn\.Module"):
        sl.adopt("resnet18", mean=MEAN, std=STD)
    with pytest.raises(InputError, match="no pretrained_cfg"):
        sl.adopt_timm(foreign)
