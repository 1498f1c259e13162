"""What `explain` returns: raw maps with everything that is needed to read and to show them.

Layers differ in resolution and in scale. So where those of several layers are combined, each map is first
divided by its own largest absolute value, per image, and resized to the finest of the grids:

    >>> maps = np.array([[[[1.0, 0.5]]], [[[-1.0, 1.0]]]])  # (L, B, h, w): two layers, one image
    >>> mean(maps), maximum(maps), product(maps)
    (array([[[0.  , 0.75]]]), array([[[1., 1.]]]), array([[[0. , 0.5]]]))
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.attribution import display
from sightline.attribution.display import resize_maps
from sightline.errors import InputError, nearest
from sightline.files import write_atomic

if TYPE_CHECKING:
    import torch

OK = "ok"
NO_POSITIVE_EVIDENCE = "no positive evidence"
CONSTANT = "constant"
ZERO_GRADIENT = "zero gradient"
NOT_FINITE = "not finite"

_FLAT = 1e-6  # of a map's largest value: what rounding leaves of a map that is the same in every cell


@dataclass(frozen=True, eq=False)
class Explanation:
    """Signed maps, one per image, at the resolution of the layer, or of the image for methods of pixels.

    Attributes:
        maps: (B, h, w), or (B, d, h, w) of volumes; float32 (float64 from a float64 model); positive where
            the image speaks for the target class, negative where it speaks against it (some methods are never
            negative). The units are the method's; to compare maps, use `heatmaps`.
        targets: (B,) int64, the class each map is about.
        logits: (B, C), of the same images.
        status: One for each map: "ok"; "no positive evidence", nothing in the map is above 0; "constant", the
            map is positive and the same in every cell, so it points nowhere; "zero gradient", the logit does
            not react to this layer; "not finite", NaN or infinity.
        method: Its name.
        layer: Its name; "input" if no layer was used.
        image_size: (H, W) or (D, H, W).
        layer_reason: How the layer was found, and what there is to doubt; "as requested", or empty.
    """

    maps: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    status: tuple[str, ...]
    method: str
    layer: str
    image_size: tuple[int, ...]
    layer_reason: str = ""

    def __len__(self) -> int:
        return len(self.maps)

    def heatmaps(self, size: tuple[int, ...] | None = None) -> np.ndarray:
        """Return heat maps: the positive part, resized, divided by its own maximum.

        Args:
            size: (H, W), or (D, H, W) of volumes; the image's by default.

        Returns:
            (B, H, W), float32 in [0, 1]. A map without positive evidence, or not finite, is all zeros.
        """
        return display.heatmap(self.maps, size or self.image_size)

    def overlay(self, images: torch.Tensor | np.ndarray, *, opacity: float = 0.5) -> np.ndarray:
        """Lay the heat maps over the images.

        Args:
            images: The explained ones, float (B, 3, H, W) in [0, 1].
            opacity: Of the colour where the heat is 1.

        Returns:
            uint8 (B, H, W, 3).

        Raises:
            InputError: The images are not such, or not as many as the maps.
        """
        pixels = _pixels(images)
        return display.overlay(pixels, self.heatmaps(pixels.shape[1:3]), opacity=opacity)

    def save(self, folder: Path | str) -> None:
        """Write `maps.npz` (every field of this class) and `heatmap-0000.png`, ... into `folder`.

        Volumes get no pictures. The folder is made if it does not exist; each file is whole or absent.
        """
        from PIL import Image

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        fields = {name: np.asarray(value) for name, value in vars(self).items()}
        write_atomic(
            folder / "maps.npz", lambda file: np.savez_compressed(file, allow_pickle=False, **fields)
        )
        if self.maps.ndim != 3:
            return
        for index, pixels in enumerate(display.colorize(self.heatmaps())):
            image = Image.fromarray(pixels)
            write_atomic(
                folder / f"heatmap-{index:04d}.png",
                lambda file, image=image: image.save(file, format="PNG"),
            )


def statuses(maps: np.ndarray, zero_gradient: np.ndarray) -> tuple[str, ...]:
    """Return the status of each map (B, h, w); zero_gradient: (B,) bool."""
    flat = maps.reshape(len(maps), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    words = np.full(len(maps), OK, dtype=object)
    words[high - low <= _FLAT * high] = CONSTANT
    words[high <= 0] = NO_POSITIVE_EVIDENCE
    words[zero_gradient] = ZERO_GRADIENT
    words[~np.isfinite(flat).all(axis=1)] = NOT_FINITE  # the last one overrules the others
    return tuple(words)


def make_explanation(
    maps: torch.Tensor,
    gradients: torch.Tensor | None,
    targets: torch.Tensor,
    logits: torch.Tensor,
    images: torch.Tensor,
    method: str,
    layer: str,
    layer_reason: str = "",
) -> Explanation:
    """Return the maps with their status.

    Args:
        maps: (B, h, w).
        gradients: (B, K, h, w), of the layer; None if the method needed none.
        targets: (B,).
        logits: (B, C).
        images: (B, C, H, W), for their size.
        method: Its name.
        layer: Its name.
        layer_reason: How it was found.
    """
    values = maps.detach().cpu().numpy()
    silent = np.zeros(len(maps), dtype=bool)
    if gradients is not None:
        silent = (gradients == 0).flatten(1).all(dim=1).cpu().numpy()
    return Explanation(
        maps=values,
        targets=targets.cpu().numpy(),
        logits=logits.detach().cpu().numpy(),
        status=statuses(values, silent),
        method=method,
        layer=layer,
        image_size=tuple(images.shape[2:]),
        layer_reason=layer_reason,
    )


def join(parts: Sequence[Explanation]) -> Explanation:
    """Return one explanation of the images of all parts, in order."""
    return dataclasses.replace(
        parts[0],
        maps=np.concatenate([part.maps for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        status=tuple(itertools.chain.from_iterable(part.status for part in parts)),
    )


def _pixels(images: torch.Tensor | np.ndarray) -> np.ndarray:
    """Turn float (B, 3, H, W) in [0, 1] into uint8 (B, H, W, 3)."""
    if isinstance(images, np.ndarray):
        values = images
    else:  # numpy has no bfloat16
        values = (images.float() if images.is_floating_point() else images).detach().cpu().numpy()
    if values.ndim != 4 or values.shape[1] != 3 or not np.issubdtype(values.dtype, np.floating):
        raise InputError(
            f"images are {images.dtype} {tuple(images.shape)}; pass float (B, 3, H, W) in [0, 1]"
        )
    low, high = float(values.min()), float(values.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise InputError(
            f"images range from {low:.3g} to {high:.3g}; pictures need [0, 1]: pass them before normalisation"
        )
    return np.rint(values.transpose(0, 2, 3, 1).clip(0, 1) * 255).astype(np.uint8)


Combination = Callable[[np.ndarray], np.ndarray]


def mean(maps: np.ndarray) -> np.ndarray:
    """Return the mean over layers, signed: (L, B, h, w) to (B, h, w)."""
    return maps.mean(axis=0)


def maximum(maps: np.ndarray) -> np.ndarray:
    """Return the largest value of any layer, signed: (L, B, h, w) to (B, h, w)."""
    return maps.max(axis=0)


def product(maps: np.ndarray) -> np.ndarray:
    """Return the product of the positive parts, (L, B, h, w) to (B, h, w): high where every layer is."""
    return np.maximum(maps, 0).prod(axis=0)


COMBINATIONS: dict[str, Combination] = {"mean": mean, "max": maximum, "product": product}
"""How maps of several layers become one, by name."""


def find_combination(combine: str | Combination) -> Combination:
    """Return the function called `combine`, or the one that was passed."""
    if callable(combine):
        return combine
    if combine not in COMBINATIONS:
        raise InputError(f"combine {combine!r} is not known; {nearest(combine, list(COMBINATIONS))}")
    return COMBINATIONS[combine]


def combined(parts: Sequence[Explanation], combine: Combination) -> Explanation:
    """Return one explanation for those of several layers; its `layer` names all, joined by "+"."""
    size = max((part.maps.shape[1:] for part in parts), key=lambda shape: int(np.prod(shape)))
    maps = np.stack([resize_maps(_scaled(part.maps), size).astype(part.maps.dtype) for part in parts])
    joined = combine(maps)
    if not isinstance(joined, np.ndarray) or joined.shape != maps.shape[1:]:
        came = joined.shape if isinstance(joined, np.ndarray) else type(joined).__name__
        raise InputError(
            f"combine returned {came}; it takes maps {maps.shape} and returns an array {maps.shape[1:]}"
        )
    silent = [
        all(word == ZERO_GRADIENT for word in words) for words in zip(*(p.status for p in parts), strict=True)
    ]
    return dataclasses.replace(
        parts[0],
        maps=joined,
        status=statuses(joined, np.array(silent)),
        layer="+".join(part.layer for part in parts),
    )


def _scaled(maps: np.ndarray) -> np.ndarray:
    top = np.abs(maps).max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return maps / np.where(top > 0, top, 1)
