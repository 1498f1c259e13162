"""How the score changes when the image is dimmed by its map, and whether the map adds up to that change.

Average drop and increase: Chattopadhay 2018 (Grad-CAM++). Infidelity and sensitivity: Yeh 2019.
"""

from __future__ import annotations

import numpy as np
import torch

from sightline.attribution.methods import function_name
from sightline.faithfulness.deletion_insertion import normal_noise
from sightline.faithfulness.imputation import Fill, mean, zero
from sightline.faithfulness.measurement import (
    Maps,
    Measurement,
    Score,
    as_maps,
    check_at_least,
    check_images,
    score_variants,
)


def average_drop(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = zero,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """max(0, Y - O) / Y, Y the score of the image and O that of the image times its map; lower is better.

    An image with Y = 0 has nothing to lose: 0. A map that covers much of the image keeps much of the score,
    right or wrong: compare this with the baseline maps.

    Args:
        score: The number to watch; it must be positive: a probability, not a logit.
        images: Float (B, C, H, W).
        maps: (B, H, W), scaled here to [0, 1] by ReLU and their own maximum.
        fill: What shows where the map is 0.
        seed: Of the fill's noise.
        batch_size: Images in one pass; it does not change the result.
    """
    before, after = _dimmed(score, images, maps, fill, seed, batch_size)
    lost = np.maximum(0, before - after)
    drop = np.divide(lost, before, out=np.zeros_like(lost), where=before > 0)
    return Measurement("average drop", drop, False, fill=function_name(fill))


def average_increase(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = zero,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """1 if the image times its map scores higher than the image (O > Y), else 0; higher is better.

    The arguments are those of `average_drop`, with any score.
    """
    before, after = _dimmed(score, images, maps, fill, seed, batch_size)
    return Measurement("average increase", (after > before).astype(float), True, fill=function_name(fill))


def _dimmed(
    score: Score, images: torch.Tensor, maps: Maps, fill: Fill, seed: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (B,) of the images and of the images seen through their maps."""
    images = check_images(images)
    heat = np.maximum(as_maps(maps, images), 0)
    top = heat.max(axis=(1, 2), keepdims=True)
    shown = torch.from_numpy(heat / np.where(top > 0, top, 1)).to(images.dtype).to(images.device)  # (B, H, W)
    noise = normal_noise(images, seed=seed)

    def vary(rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        pictures = images[rows]  # (M, C, H, W)
        seen = torch.where(steps.to(images.device)[:, None, None] == 0, 1, shown[rows])[:, None]
        return seen * pictures + (1 - seen) * fill(pictures, seen[:, 0] < 1, noise[rows])

    scores = score_variants(score, vary, images=len(images), steps=2, batch_size=batch_size)
    return scores[:, 0], scores[:, 1]


def infidelity(
    score: Score,
    images: torch.Tensor,
    maps: Maps,
    *,
    fill: Fill = mean,
    samples: int = 50,
    seed: int = 0,
    batch_size: int = 64,
) -> Measurement:
    """E (b sum of the map over S - (f(x) - f(x without S)))^2 over random squares S; lower is better.

    Yeh 2019, definition 2.1, with its removal of squares: of a side from an eighth to half of the image's
    shorter one, replaced by the fill. b >= 0 is the scale of the image's map that fits best, so that only the
    pattern counts; a map with the wrong sign gets b = 0, which scores as a map of zeros. In units of the
    score, squared; logits make the comparison of a sum with a difference meaningful.

    Args:
        score: The number to watch, f.
        images: Float (B, C, H, W).
        maps: (B, H, W), signed or not, read as what each pixel adds to the score.
        fill: What replaces removed pixels.
        samples: Squares per image.
        seed: Of the squares, and of the fill's noise.
        batch_size: Variants of images in one pass; it does not change the result.
    """
    check_at_least("samples", samples, 1)
    images = check_images(images)
    heat = as_maps(maps, images)
    corners = _squares(len(images), (images.shape[2], images.shape[3]), samples, seed)
    noise = normal_noise(images, seed=seed)

    def vary(rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        top, left, side = corners[:, rows.numpy(), steps.numpy()]
        removed = torch.from_numpy(_inside(top, left, side, images.shape[2:])).to(images.device)
        pictures = images[rows]
        return torch.where(removed[:, None], fill(pictures, removed, noise[rows]), pictures)

    # Sample 0 is no square at all: the image itself.
    scores = score_variants(score, vary, images=len(images), steps=samples + 1, batch_size=batch_size)
    predicted = _sums(heat, *corners[:, :, 1:])  # (B, samples)
    found = scores[:, :1] - scores[:, 1:]
    power = (predicted**2).mean(axis=1)
    fit = np.divide((predicted * found).mean(axis=1), power, out=np.zeros_like(power), where=power > 0)
    error = (np.maximum(fit, 0)[:, None] * predicted - found) ** 2
    return Measurement("infidelity", error.mean(axis=1), False, fill=function_name(fill))


def _squares(count: int, size: tuple[int, int], samples: int, seed: int) -> np.ndarray:
    """Return (3, B, samples + 1): top, left and side of each square; the first of each image has side 0."""
    short = min(size)
    drawn = np.random.default_rng(seed).random((count, samples + 1, 3))
    least, most = max(1, short // 8), max(1, short // 2)
    side = least + (drawn[..., 2] * (most - least + 1)).astype(int)
    top = (drawn[..., 0] * (size[0] - side + 1)).astype(int)
    left = (drawn[..., 1] * (size[1] - side + 1)).astype(int)
    side[:, 0] = 0
    return np.stack([top, left, side])


def _inside(top: np.ndarray, left: np.ndarray, side: np.ndarray, size: torch.Size) -> np.ndarray:
    """Return bool (M, H, W): the pixels of each square."""
    rows, columns = np.arange(size[0]), np.arange(size[1])
    down = (rows >= top[:, None]) & (rows < (top + side)[:, None])  # (M, H)
    across = (columns >= left[:, None]) & (columns < (left + side)[:, None])  # (M, W)
    return down[:, :, None] & across[:, None, :]


def _sums(heat: np.ndarray, top: np.ndarray, left: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Return the sum of each image's map over each of its squares, from one table of running sums."""
    table = np.pad(heat.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))  # (B, H + 1, W + 1)
    image = np.arange(len(heat))[:, None]
    bottom, right = top + side, left + side
    strip = table[image, bottom, right] - table[image, top, right]
    return strip - table[image, bottom, left] + table[image, top, left]
