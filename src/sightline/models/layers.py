"""The layer that every model here begins with; and layers by name, as `named_modules()` spells them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sightline.errors import InputError, nearest


class Normalize(nn.Module):
    """(x - mean) / std per channel, (B, 3, H, W) to (B, 3, H, W): images in [0, 1] in, no parameters."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.25, 0.25, 0.25)):
        super().__init__()
        self.register_buffer("mean", torch.tensor([float(m) for m in mean]).view(1, -1, 1, 1))
        # A channel that never varies would divide by zero: one grey level is the smallest step there is.
        self.register_buffer("std", torch.tensor([max(float(s), 1 / 255) for s in std]).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class Normalized(nn.Module):
    """A network of somebody else's behind the normalisation of its images: images in [0, 1] in."""

    def __init__(self, normalize: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.normalize, self.net = normalize, net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(self.normalize(images))


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule of `model` called `name`, such as "layer3" or "backbone.layer3.0".

    Raises:
        InputError: There is none; the error has the nearest names.

    >>> find_layer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "1")
    ReLU()
    """
    return dict(model.named_modules(remove_duplicate=False))[full_name(model, name)]


def full_name(model: nn.Module, name: str) -> str:
    """Return the name of a submodule as `named_modules` spells it; of an adopted model its own names serve.

    Raises:
        InputError: There is none; the error has the nearest names.
    """
    # All names of a module that is held twice are valid, hence no removal of duplicates.
    known = dict(model.named_modules(remove_duplicate=False))
    inner = f"{getattr(model, 'inner', '')}."
    within = inner + name
    if name and (name in known or within in known):
        return name if name in known else within
    names = [one.removeprefix(inner) for one in known if one]
    raise InputError(f"{type(model).__name__} has no layer {name!r}; {nearest(name, names)}")


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """Return the name of the submodule `layer` within `model`.

    Raises:
        InputError: It is not part of the model.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> layer_name(model, model[1])
    '1'
    """
    for name, module in model.named_modules():
        if module is layer and name:
            return name
    raise InputError(
        f"the layer {type(layer).__name__} is not a part of this {type(model).__name__}; "
        "pass one of its submodules, or the name of one"
    )
