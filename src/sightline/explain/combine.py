"""One map out of those of several layers.

Layers differ in resolution and in scale. So each layer's map is divided by its own largest absolute
value, per image, and resized to the finest of the grids, before a function joins them:

    >>> maps = np.array([[[[1.0, 0.5]]], [[[-1.0, 1.0]]]])  # (L, B, h, w): two layers, one image
    >>> mean(maps), maximum(maps), product(maps)
    (array([[[0.  , 0.75]]]), array([[[1., 1.]]]), array([[[0. , 0.5]]]))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from sightline.errors import SightlineError, nearest
from sightline.explain.display import resize_maps
from sightline.explain.explanation import ZERO_GRADIENT, Explanation, statuses

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
