"""Maps that know nothing of the model, or not of this class: what a good map has to beat.

A control is drawn at the grain of the map that it stands beside: reduced to the same grid (h, w) and
resized as heat maps are. A fine random map, for one, wrecks an image faster than any blob does, and
would beat every class-activation map for a reason that has nothing to do with where the evidence is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sightline.attribution import explain, heatmap
from sightline.faithfulness.measurement import Classes, as_classes, check_images, logits_of
from sightline.faithfulness.sanity_checks import name_in, untrained_twin

Grid = tuple[int, int]
# (images, grid, seed) -> heat maps (B, H, W) in [0, 1]
Control = Callable[[torch.Tensor, Grid, int], np.ndarray]


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


CONTROLS: dict[str, Control] = {"random": random_map, "a centred blob": gaussian_map, "edges": edge_map}


def control_maps(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes,
    *,
    grid: Grid,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return the heat maps (B, H, W) of every control, by its name in a sentence.

    images: float (B, C, H, W); targets: the classes explained; grid: (h, w) of the raw maps that the
    controls stand beside, `explanation.maps.shape[1:]`. First those in `CONTROLS`, then
    `model_controls`.
    """
    images = check_images(images)
    maps = {name: control(images, grid, seed) for name, control in CONTROLS.items()}
    return maps | model_controls(model, images, targets, method=method, layer=layer, seed=seed)


def model_controls(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes,
    *,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return heat maps (B, H, W) of the same method for what it should tell apart from the target.

    "another class": for the class of the highest logit but the target's. "an untrained twin": for
    the target in the same network with all weights drawn anew.
    """
    classes = as_classes(targets, len(check_images(images)))
    name = name_in(model, layer)
    others = runner_up(logits_of(model, images), classes)
    twin = untrained_twin(model, seed=seed)
    return {
        "another class": explain(model, images, others, method=method, layer=name).heatmaps(),
        "an untrained twin": explain(twin, images, classes, method=method, layer=name).heatmaps(),
    }


def runner_up(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the class (B,) of the highest logit (B, C) but that of `classes` (B,)."""
    return logits.scatter(1, classes.to(logits.device)[:, None], -torch.inf).argmax(dim=1)


def _size(images: torch.Tensor) -> Grid:
    return images.shape[2], images.shape[3]
