"""What `explain` returns: raw maps with everything that is needed to read and to show them.

One map out of those of several layers.

Layers differ in resolution and in scale. So each layer's map is divided by its own largest absolute
value, per image, and resized to the finest of the grids, before a function joins them:

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
from sightline.errors import SightlineError, nearest
from sightline.files import write_atomic

if TYPE_CHECKING:
    import torch

OK = "ok"
NO_POSITIVE_EVIDENCE = "no positive evidence"
ZERO_GRADIENT = "zero gradient"
NOT_FINITE = "not finite"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Signed maps, one per image, at the resolution of the layer, or of the image where it is about pixels.

    maps: (B, h, w), or (B, d, h, w) of volumes; float32 (float64 from a float64 model); positive where
    the image speaks for the target class, negative where it speaks against it (some methods never say
    against). In what units is the method's affair; to compare maps, use `heatmaps`.
    targets: (B,) int64, the class each map is about. logits: (B, C), of the same images.
    status: one word per map: "ok"; "no positive evidence", nothing in the map is above 0;
    "zero gradient", the logit does not react to this layer; "not finite", NaN or infinity.
    method, layer: their names; "input" where no layer was used. image_size: (H, W) or (D, H, W).
    """

    maps: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    status: tuple[str, ...]
    method: str
    layer: str
    image_size: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.maps)

    def heatmaps(self, size: tuple[int, ...] | None = None) -> np.ndarray:
        """Return heat maps (B, H, W), float32 in [0, 1]; `size` is (H, W), by default the image's.

        Volumes give (B, D, H, W).

        A map without positive evidence, or not finite, is all zeros.
        """
        return display.heatmap(self.maps, size or self.image_size)

    def overlay(self, images: torch.Tensor | np.ndarray, *, opacity: float = 0.5) -> np.ndarray:
        """Lay the heat maps over the explained images, float (B, 3, H, W) in [0, 1]: uint8 (B, H, W, 3).

        Raises SightlineError if the images are not such, or not as many as the maps.
        """
        pixels = _pixels(images)
        return display.overlay(pixels, self.heatmaps(pixels.shape[1:3]), opacity=opacity)

    def save(self, folder: Path | str) -> None:
        """Write `maps.npz` (every field of this class) and `heatmap-0000.png`, ... into `folder`.

        Volumes have no pictures. The folder is made if it is not there; each file is whole or absent.
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
    """Return the word for each map (B, h, w); zero_gradient: (B,) bool."""
    flat = maps.reshape(len(maps), -1)
    words = np.full(len(maps), OK, dtype=object)
    words[(flat <= 0).all(axis=1)] = NO_POSITIVE_EVIDENCE
    words[zero_gradient] = ZERO_GRADIENT
    words[~np.isfinite(flat).all(axis=1)] = NOT_FINITE  # last: it overrules the others
    return tuple(words)


def explanation_of(
    maps: torch.Tensor,
    gradients: torch.Tensor | None,
    targets: torch.Tensor,
    logits: torch.Tensor,
    images: torch.Tensor,
    method: str,
    layer: str,
) -> Explanation:
    """Return the maps (B, h, w) with their status; gradients: (B, K, h, w), None where none were needed."""
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
        raise SightlineError(f"images are {images.dtype} {tuple(images.shape)}; they need float (B, 3, H, W)")
    low, high = float(values.min()), float(values.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise SightlineError(
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
    """Return the product of the positive parts: what every layer points at; (L, B, h, w) to (B, h, w)."""
    return np.maximum(maps, 0).prod(axis=0)


COMBINATIONS: dict[str, Combination] = {"mean": mean, "max": maximum, "product": product}


def find_combination(combine: str | Combination) -> Combination:
    """Return the function called `combine`, or the one that was passed."""
    if callable(combine):
        return combine
    if combine not in COMBINATIONS:
        raise SightlineError(f"combine {combine!r} is not known; {nearest(combine, list(COMBINATIONS))}")
    return COMBINATIONS[combine]


def combined(parts: Sequence[Explanation], combine: Combination) -> Explanation:
    """Return one explanation for those of several layers; its `layer` names all, joined by "+"."""
    size = max((part.maps.shape[1:] for part in parts), key=lambda shape: int(np.prod(shape)))
    maps = np.stack([resize_maps(_scaled(part.maps), size).astype(part.maps.dtype) for part in parts])
    joined = combine(maps)
    if not isinstance(joined, np.ndarray) or joined.shape != maps.shape[1:]:
        came = joined.shape if isinstance(joined, np.ndarray) else type(joined).__name__
        raise SightlineError(
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
