"""What may be passed to a measure: each check says what came, what fits and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from sightline.errors import SightlineError

Maps = np.ndarray | torch.Tensor
Classes = int | Sequence[int] | np.ndarray | torch.Tensor


def check_images(images: object) -> torch.Tensor:
    """Return the images if they are float (B, C, H, W), at least one."""
    if isinstance(images, torch.Tensor) and images.ndim == 4 and images.is_floating_point() and len(images):
        return images.detach()
    came = (
        f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
    )
    raise SightlineError(f"images are {came}; pass a float tensor (B, 3, H, W) in [0, 1], at least one")


def as_maps(maps: Maps, images: torch.Tensor | None = None) -> np.ndarray:
    """Return maps (B, H, W) as float64, one of the image's size per image."""
    values = _array(maps).astype(np.float64)
    if values.ndim != 3:
        raise SightlineError(f"maps are {values.shape}; pass (B, H, W), a single map as maps[None]")
    if images is not None and values.shape != (len(images), *images.shape[2:]):
        fits = (len(images), *images.shape[2:])
        raise SightlineError(
            f"maps are {values.shape} for images {tuple(images.shape)}; pass {fits}: explanation.heatmaps()"
        )
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))[0])
        raise SightlineError(
            f"map {bad} holds NaN or infinity; leave it out, or pass explanation.heatmaps(): zeros there"
        )
    return values


def as_masks(masks: Maps, shape: tuple[int, ...]) -> np.ndarray:
    """Return masks (B, H, W) as booleans, of the maps' shape."""
    values = _array(masks)
    if values.shape != shape:
        raise SightlineError(
            f"masks are {values.shape} and maps {shape}; pass one mask of the same size per map"
        )
    return values.astype(bool)


def as_classes(targets: Classes, count: int) -> torch.Tensor:
    """Return one class per image, (B,) int64 on the CPU."""
    classes = torch.as_tensor(targets)
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise SightlineError(f"targets are {classes.dtype}; pass an integer, or one integer per image")
    if classes.ndim == 0:
        classes = classes.expand(count)
    if classes.shape != (count,):
        raise SightlineError(
            f"targets are {tuple(classes.shape)} for {count} images; pass one class for all, or ({count},)"
        )
    return classes.long().cpu()


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below `least`."""
    if value < least:
        raise SightlineError(f"{name} is {value}; it needs at least {least}")


def name_of(function: Callable) -> str:
    """Return a function's name, also that of one with arguments filled in by `functools.partial`."""
    function = getattr(function, "func", function)
    return getattr(function, "__name__", type(function).__name__)


def _array(values: Maps) -> np.ndarray:
    return values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
