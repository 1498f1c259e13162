"""Checks of what is passed to `explain`: each error says what came, what fits and what to do."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from sightline.errors import InputError, InputTypeError, InputWarning

Targets = int | Sequence[int] | np.ndarray | torch.Tensor | Callable[[torch.Tensor], torch.Tensor]


def check_images(images: torch.Tensor) -> None:
    """Accept float (B, C, H, W) or (B, C, D, H, W) with at least one image."""
    if not isinstance(images, torch.Tensor):
        raise InputTypeError(
            f"images are {type(images).__name__}; pass a float tensor (B, 3, H, W) in [0, 1]"
        )
    if images.ndim not in (4, 5):
        hint = ": a single image goes in as image[None]" if images.ndim == 3 else ""
        raise InputError(f"images are {tuple(images.shape)}; pass (B, 3, H, W){hint}")
    if not images.is_floating_point():
        raise InputTypeError(f"images are {images.dtype}; pass floats in [0, 1]: images.float() / 255")
    if not len(images):
        raise InputError("there are no images; pass at least one, (B, 3, H, W)")
    if images.is_meta:
        raise InputError("the images are on the meta device, which holds no numbers; pass real ones")


def warn_of_normalised(images: torch.Tensor, consequence: str) -> None:
    """Warn, with what follows from it, of images that are no pictures in [0, 1], normalised ones above all.

    Python shows the warning once for each place.
    """
    low, high = float(images.min()), float(images.max())
    if low < -1e-3 or high > 1 + 1e-3:
        warnings.warn(
            f"images range from {low:.3g} to {high:.3g}, so they are probably normalised, and {consequence}; "
            "pass pictures in [0, 1] to sightline.adopt(model, mean=..., std=...)",
            InputWarning,
            stacklevel=2,
        )


def check_model(model: nn.Module) -> None:
    """Refuse what cannot be hooked, and weights that cannot take part in a gradient."""
    if isinstance(model, torch.jit.ScriptModule):
        raise InputTypeError(
            "the model is a torch.jit module, whose layers cannot be watched; pass the nn.Module that it was "
            "made of"
        )
    if any(tensor.is_meta for tensor in _tensors(model)):
        raise InputError(
            f"{type(model).__name__} has weights on the meta device, which hold no numbers; load them first"
        )
    if any(tensor.is_inference() for tensor in _tensors(model)):
        raise InputError(
            f"{type(model).__name__} was made under torch.inference_mode, so no gradient can pass through "
            "it; create or load it outside"
        )


def reason_of_failure(model: nn.Module, images: torch.Tensor, error: Exception) -> str | None:
    """Return the one line that says why a model did not take these images, if it is a known reason."""
    name = type(model).__name__
    if isinstance(error, TypeError) and len(missing := _required(model)) > 1:
        return (
            f"{name} takes {len(missing)} inputs ({', '.join(missing)}); pass a module whose forward takes "
            "the images alone and adds the others"
        )
    if "Guard failed" in str(error) and ".size()[0]" in str(error):
        size = str(error).rpartition("==")[2].strip()
        return (
            f"the exported program takes batches of {size} alone, and explain passes 1 and more; export it "
            "with a dynamic first dimension, dynamic_shapes=({0: torch.export.Dim.AUTO},)"
        )
    if images.ndim == 4 and isinstance(error, RuntimeError):
        first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
        wanted = first.in_channels if first else None
        if images.shape[3] == wanted != images.shape[1]:
            return (
                f"images are {tuple(images.shape)}, channels last, and {name} takes (B, {wanted}, H, W); "
                "pass images.permute(0, 3, 1, 2)"
            )
    return None


def _required(model: nn.Module) -> list[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in kinds and one.default is one.empty]


def as_input(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the images on the model's device and in its dtype."""
    like = next((tensor for tensor in _tensors(model) if tensor.is_floating_point()), images)
    images = images.detach().to(like.device, like.dtype)
    # A tensor made in inference mode cannot take part in a graph; its copy can.
    return images.clone() if images.is_inference() else images


def _tensors(model: nn.Module) -> itertools.chain[torch.Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def as_classes(targets: Targets | None, count: int) -> Targets | None:
    """Return one class per image, (B,) int64; None (the predicted ones) and functions stay."""
    if targets is None or callable(targets):
        return targets
    try:
        classes = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(
            f"targets {targets!r:.60} are not numbers; pass an integer, or one integer per image"
        ) from None
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise InputTypeError(f"targets are {classes.dtype}; pass an integer, or one integer per image")
    if classes.ndim == 0:
        classes = classes.expand(count)
    if classes.shape != (count,):
        raise InputError(
            f"targets are {tuple(classes.shape)} for {count} images; pass one class for all, or ({count},)"
        )
    return classes.long()


def choose_classes(targets: Targets | None, logits: torch.Tensor) -> torch.Tensor:
    """Return the class of each image, (B,) int64: the predicted one, or what `targets` makes of the logits.

    Raises:
        InputError: The model does not have such a class.
    """
    if targets is None:
        return logits.argmax(dim=1)
    if callable(targets):
        targets = targets(logits)
    classes = as_classes(targets, len(logits))
    if not isinstance(classes, torch.Tensor):
        raise InputTypeError(
            f"the function for targets returned {type(classes).__name__}; it needs one integer per image"
        )
    count = logits.shape[1]
    for target in (int(classes.min()), int(classes.max())):
        if not 0 <= target < count:
            raise InputError(f"class {target} is out of range; the model has {count}: 0 to {count - 1}")
    return classes.to(logits.device, copy=True)


def check_batch_size(batch_size: int) -> None:
    """Accept 1 and more."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it needs at least 1")


def check_logits(output: object, count: int, *, scored: bool = False) -> torch.Tensor:
    """Accept logits (B, C), or scores (B,) that a function made: returned as (B, 1)."""
    came = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if isinstance(output, torch.Tensor) and len(output.shape) and len(output) == count:
        if output.ndim == 2:
            return output
        if scored and output.ndim == 1:
            return output[:, None]
    if scored:
        raise InputError(
            f"score returned {came}; it needs to return logits (B, C), or one number per image (B,)"
        )
    access = "output.logits" if isinstance(getattr(output, "logits", None), torch.Tensor) else "..."
    raise InputError(
        f"the model returned {came}; explain needs logits (B, C): pass score=lambda output: {access}"
    )


def check_ran(layers: Iterable[str], outputs: Mapping[str, torch.Tensor]) -> None:
    """Accept outputs that hold every layer."""
    for name in layers:
        if name not in outputs:
            raise InputError(
                f"layer {name!r} did not run in this forward pass; choose one that the model calls"
            )
