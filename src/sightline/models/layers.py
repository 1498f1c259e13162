"""Layers of a model by name, and names by layer, as `model.named_modules()` spells them."""

from __future__ import annotations

from torch import nn

from sightline.errors import SightlineError, nearest


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule of `model` called `name`, such as "layer3" or "backbone.layer3.0".

    Raises SightlineError with the nearest names if there is none.

    >>> find_layer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "1")
    ReLU()
    """
    # All names of a module that is held twice are valid, hence no removal of duplicates.
    modules = dict(model.named_modules(remove_duplicate=False))
    if not name or name not in modules:
        names = [known for known in modules if known]
        raise SightlineError(f"{type(model).__name__} has no layer {name!r}; {nearest(name, names)}")
    return modules[name]


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """Return the name of the submodule `layer` within `model`.

    Raises SightlineError if it is not part of the model.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> layer_name(model, model[1])
    '1'
    """
    for name, module in model.named_modules():
        if module is layer and name:
            return name
    raise SightlineError(
        f"the layer {type(layer).__name__} is not a part of this {type(model).__name__}; "
        "pass one of its submodules, or the name of one"
    )
