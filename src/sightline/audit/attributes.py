"""Simple attributes of images, and of the heat maps that show where the evidence lies.

They are what slices of mistakes are named by: "dark images", "evidence in the top right corner".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.duplicates.fingerprints import area_weights
from sightline.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CELLS = (
    "top left corner", "top", "top right corner",
    "left", "centre", "right",
    "bottom left corner", "bottom", "bottom right corner",
)  # fmt: skip
"""Names of the 3x3 cells in which evidence can lie, in the order of `evidence_attributes`' column `cell`."""

_CHUNK = 2**21  # pixels worked on at once: some tens of MB in floats
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BORDER = 1 / 8  # of the side, on each side of a map


def image_attributes(images: np.ndarray) -> pd.DataFrame:
    """Return one row per image of uint8 (N, H, W, 3).

    brightness: mean luminance, [0, 1]. contrast: its standard deviation, [0, 0.5]. saturation: mean of
    (max - min) / max over the channels, [0, 1], 0 for black. colourfulness: of Hasler & Suesstrunk (2003),
    eq. 11, on channels in [0, 1]. warmth: mean of red minus blue, [-1, 1]. sharpness: mean absolute
    Laplacian of the luminance, relative to its contrast, so that it does not count contrast again; 0 for
    an image of one colour. entropy: of the histogram of luminance in 32 bins, in bits, [0, 5].

    Raises:
        InputError: The images are anything but uint8 (N, H, W, 3).
    """
    import pandas as pd

    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"images are {images.dtype} {images.shape}; attributes need uint8 (N, H, W, 3)")
    step = max(1, _CHUNK // max(1, int(np.prod(images.shape[1:3]))))
    parts = [_of_images(images[start : start + step]) for start in range(0, len(images), step)]
    names = ("brightness", "contrast", "saturation", "colourfulness", "warmth", "sharpness", "entropy")
    values = np.concatenate(parts) if parts else np.empty((0, len(names)))
    return pd.DataFrame(values, columns=list(names))


def _of_images(images: np.ndarray) -> np.ndarray:
    pixels = images.astype(np.float32) / 255  # (B, H, W, 3)
    luma = pixels @ _LUMA  # (B, H, W)
    brightness, contrast = luma.mean(axis=(1, 2)), luma.std(axis=(1, 2))
    high, low = pixels.max(axis=3), pixels.min(axis=3)
    saturation = np.divide(high - low, high, out=np.zeros_like(high), where=high > 0).mean(axis=(1, 2))
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    rg, yb = red - green, (red + green) / 2 - blue
    spread = np.hypot(rg.std(axis=(1, 2)), yb.std(axis=(1, 2)))
    colourfulness = spread + 0.3 * np.hypot(rg.mean(axis=(1, 2)), yb.mean(axis=(1, 2)))
    warmth = (red - blue).mean(axis=(1, 2))
    return np.stack(
        [brightness, contrast, saturation, colourfulness, warmth, _sharpness(luma, contrast), _entropy(luma)],
        axis=1,
    ).astype(np.float64)


def _sharpness(luma: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    laplacian = np.abs(around - 4 * luma).mean(axis=(1, 2))
    return np.divide(laplacian, contrast, out=np.zeros_like(contrast), where=contrast > 1e-4)


def _entropy(luma: np.ndarray, bins: int = 32) -> np.ndarray:
    count = len(luma)
    cells = np.minimum((luma.reshape(count, -1) * bins).astype(np.int64), bins - 1)
    cells += bins * np.arange(count)[:, None]
    shares = np.bincount(cells.ravel(), minlength=count * bins).reshape(count, bins) / cells.shape[1]
    return -(shares * np.log2(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=1)


def evidence_attributes(maps: np.ndarray, masks: np.ndarray | None = None) -> pd.DataFrame:
    """Return one row per heat map of (N, h, w), signed or not: where its positive part lies, and how widely.

    With p the positive part scaled to a sum of 1:
    area: 1 / (h w sum p^2), the share of the image that the evidence covers, (0, 1]; 1 if spread evenly.
    offset: distance of its centre of mass from the middle, in half diagonals, [0, 1]. border: mass within
    an eighth of the side from an edge, [0, 1]. cell: the one of the 3x3 cells of `CELLS` with the most
    mass, 0..8; cell_mass: how much that is. background: mass outside of `masks`, (N, h, w) bool, only if
    they are given. A map without positive evidence has NaN, and cell -1.

    Raises:
        InputError: The arrays are of other shapes.
    """
    import pandas as pd

    if maps.ndim != 3 or (masks is not None and masks.shape != maps.shape):
        came = f"{maps.shape}" + ("" if masks is None else f" and masks {masks.shape}")
        raise InputError(f"maps are {came}; evidence needs (N, h, w), and masks of that shape")
    names = ["area", "offset", "border", "cell", "cell_mass"] + (["background"] if masks is not None else [])
    step = max(1, _CHUNK // max(1, int(np.prod(maps.shape[1:]))))
    parts = [
        _of_maps(maps[start : start + step], None if masks is None else masks[start : start + step])
        for start in range(0, len(maps), step)
    ]
    values = np.concatenate(parts) if parts else np.empty((0, len(names)))
    return pd.DataFrame(values, columns=names).astype({"cell": np.int64})


def _of_maps(maps: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    count, height, width = maps.shape
    positive = np.maximum(maps.astype(np.float64), 0)
    peak = positive.max(axis=(1, 2), keepdims=True, initial=0)
    some = np.isfinite(peak) & (peak > 0)  # (B, 1, 1)
    p = np.divide(positive, peak, out=np.full_like(positive, np.nan), where=some)  # no sum can overflow
    p /= p.sum(axis=(1, 2), keepdims=True)
    rows = (np.arange(height) + 0.5) / height - 0.5  # of the side, from the middle
    columns = (np.arange(width) + 0.5) / width - 0.5
    down, right = p.sum(axis=2) @ rows, p.sum(axis=1) @ columns
    inner = [1 - _share_of_edge(size) for size in (height, width)]
    cells = (area_weights(height, 3) * height / 3).T, (area_weights(width, 3) * width / 3).T
    mass = np.einsum("bhw,hi,wj->bij", p, *cells, optimize=True).reshape(count, 9)
    known = ~np.isnan(mass[:, 0])
    cell = np.where(known, np.where(known[:, None], mass, 0).argmax(axis=1), -1)
    values = [
        1 / (height * width * (p**2).sum(axis=(1, 2))),
        np.hypot(down, right) / np.hypot(0.5, 0.5),
        1 - np.einsum("bhw,h,w->b", p, *inner, optimize=True),
        cell,
        mass.max(axis=1),
    ]
    if masks is not None:
        values.append(1 - (p * masks).sum(axis=(1, 2)))
    return np.stack(values, axis=1)


def _share_of_edge(size: int) -> np.ndarray:
    """Which share of each of `size` pixels lies within an eighth of the side from an end."""
    near = np.clip(size * _BORDER - np.arange(size), 0, 1)
    return np.maximum(near, near[::-1])
