"""Layers by name and names by layer; the layer that every model begins with."""

from __future__ import annotations

import pytest
import torch
from attribution_nets import Staged, Wrapped
from torch import nn

from sightline.errors import SightlineError
from sightline.models.layers import Normalize, find_layer, layer_name


def test_a_layer_is_found_by_its_dotted_name_and_named_again():
    model = Wrapped(Staged())
    layer = find_layer(model, "backbone.layer3.0")
    assert layer is model.backbone.layer3[0]
    assert layer_name(model, layer) == "backbone.layer3.0"


def test_a_module_held_twice_is_found_by_either_name():
    model = nn.Module()
    model.first = nn.ReLU()
    model.second = model.first
    assert find_layer(model, "second") is find_layer(model, "first")
    assert layer_name(model, model.second) == "first"


@pytest.mark.parametrize("name", ["laier3", "Layer3"])
def test_an_unknown_layer_is_an_error_with_near_names(name):
    with pytest.raises(SightlineError, match=f"Staged has no layer '{name}'; did you mean 'layer3'"):
        find_layer(Staged(), name)


def test_the_model_itself_is_not_one_of_its_layers():
    model = Staged()
    with pytest.raises(SightlineError, match="Staged has no layer ''"):
        find_layer(model, "")
    with pytest.raises(
        SightlineError, match="the layer Staged is not a part of this Staged; pass one of its"
    ):
        layer_name(model, model)


def test_a_foreign_layer_is_an_error():
    with pytest.raises(SightlineError, match="the layer ReLU is not a part of this Staged"):
        layer_name(Staged(), nn.ReLU())


def test_a_channel_that_never_varies_stays_finite():
    assert Normalize([0.5] * 3, [0.0] * 3)(torch.full((1, 3, 2, 2), 0.5)).abs().max() == 0
