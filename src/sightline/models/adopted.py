"""A model that expects normalised pictures, adopted in one call: pictures in [0, 1] go in from then on.

    model = adopt(their_model, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = adopt_timm(timm.create_model("resnet50.a1_in1k", pretrained=True))
    model = adopt(their_model, processor=AutoImageProcessor.from_pretrained("their/model"))

Black is black then: methods that begin at a black picture, fill or dim pixels, and every picture that is
shown, speak of the same [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sightline.errors import InputError, InputTypeError
from sightline.models.backbones import InputSpec
from sightline.models.layers import Normalize


class Adopted(nn.Module):
    """`normalize`, then `model`; whatever the model returns is returned.

    Attributes:
        normalize: (x - mean) / std per channel.
        model: As it was. Its layers can be named as before: `layer="layer4"` is `model.layer4`.
        input: What it was trained with, where timm's configuration has said so; else None.
    """

    inner = "model"  # where `find_layer` looks for a name that is not of this module

    input: InputSpec | None = None

    def __init__(self, model: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.normalize, self.model = normalize, model
        self.train(model.training)

    def forward(self, images: torch.Tensor, **options: Any) -> Any:
        """Return what the model makes of images (B, C, H, W) in [0, 1]."""
        return self.model(self.normalize(images), **options)


def adopt(
    model: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    processor: Any = None,
) -> Adopted:
    """Wrap a model whose pictures were normalised outside of it, so that it takes pictures in [0, 1].

    Args:
        model: Any module; it is not copied, and stays in its mode and on its device.
        mean: Per channel, of pictures in [0, 1], as they were normalised with.
        std: Per channel.
        processor: Of the Hugging Face kind, in place of both: an object with `image_mean`, `image_std`.

    Raises:
        InputError: Neither or both are given, or they do not fit; of a wrong type: InputTypeError.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model is a {type(model).__name__}; adopt takes an nn.Module")
    if isinstance(model, Adopted):
        raise InputError("the model is adopted already; adopt model.model to change its statistics")
    given = mean is not None or std is not None
    if given == (processor is not None) or (given and (mean is None or std is None)):
        raise InputError("adopt takes mean= and std=, or processor=; pass one of the two ways")
    if mean is None or std is None:
        mean, std = _statistics(processor)
    if len(mean) != len(std) or not len(mean) or not all(float(s) > 0 for s in std):
        raise InputError(
            f"mean is {tuple(mean)} and std {tuple(std)}; both need one number per channel, std above 0"
        )
    if max(map(abs, map(float, mean))) > 2 or max(map(float, std)) > 2:
        raise InputError(
            f"mean {tuple(mean)} and std {tuple(std)} are of pictures from 0 to 255; divide both by 255"
        )
    like = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), None)
    normalize = Normalize(mean, std)
    return Adopted(model, normalize if like is None else normalize.to(like.device, like.dtype))


def adopt_timm(model: nn.Module) -> Adopted:
    """Adopt a model of timm by the mean and the standard deviation of its own configuration.

    Args:
        model: As `timm.create_model` returns it. Its input size and interpolation are in `.input`.

    Raises:
        InputError: It has no configuration of timm.
    """
    config = getattr(model, "pretrained_cfg", None)
    table = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    if not {"mean", "std"} <= set(table):
        raise InputError(
            f"{type(model).__name__} has no pretrained_cfg with mean and std, as models of timm have; pass "
            "them to adopt(model, mean=, std=)"
        )
    size = tuple(table.get("input_size") or (3, 224, 224))[1:]
    adopted = adopt(model, mean=tuple(table["mean"]), std=tuple(table["std"]))
    adopted.input = InputSpec(
        (int(size[0]), int(size[1])), tuple(table["mean"]), tuple(table["std"]),
        str(table.get("interpolation") or "bilinear"),
    )  # fmt: skip
    return adopted


def _statistics(processor: Any) -> tuple[Sequence[float], Sequence[float]]:
    if getattr(processor, "do_normalize", True) is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if mean is None or std is None:
        raise InputError(
            f"{type(processor).__name__} has no image_mean and image_std, as image processors have; pass "
            "mean= and std="
        )
    return mean, std
