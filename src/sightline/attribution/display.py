"""From signed maps to pictures, without torch: heat maps in [0, 1], colours, and overlays.

>>> heatmap(np.array([[[-1.0, 0.0], [1.0, 2.0]]]), (2, 2))
array([[[0. , 0. ],
        [0.5, 1. ]]], dtype=float32)
"""

from __future__ import annotations

import functools

import numpy as np

from sightline.errors import InputError

# Equal steps of heat look like equal steps: no false edges, and readable for the colour-blind.
COLOR_MAPS = ("inferno", "viridis", "magma", "plasma", "cividis")


def heatmap(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Turn signed maps into heat maps.

    ReLU, linear resize with half-pixel centres (as torch's `interpolate` with `align_corners=False`),
    division by the map's own maximum. A map without positive evidence, or with a value that is not finite,
    becomes zeros.

    Args:
        maps: (B, h, w), or (B, d, h, w) of volumes.
        size: (H, W), or (D, H, W).

    Returns:
        (B, H, W) or (B, D, H, W), float32 in [0, 1].

    Raises:
        InputError: `maps` is neither, or `size` is not of as many lengths.
    """
    maps = np.asarray(maps)
    if maps.ndim not in (3, 4) or 0 in maps.shape[1:]:
        raise InputError(f"maps are {maps.shape}; a heat map needs (B, h, w), a single map maps[None]")
    if len(size) != maps.ndim - 1:
        raise InputError(f"size is {size} for maps {maps.shape}; it needs {maps.ndim - 1} lengths")
    axes = tuple(range(1, maps.ndim))
    finite = np.isfinite(maps).all(axis=axes, keepdims=True)
    heat = np.where(finite, np.maximum(maps, 0), 0).astype(np.float64)  # float64: faint maps do not vanish
    heat = resize_maps(heat, size)
    top = heat.max(axis=axes, keepdims=True)
    return (heat / np.where(top > 0, top, 1)).astype(np.float32)  # (B, H, W)


def resize_maps(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize maps (B, h, w) or (B, d, h, w) linearly, with half-pixel centres, to `size`; float64."""
    for axis, target in enumerate(size, start=1):
        matrix = _resize_matrix(maps.shape[axis], target)
        maps = np.moveaxis(np.tensordot(matrix, maps, axes=(1, axis)), 0, axis)
    return maps


@functools.lru_cache(maxsize=32)
def _resize_matrix(length: int, target: int) -> np.ndarray:
    """Return M (target, length) such that M @ signal is the signal resized linearly."""
    center = np.maximum((np.arange(target) + 0.5) * length / target - 0.5, 0)
    low = np.minimum(center.astype(int), length - 1)
    high = np.minimum(low + 1, length - 1)
    share = center - low
    matrix = np.zeros((target, length))
    rows = np.arange(target)
    np.add.at(matrix, (rows, low), 1 - share)
    np.add.at(matrix, (rows, high), share)
    return matrix


def colorize(heatmaps: np.ndarray, *, cmap: str = "inferno") -> np.ndarray:
    """Paint heat maps with a perceptually uniform colour map.

    Args:
        heatmaps: (B, H, W) in [0, 1].
        cmap: One of inferno, viridis, magma, plasma, cividis.

    Returns:
        uint8 (B, H, W, 3).

    Raises:
        InputError: The colour map is another one.
    """
    if cmap not in COLOR_MAPS:
        raise InputError(
            f"colour map {cmap!r} is not perceptually uniform or not known; use {', '.join(COLOR_MAPS)}"
        )
    from matplotlib import colormaps

    return colormaps[cmap](np.asarray(heatmaps), bytes=True)[..., :3]


def overlay(
    images: np.ndarray, heatmaps: np.ndarray, *, opacity: float = 0.5, cmap: str = "inferno"
) -> np.ndarray:
    """Lay heat maps over images.

    Args:
        images: uint8 (B, H, W, 3).
        heatmaps: (B, H, W) in [0, 1].
        opacity: How much of the picture the colour covers where the heat is 1; where it is 0 the picture
            stays as it is.
        cmap: As for `colorize`.

    Returns:
        uint8 (B, H, W, 3).

    Raises:
        InputError: The sizes differ, the images are not uint8 RGB, or `opacity` is outside [0, 1].
    """
    images, heatmaps = np.asarray(images), np.asarray(heatmaps)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"images are {images.dtype} {images.shape}; overlay needs uint8 (B, H, W, 3)")
    if heatmaps.shape != images.shape[:3]:
        raise InputError(
            f"heat maps are {heatmaps.shape} and images {images.shape}; overlay needs one heat map of "
            "the image's size per image: heatmap(maps, (H, W))"
        )
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity is {opacity}; it needs a number from 0 to 1")
    cover = opacity * heatmaps[..., None].astype(np.float32)  # (B, H, W, 1)
    mixed = (1 - cover) * images + cover * colorize(heatmaps, cmap=cmap)
    return np.rint(mixed).astype(np.uint8)
