"""What the preflight says is checked against what the methods do."""

import numpy as np
import pytest
import torch
from attribution_nets import Staged, nonlinear, pictures, pooled, seeded
from torch import nn

from sightline.attribution import METHODS, explain, preflight
from sightline.errors import SightlineError


def scaled(maps: np.ndarray) -> np.ndarray:
    return maps / np.abs(maps).max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (pooled, "1"),
        (Staged, "layer4"),
        (Staged, "layer3"),
        (nonlinear, "2"),
        (nonlinear, "1"),
        (pooled, "0"),
    ],
)
def test_methods_coincide_as_it_says_and_others_do_not(build, layer):
    model, images = seeded(build), pictures(size=12 if build is not Staged else 24)
    groups = preflight(model, images, layer).coincide
    names = {name for group in groups for name in group}
    for group in groups:
        first, *others = (scaled(explain(model, images, 1, layer=layer, method=name).maps) for name in group)
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-3, atol=1e-5)
    if not {"grad_cam", "hires_cam"} <= names:
        one, other = (
            scaled(explain(model, images, 1, layer=layer, method=name).maps)
            for name in ("grad_cam", "hires_cam")
        )
        assert not np.allclose(one, other, rtol=1e-3, atol=1e-5)
    assert names <= METHODS.keys()


def test_an_exact_head_is_named_where_it_is():
    model, images = seeded(Staged), pictures(size=24)
    found = preflight(model, images)
    assert (found.layer, found.grid, found.channels) == ("layer3", (6, 6), 8)
    assert (found.exact, found.head, found.exact_layer) == (False, None, "layer4")
    assert "Maps are approximate at this layer, and exact at 'layer4', which is pooled for a" in str(found)
    last = preflight(model, images, model.layer4)
    assert (last.exact, last.head, last.exact_layer) == (True, "fc", "layer4")
    assert last.coincide[0] == ("cam", "grad_cam", "hires_cam", "xgrad_cam", "shapley_cam")
    assert "The head 'fc' is linear in the pooled layer: maps of classes are exact" in str(last)
    nowhere = preflight(seeded(nonlinear), pictures(), "2")
    assert (nowhere.exact, nowhere.exact_layer) == (False, None)
    assert "Maps are approximate: no layer was found that is pooled for a linear head." in str(nowhere)


def test_a_hidden_layer_after_pooling_leaves_the_gradient_constant():
    model = seeded(Staged)
    model.fc = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5))
    found = preflight(model, pictures(size=24), "layer4")
    assert not found.exact
    assert found.coincide[0] == ("grad_cam", "hires_cam", "xgrad_cam")


def hazards(model: nn.Module, images, layer=None) -> str:
    return "\n".join(preflight(model, images, layer).hazards)


def test_hazards_are_said_each_in_a_sentence():
    images = pictures(size=24)
    assert preflight(seeded(Staged), images).hazards == ()
    assert str(preflight(seeded(Staged), images)).endswith("No hazards were found.")
    coarse = hazards(seeded(Staged), images, "layer4")
    assert coarse == "the map has 3x3 cells, too few to say where; layer 'layer3' is finer."
    in_place = hazards(seeded(Staged), images, "layer3.1")
    assert (
        "an in-place operation overwrites the output of this layer; the maps here are made from a" in in_place
    )
    assert "% of the layer's output is below 0, as its last step is not a ReLU: xgrad_cam" in in_place
    frozen = seeded(Staged)
    frozen.stem.requires_grad_(False)
    assert "4 of 22 parameters are frozen: maps do not need their gradients" in hazards(frozen, images)


def test_a_dead_layer_is_said():
    model = seeded(Staged)
    with torch.no_grad():
        model.fc.weight.zero_()
    assert "does not react to this layer (zero gradient) for 3 of 3 images" in hazards(
        model, pictures(size=24), "layer3"
    )


def test_a_layer_cut_off_from_the_logits_is_a_hazard_not_an_error():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)).detach())

    said = hazards(Detached(), pictures(), "conv")
    assert said.startswith("no gradient flows from the logits to layer 'conv'")


def test_a_shape_serves_in_place_of_images():
    assert preflight(seeded(Staged), (1, 3, 24, 24)).layer == "layer3"
    assert preflight(seeded(Staged), torch.Size([2, 3, 32, 32])).grid == (8, 8)
    with pytest.raises(SightlineError, match=r"the shape is \(3, 24, 24\); pass \(B, C, H, W\), such as"):
        preflight(seeded(Staged), (3, 24, 24))


def test_wrong_use_is_an_error_as_for_explain():
    with pytest.raises(SightlineError, match="Staged has no layer 'layr3'; did you mean 'layer3'"):
        preflight(seeded(Staged), pictures(), "layr3")
    with pytest.raises(SightlineError, match="layer 'relu' runs several times in one forward pass"):
        preflight(seeded(Staged), pictures(), "relu")
    with pytest.raises(SightlineError, match=r"images are torch\.uint8; pass floats"):
        preflight(seeded(Staged), pictures().to(torch.uint8))
