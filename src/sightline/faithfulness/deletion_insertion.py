"""How the score changes while pixels are removed in the order of the map: deletion, insertion, ROAD.

    >>> from sightline.faithfulness import zero
    >>> images = torch.ones(1, 1, 1, 4)
    >>> score = lambda images, rows: images.sum(dim=(1, 2, 3))  # each pixel is worth 1
    >>> deletion(score, images, np.array([[[3.0, 2, 1, 0]]]), fill=zero, steps=4).curve
    array([[4., 3., 2., 1., 0.]])

Pixels are ranked exactly: a step removes a fixed count of them, and pixels of equal heat (maps hold
many zeros) go in an order drawn for each image from the seed. Petsiuk 2018 (RISE), Rong 2022 (ROAD).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sightline.attribution.methods import function_name
from sightline.errors import InputError
from sightline.faithfulness.imputation import Fill, blur, mean, noisy_linear_imputation
from sightline.faithfulness.measurement import (
    Maps,
    Measurement,
    Score,
    as_maps,
    check_at_least,
    check_images,
    score_variants,
)

ROAD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def deletion(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = mean,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """Area under the score while the hottest pixels are removed first; lower is better.

    The score is taken at `steps` + 1 shares of removed pixels from 0 to 1, and the area is that under
    straight lines between them.

    Args:
        score: The number to watch, such as `class_probability(model, targets)`.
        images: Float (B, C, H, W).
        maps: (B, H, W), of the images' size, such as `explanation.heatmaps()`.
        fill: What replaces removed pixels.
        steps: Between no pixel removed and all.
        seed: Of the order of pixels of equal heat, and of the fill's noise.
        batch_size: Variants of images in one pass; it bounds the memory and does not change the result.

    Raises:
        InputError: Maps and images do not fit.
    """
    check_at_least("steps", steps, 1)
    shares = np.arange(steps + 1) / steps
    curve, shares = _curve(score, images, maps, shares, fill, seed, batch_size)
    area = np.trapezoid(curve, shares, axis=1)
    return Measurement("deletion", area, False, curve=curve, shares=shares, fill=function_name(fill))


def insertion(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = blur,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """Area under the score while the hottest pixels are revealed first in a filled image; higher is better.

    `shares` of the result are those still removed, from 1 to 0. The arguments are those of `deletion`.
    """
    check_at_least("steps", steps, 1)
    shares = 1 - np.arange(steps + 1) / steps
    # Hottest revealed first is coldest removed first, read from the end.
    curve, shares = _curve(score, images, maps, shares, fill, seed, batch_size, coldest_first=True)
    area = np.trapezoid(curve, 1 - shares, axis=1)
    return Measurement("insertion", area, True, curve=curve, shares=shares, fill=function_name(fill))


def road_most_first(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = noisy_linear_imputation,
    shares: Sequence[float] = ROAD_SHARES,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """Mean score over `shares` of pixels removed, hottest first, imputed (ROAD, MoRF); lower is better.

    The other arguments are those of `deletion`.
    """
    curve, exact = _curve(score, images, maps, np.asarray(shares), fill, seed, batch_size)
    name = "road, most relevant first"
    return Measurement(name, curve.mean(axis=1), False, curve=curve, shares=exact, fill=function_name(fill))


def road_least_first(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = noisy_linear_imputation,
    shares: Sequence[float] = ROAD_SHARES,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """Mean score over `shares` of pixels removed, coldest first, imputed (ROAD, LeRF); higher is better.

    The other arguments are those of `deletion`.
    """
    curve, exact = _curve(score, images, maps, np.asarray(shares), fill, seed, batch_size, coldest_first=True)
    name = "road, least relevant first"
    return Measurement(name, curve.mean(axis=1), True, curve=curve, shares=exact, fill=function_name(fill))


def road(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = noisy_linear_imputation,
    shares: Sequence[float] = ROAD_SHARES,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """`road_least_first` minus `road_most_first`, at each share and in the mean; higher is better.

    A map without information gets 0 in expectation, whatever its grain and whatever removal as such
    does to the model: that is what is expected by chance. `shares` are those of the pixels removed; the
    other arguments are those of `deletion`.
    """
    each = np.asarray(shares)
    most, exact = _curve(score, images, maps, each, fill, seed, batch_size)
    least, exact = _curve(score, images, maps, each, fill, seed, batch_size, coldest_first=True)
    curve, chance = least - most, np.zeros(len(most))
    return Measurement(
        "road", curve.mean(axis=1), True, curve=curve, shares=exact, fill=function_name(fill), chance=chance
    )


def removal_order(maps: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the rank of each pixel of maps (B, H, W), int64: 0 is the hottest, equal heat in seeded order.

    >>> removal_order(np.array([[[0.1, 0.7], [0.4, 0.2]]]))
    array([[[3, 0],
            [1, 2]]])
    """
    flat = maps.reshape(len(maps), -1)
    ties = np.random.default_rng(seed).random(flat.shape)
    order = np.lexsort((ties, -flat), axis=1)  # (B, P): the pixels from hot to cold
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(maps.shape)


def _curve(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    shares: np.ndarray,
    fill: Fill,
    seed: int,
    batch_size: int,
    *,
    coldest_first: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the score (B, S) with each share removed, and the shares as whole pixels make them."""
    images = check_images(images)
    if not len(shares) or shares.min() < 0 or shares.max() > 1:
        raise InputError(f"shares are {shares.tolist()}; pass numbers from 0 to 1, such as 0.1, 0.5, 0.9")
    pixels = images.shape[2] * images.shape[3]
    ranks = removal_order(as_maps(maps, images), seed=seed)
    ranks = torch.from_numpy(pixels - 1 - ranks if coldest_first else ranks).to(images.device)  # (B, H, W)
    counts = np.rint(shares * pixels).astype(np.int64)  # (S,)
    limits = torch.from_numpy(counts).to(images.device)
    noise = normal_noise(images, seed=seed)

    def vary(rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        removed = ranks[rows] < limits[steps][:, None, None]  # (M, H, W)
        pictures = images[rows]  # (M, C, H, W)
        return torch.where(removed[:, None], fill(pictures, removed, noise[rows]), pictures)

    curve = score_variants(score, vary, images=len(images), steps=len(counts), batch_size=batch_size)
    return curve, counts / pixels


def normal_noise(images: torch.Tensor, *, seed: int) -> torch.Tensor:
    """Return standard normal noise like `images`; the first rows do not depend on how many there are."""
    drawn = np.random.default_rng([seed, 1]).standard_normal(images.shape, dtype=np.float32)
    return torch.from_numpy(drawn).to(images.device, images.dtype)
