"""What may be passed to `explain`: each check says what came, what fits and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from sightline.errors import SightlineError, nearest
from sightline.explain.methods import METHODS, Method

Targets = int | Sequence[int] | np.ndarray | torch.Tensor


def check_images(images: torch.Tensor) -> None:
    """Accept float (B, C, H, W) with at least one image."""
    if not isinstance(images, torch.Tensor):
        raise SightlineError(
            f"images are {type(images).__name__}; pass a float tensor (B, 3, H, W) in [0, 1]"
        )
    if images.ndim != 4:
        hint = ": a single image goes in as image[None]" if images.ndim == 3 else ""
        raise SightlineError(f"images are {tuple(images.shape)}; pass (B, 3, H, W){hint}")
    if not images.is_floating_point():
        raise SightlineError(f"images are {images.dtype}; pass floats in [0, 1]: images.float() / 255")
    if not len(images):
        raise SightlineError("there are no images; pass at least one, (B, 3, H, W)")


def check_model(model: nn.Module) -> None:
    """Refuse weights that cannot take part in a gradient."""
    if any(tensor.is_inference() for tensor in _tensors(model)):
        raise SightlineError(
            f"{type(model).__name__} was made under torch.inference_mode, so no gradient can pass through "
            "it; create or load it outside"
        )


def as_input(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the images on the model's device and in its dtype."""
    like = next((tensor for tensor in _tensors(model) if tensor.is_floating_point()), images)
    images = images.detach().to(like.device, like.dtype)
    # A tensor made in inference mode cannot take part in a graph; its copy can.
    return images.clone() if images.is_inference() else images


def _tensors(model: nn.Module) -> itertools.chain[torch.Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def as_classes(targets: Targets | None, count: int) -> torch.Tensor | None:
    """Return one class per image, (B,) int64, or None for the predicted ones."""
    if targets is None:
        return None
    try:
        classes = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        raise SightlineError(
            f"targets {targets!r:.60} are not numbers; pass an integer, or one integer per image"
        ) from None
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise SightlineError(f"targets are {classes.dtype}; pass an integer, or one integer per image")
    if classes.ndim == 0:
        classes = classes.expand(count)
    if classes.shape != (count,):
        raise SightlineError(
            f"targets are {tuple(classes.shape)} for {count} images; pass one class for all, or ({count},)"
        )
    return classes.long()


def check_classes(classes: torch.Tensor, count: int) -> None:
    """Accept classes from 0 to `count` - 1."""
    for target in (int(classes.min()), int(classes.max())):
        if not 0 <= target < count:
            raise SightlineError(f"class {target} is out of range; the model has {count}: 0 to {count - 1}")


def find_method(method: str | Method) -> Method:
    """Return the function called `method`, or the one that was passed."""
    if callable(method):
        return method
    if method not in METHODS:
        raise SightlineError(f"method {method!r} is not known; {nearest(method, list(METHODS))}")
    return METHODS[method]


def check_logits(logits: object, count: int) -> None:
    """Accept a tensor (B, C)."""
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != count:
        came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise SightlineError(
            f"the model returned {came}; explain needs logits ({count}, C): "
            "wrap the model so that it returns them"
        )


def check_ran(layers: Mapping[str, nn.Module], outputs: Mapping[str, torch.Tensor]) -> None:
    """Accept outputs in which every layer left something."""
    for name in layers:
        if name not in outputs:
            raise SightlineError(
                f"layer {name!r} did not run in this forward pass; choose one that the model calls"
            )
