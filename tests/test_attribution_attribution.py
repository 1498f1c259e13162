import subprocess
import sys

import numpy as np
import pytest
import torch
from attribution_nets import Staged, pictures, pooled, seeded
from PIL import Image
from torch import nn

from sightline.attribution import METHODS, colorize, explain, explain_layers, grad_cam, overlay
from sightline.errors import SightlineError


@pytest.fixture
def model() -> nn.Module:
    return seeded(Staged)


def fails(message: str):
    return pytest.raises(SightlineError, match=message)


def test_targets_are_the_predicted_classes_or_those_that_are_asked_for(model):
    images = pictures()
    predicted = model(images).argmax(1)
    by_default = explain(model, images, layer="layer2")
    np.testing.assert_array_equal(by_default.targets, predicted)
    np.testing.assert_allclose(by_default.logits, model(images).detach(), rtol=1e-5)
    for targets in (predicted, predicted.tolist(), predicted.numpy(), predicted.to(torch.uint8)):
        np.testing.assert_array_equal(explain(model, images, targets, layer="layer2").maps, by_default.maps)
    np.testing.assert_array_equal(explain(model, images, 3, layer="layer2").targets, [3, 3, 3])


def test_a_layer_may_be_a_name_a_module_or_left_to_be_found(model):
    images = pictures(size=32)
    named, module, found = (explain(model, images, layer=layer) for layer in ("layer3", model.layer3, None))
    assert named.layer == module.layer == found.layer == "layer3"
    np.testing.assert_array_equal(named.maps, module.maps)
    np.testing.assert_array_equal(named.maps, found.maps)


def test_a_method_may_be_a_name_or_a_function(model):
    def mine(activations, gradients):
        return (activations * gradients).sum(1)

    assert METHODS["grad_cam"] is grad_cam
    images = pictures()
    result = explain(model, images, 0, layer="layer2", method=mine)
    assert result.method == "mine"
    assert not np.allclose(result.maps, explain(model, images, 0, layer="layer2").maps)


def test_a_function_of_ones_own_gets_activations_and_gradients():
    model, images = seeded(pooled), pictures()
    products = explain(model, images, 1, layer="1", method=lambda a, g: (a * g).sum(1))
    np.testing.assert_allclose(products.maps, explain(model, images, 1, layer="1").maps, rtol=1e-4, atol=1e-7)
    assert products.method == "<lambda>"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            (pictures() * 255).to(torch.uint8),
            r"images are torch.uint8; pass floats in \[0, 1\]: images.float\(\) / 255",
        ),
        (
            pictures()[0],
            r"images are \(3, 12, 12\); pass \(B, 3, H, W\): a single image goes in as image\[None\]",
        ),
        (torch.rand(3, 4), r"images are \(3, 4\); pass \(B, 3, H, W\)$"),
        (pictures()[:0], r"there are no images; pass at least one"),
        (pictures().numpy(), r"images are ndarray; pass a float tensor"),
    ],
)
@pytest.mark.parametrize("layer", ["layer2", None])
def test_images_that_do_not_fit(model, images, message, layer):
    with fails(message):
        explain(model, images, layer=layer)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1], r"targets are \(2,\) for 3 images; pass one class for all, or \(3,\)"),
        (torch.zeros(3, 1, dtype=torch.long), r"targets are \(3, 1\) for 3 images"),
        (5, "class 5 is out of range; the model has 5: 0 to 4"),
        ([0, -1, 2], "class -1 is out of range; the model has 5: 0 to 4"),
        (1.0, "targets are torch.float32; pass an integer, or one integer per image"),
        (True, "targets are torch.bool; pass an integer"),
        ("cat", "targets 'cat' are not numbers; pass an integer, or one integer per image"),
    ],
)
def test_targets_that_do_not_fit(model, targets, message):
    with fails(message):
        explain(model, pictures(), targets, layer="layer2")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layr2", "Staged has no layer 'layr2'; did you mean 'layer2'"),
        ("relu", "layer 'relu' runs several times in one forward pass, so its map is ambiguous; choose"),
        (
            "fc",
            r"layer 'fc' returns \(3, 5\), no map .*; layers with a map: stem, layer1, layer2, .*, layer4$",
        ),
        (nn.ReLU(), "the layer ReLU is not a part of this Staged"),
    ],
)
def test_layers_that_do_not_fit(model, layer, message):
    with fails(message):
        explain(model, pictures(size=32), layer=layer)


def test_a_map_of_a_single_cell_has_no_place_to_show():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with fails(r"layer '1' returns \(3, 4, 1, 1\), no map .*; layers with a map: 0"):
        explain(model, pictures(), layer="1")


class Odd(nn.Module):
    """Layers that do not run, are not used, return two things, and a backbone cut off from its head."""

    def __init__(self):
        super().__init__()
        self.idle, self.unused, self.conv = (nn.Conv2d(3, 4, 3) for _ in range(3))
        self.pair = nn.LSTM(4, 4)

    def forward(self, x):
        self.unused(x)
        with torch.no_grad():
            features = self.conv(x)
        self.pair(features.mean((2, 3)))
        return features.mean((2, 3))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("idle", "layer 'idle' did not run in this forward pass; choose one that the model calls"),
        (
            "unused",
            "no gradient flows from the logits to layer 'unused': the model does not use it for them, or",
        ),
        ("conv", "no gradient flows from the logits to layer 'conv'"),
        ("pair", "layer 'pair' returns tuple; explain needs a layer that returns one tensor of floats"),
    ],
)
def test_layers_that_the_model_treats_oddly(layer, message):
    with fails(message):
        explain(Odd(), pictures(), layer=layer)


def test_other_arguments_that_do_not_fit(model):
    with fails("method 'grad_cm' is not known; did you mean 'grad_cam' or"):
        explain(model, pictures(), layer="layer2", method="grad_cm")
    with fails(
        r"method bad returned \(3, 4, 6, 6\); a method returns a tensor \(B, h, w\), here \(3, 6, 6\)"
    ):

        def bad(activations, gradients):
            return activations[:, :4]

        explain(model, pictures(), layer="layer2", method=bad)
    with fails("batch_size is 0; it needs at least 1"):
        explain(model, pictures(), layer="layer2", batch_size=0)
    with fails(r"layers is \[\]; explain_layers needs a list of at least one layer"):
        explain_layers(model, pictures(), layers=[])
    with fails("layers is 'layer2'; explain_layers needs a list"):
        explain_layers(model, pictures(), layers="layer2")


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (
            nn.Identity(),
            r"the model returned \(3, 4, 10, 10\); explain needs logits \(B, C\): pass score=lambda output: ",
        ),
        (nn.LSTM(10, 2), r"the model returned tuple; explain needs logits \(B, C\)"),
    ],
)
def test_a_model_that_does_not_return_logits(tail, message):
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Identity() if isinstance(tail, nn.Identity) else nn.Flatten(2)
    )
    if isinstance(tail, nn.LSTM):
        tail = nn.LSTM(100, 2)
    with fails(message):
        explain(nn.Sequential(body, tail), pictures(), layer="0.0")


def test_a_model_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = Staged()
    with fails(
        "Staged was made under torch.inference_mode, so no gradient can pass through it; create or load"
    ):
        explain(model, pictures(), layer="layer2")


def test_statuses_tell_the_outcomes_apart():
    def maps(activations, gradients):
        return torch.tensor([1.0, -1.0, float("nan"), 0.0]).view(4, 1, 1).expand(4, *activations.shape[2:])

    result = explain(seeded(pooled), pictures(4), 0, layer="1", method=maps)
    assert result.status == ("constant", "no positive evidence", "not finite", "no positive evidence")
    np.testing.assert_array_equal(result.heatmaps()[1:], np.zeros((3, 12, 12)))
    assert result.heatmaps()[0].min() == 1


@pytest.mark.parametrize(
    ("bump", "status"), [(0.0, "constant"), (1e-7, "constant"), (1e-4, "ok"), (-1e-4, "ok"), (1.0, "ok")]
)
@pytest.mark.parametrize("level", [1.0, 1e-12])
def test_a_map_that_is_the_same_everywhere_is_constant_whatever_its_level(bump, status, level):
    def maps(activations, gradients):
        found = torch.full((3, *activations.shape[2:]), level)
        found[:, 1, 2] *= 1 + bump
        return found

    assert explain(seeded(pooled), pictures(3), 0, layer="1", method=maps).status == (status,) * 3


def test_heat_maps_are_of_the_images_size_unless_told(model):
    result = explain(model, pictures(size=16), layer="layer2")
    assert len(result) == 3
    assert result.image_size == (16, 16)
    np.testing.assert_array_equal(result.heatmaps(), result.heatmaps((16, 16)))
    assert result.heatmaps((5, 7)).shape == (3, 5, 7)


def test_an_overlay_takes_the_explained_images(model):
    images = pictures(size=16)
    result = explain(model, images, layer="layer2")
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(result.overlay(images), overlay(pixels, result.heatmaps()))
    np.testing.assert_array_equal(result.overlay(images, opacity=0), pixels)
    with fails(r"images range from -2 to 3; pictures need \[0, 1\]: pass them before normalisation"):
        result.overlay(torch.linspace(-2, 3, 3 * 3 * 16 * 16).view(3, 3, 16, 16))
    with fails(r"images are torch.uint8 \(3, 16, 16, 3\); pass float \(B, 3, H, W\)"):
        result.overlay(torch.from_numpy(pixels))
    with fails(r"images are torch.uint8 \(3, 3, 16, 16\); pass float"):
        result.overlay((images * 255).to(torch.uint8))
    np.testing.assert_array_equal(result.overlay(images.numpy()), result.overlay(images))


def test_what_is_saved_can_be_read_back(model, tmp_path):
    result = explain(model, pictures(size=16), [0, 1, 2], layer="layer2")
    result.save(tmp_path / "new" / "folder")
    with np.load(tmp_path / "new" / "folder" / "maps.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["maps"], result.maps)
        np.testing.assert_array_equal(file["targets"], [0, 1, 2])
        np.testing.assert_array_equal(file["logits"], result.logits)
        np.testing.assert_array_equal(file["image_size"], [16, 16])
        assert tuple(file["status"]) == result.status
        assert (file["method"], file["layer"]) == ("grad_cam", "layer2")
    files = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert files == ["heatmap-0000.png", "heatmap-0001.png", "heatmap-0002.png", "maps.npz"]
    with Image.open(tmp_path / "new" / "folder" / "heatmap-0002.png") as image:
        np.testing.assert_array_equal(np.asarray(image), colorize(result.heatmaps())[2])


def test_pictures_of_maps_need_no_torch():
    code = """
import sys, numpy as np
from sightline.attribution import Explanation, colorize, heatmap, overlay
overlay(np.zeros((1, 4, 4, 3), np.uint8), heatmap(np.ones((1, 2, 2)), (4, 4)))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_stay_functions_after_their_modules_were_imported(model):
    explain(model, pictures())
    room = sys.modules["sightline.attribution"]
    assert room.grad_cam is grad_cam
    assert room.target_layer(model, pictures()) == "layer2"
