"""Does the map fall where the object (or a mark that should not matter) is? For data with masks.

    >>> maps, masks = np.array([[[0.0, 3.0], [1.0, 0.0]]]), np.array([[[False, True], [False, False]]])
    >>> heat_in_masks(maps, masks)
    array([0.75])

This is about the place of a map, not about its truth: a model may look elsewhere than at the object.
A map without positive evidence points nowhere, and gets what a uniform map gets.
"""

from __future__ import annotations

import numpy as np

from sightline.errors import SightlineError
from sightline.faithfulness.arguments import Maps, as_maps, as_masks, check_at_least
from sightline.faithfulness.measurement import Measurement


def heat_in_masks(heatmaps: Maps, masks: Maps) -> np.ndarray:
    """Return the share of each map's positive heat inside its mask: (B,), 0 to 1.

    heatmaps, masks: (B, H, W). A map without positive heat gives the mask's share of the image.
    """
    heat = np.maximum(as_maps(heatmaps), 0)
    inside = as_masks(masks, heat.shape)
    heat[heat.sum(axis=(1, 2)) == 0] = 1
    return (heat * inside).sum(axis=(1, 2)) / heat.sum(axis=(1, 2))


def energy_in_mask(maps: Maps, masks: Maps) -> Measurement:
    """Share of the positive heat inside the mask (Wang 2020, Score-CAM, section 4.3); higher is better.

    maps, masks: (B, H, W). The baseline is the mask's share of the image: what a uniform map gets.

    Raises SightlineError if a mask is empty: leave that image out.
    """
    values = heat_in_masks(maps, masks)
    inside = _filled_masks(maps, masks)
    return Measurement("energy in mask", values, True, baseline=inside.mean(axis=(1, 2)))


def pointing_game(maps: Maps, masks: Maps, *, tolerance: int = 0) -> Measurement:
    """1 if the maximum of the map is inside the mask, else 0 (Zhang 2016); higher is better.

    maps, masks: (B, H, W). A hit may be up to `tolerance` pixels (Euclidean) away from the mask; the
    paper allows 15 in pictures of about 500. Where several pixels share the maximum, the value is the
    share of them that hit: what a random choice among them gets in expectation. The baseline is the
    share of the image that counts as a hit.

    Raises SightlineError if a mask is empty: leave that image out.
    """
    check_at_least("tolerance", tolerance, 0)
    heat = np.maximum(as_maps(maps), 0)
    hit = _dilated(_filled_masks(maps, masks), tolerance)  # (B, H, W)
    top = heat == heat.max(axis=(1, 2), keepdims=True)
    values = (top & hit).sum(axis=(1, 2)) / top.sum(axis=(1, 2))
    return Measurement("pointing game", values, True, baseline=hit.mean(axis=(1, 2)))


def _filled_masks(maps: Maps, masks: Maps) -> np.ndarray:
    inside = as_masks(masks, tuple(maps.shape))
    empty = np.flatnonzero(~inside.any(axis=(1, 2)))
    if len(empty):
        raise SightlineError(
            f"mask {empty[0]} is empty, as {len(empty)} of {len(inside)} are; leave those images out"
        )
    return inside


def _dilated(masks: np.ndarray, reach: int) -> np.ndarray:
    """Grow masks (B, H, W) by a disc of radius `reach`: the union of shifted copies."""
    height, width = masks.shape[1:]
    padded = np.pad(masks, ((0, 0), (reach, reach), (reach, reach)))
    grown = np.zeros_like(masks)
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            if down**2 + across**2 <= reach**2:
                grown |= padded[:, reach + down :, reach + across :][:, :height, :width]
    return grown
