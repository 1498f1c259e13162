"""Baseline maps, which know nothing of the model or not of this class: what a good map has to beat.

A baseline map is drawn at the grain of the map that it is compared with: reduced to the same grid (h, w) and
resized as heat maps are. A fine random map, for one, destroys an image faster than any blob does, and
would beat every class-activation map for a reason that has nothing to do with where the evidence is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sightline.attribution import explain, heatmap
from sightline.attribution.layers import Grid as TokenGrid
from sightline.faithfulness.measurement import Classes, OutputScore, as_classes, check_images, logits_of
from sightline.faithfulness.sanity_checks import name_in, untrained_copy

Grid = tuple[int, int]
# (images, grid, seed) -> heat maps (B, H, W) in [0, 1]
Baseline = Callable[[torch.Tensor, Grid, int], np.ndarray]


def random_map(images: torch.Tensor, grid: Grid, seed: int) -> np.ndarray:
    """Return uniform noise, drawn for each cell of the grid: heat maps (B, H, W)."""
    drawn = np.random.default_rng([seed, 2]).random((len(images), *grid))  # not the draw that breaks ties
    return heatmap(drawn, _size(images))


def gaussian_map(images: torch.Tensor, grid: Grid, seed: int) -> np.ndarray:
    """Return a blob in the centre, its standard deviation a quarter of each side: heat maps (B, H, W)."""
    down, across = (np.exp(-0.5 * (np.linspace(-1, 1, side) / 0.5) ** 2) for side in _size(images))
    blob = torch.from_numpy(np.outer(down, across))[None, None]
    coarse = F.adaptive_avg_pool2d(blob, grid)[0].numpy()  # (1, h, w)
    return np.repeat(heatmap(coarse, _size(images)), len(images), axis=0)


def edge_map(images: torch.Tensor, grid: Grid, seed: int) -> np.ndarray:
    """Return the magnitude of the Sobel gradient of the images' mean channel: heat maps (B, H, W)."""
    gray = F.pad(
        check_images(images).cpu().double().mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate"
    )
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).to(gray)
    slopes = F.conv2d(gray, torch.stack([across, across.T])[:, None])  # (B, 2, H, W)
    coarse = F.adaptive_avg_pool2d(slopes.norm(dim=1), grid)  # (B, h, w)
    return heatmap(coarse.numpy(), _size(images))


BASELINES: dict[str, Baseline] = {
    "a random map": random_map,
    "a centred blob": gaussian_map,
    "an edge map": edge_map,
}
"""The baseline maps of the images alone, by their names in a sentence."""


def baseline_maps(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes,
    *,
    grid: Grid,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return the heat maps of every baseline, by its name in a sentence.

    Args:
        model: A classifier.
        images: Float (B, C, H, W).
        targets: The classes that are explained, one for all or (B,).
        grid: (h, w) of the raw maps that the baselines are compared with, `explanation.maps.shape[1:]`.
        method: The method that these maps come from.
        layer: Its layer.
        seed: Of what is drawn.

    Returns:
        Heat maps (B, H, W) in [0, 1]: those of `BASELINES`, then those of `model_baselines`.
    """
    images = check_images(images)
    maps = {name: baseline(images, grid, seed) for name, baseline in BASELINES.items()}
    return maps | model_baselines(model, images, targets, method=method, layer=layer, seed=seed)


def model_baselines(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes,
    *,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    score: OutputScore | None = None,
    tokens: TokenGrid | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return heat maps (B, H, W) of the same method for what it should tell apart from the target.

    "the map of another class" is for the class of the highest logit but the target's, where there are two or
    more; "the map of an untrained network" for the target in the same network with all weights drawn anew.
    The arguments are those of `baseline_maps`; score and tokens are `score` and `grid` of `explain`.
    """
    classes = as_classes(targets, len(check_images(images)))
    how: dict[str, Any] = {"method": method, "layer": name_in(model, layer), "score": score, "grid": tokens}
    logits = logits_of(model, images, score=score)
    found = {}
    if logits.shape[1] > 1:
        found["the map of another class"] = explain(model, images, runner_up(logits, classes), **how)
    untrained = untrained_copy(model, seed=seed)
    found["the map of an untrained network"] = explain(untrained, images, classes, **how)
    return {name: one.heatmaps() for name, one in found.items()}


def runner_up(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the class (B,) of the highest logit (B, C) but that of `classes` (B,)."""
    return logits.scatter(1, classes.to(logits.device)[:, None], -torch.inf).argmax(dim=1)


def _size(images: torch.Tensor) -> Grid:
    return images.shape[2], images.shape[3]
