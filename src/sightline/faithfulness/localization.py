"""Does the map fall where the evidence must be: masks of objects, and grids of the user's own images.

    >>> maps, masks = np.array([[[0.0, 3.0], [1.0, 0.0]]]), np.array([[[False, True], [False, False]]])
    >>> heat_in_masks(maps, masks)
    array([0.75])

Masks say where the object (or a mark that should not matter) is. That is about the position of a map, not
about its faithfulness: a model may look elsewhere than at the object. A grid of confident images is
different: we know which cell shows which class, so the evidence for a class has to be in its cell. In both, a
map without positive evidence points nowhere, and gets what a uniform map gets.

Grid pointing game: Boehle 2021 (CoDA Nets), Rao 2022 ("Towards better understanding attribution
methods"), section 3. DiFull: Rao 2022, section 3.2.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sightline.attribution import explain, heatmap, target_layer
from sightline.errors import InputError
from sightline.faithfulness.measurement import (
    Classes,
    Maps,
    Measurement,
    as_classes,
    as_maps,
    as_masks,
    check_at_least,
    check_images,
    logits_of,
)
from sightline.faithfulness.sanity_checks import name_in


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

    Expected by chance is the mask's share of the image: what a uniform map gets.

    Args:
        maps: (B, H, W).
        masks: (B, H, W), booleans.

    Raises:
        InputError: A mask is empty: leave that image out.
    """
    values = heat_in_masks(maps, masks)
    inside = _filled_masks(maps, masks)
    return Measurement("energy in mask", values, True, chance=inside.mean(axis=(1, 2)))


def pointing_game(
    maps: Maps, masks: Maps, *, tolerance: int = 0, grid: tuple[int, int] | None = None
) -> Measurement:
    """1 if the maximum of the map is inside the mask, else 0 (Zhang 2016); higher is better.

    If several pixels share the maximum, the value is the share of them that hit: what a random choice among
    them gets in expectation. Expected by chance is the share of the image that counts as a hit; with a
    `grid`, the share of random maps of that grain that hit: once resized they peak in the middle of a cell,
    and more often at the border.

    Args:
        maps: (B, H, W).
        masks: (B, H, W), booleans.
        tolerance: How many pixels (Euclidean) away from the mask a hit may be; the paper allows 15 in
            pictures of about 500.
        grid: (h, w) of the maps before they were resized, `explanation.maps.shape[1:]`.

    Raises:
        InputError: A mask is empty: leave that image out.
    """
    check_at_least("tolerance", tolerance, 0)
    heat = np.maximum(as_maps(maps), 0)
    hit = _dilated(_filled_masks(maps, masks), tolerance)  # (B, H, W)
    top = heat == heat.max(axis=(1, 2), keepdims=True)
    values = (top & hit).sum(axis=(1, 2)) / top.sum(axis=(1, 2))
    size = (hit.shape[1], hit.shape[2])
    chance = (hit * (1 / hit[0].size if grid in (None, size) else _peaks(grid, size))).sum(axis=(1, 2))
    return Measurement("pointing game", values, True, chance=chance)


@functools.lru_cache(maxsize=8)
def _peaks(grid: tuple[int, int], size: tuple[int, int], draws: int = 2048) -> np.ndarray:
    """Return how often a random map of that grain peaks at each pixel once it is resized, (H, W), sum 1."""
    rng, peaks, chunk = np.random.default_rng(0), np.zeros(size), 128
    for _ in range(draws // chunk):
        heat = heatmap(rng.random((chunk, *grid)), size)
        top = heat == heat.max(axis=(1, 2), keepdims=True)
        peaks += (top / top.sum(axis=(1, 2), keepdims=True)).sum(axis=0)
    return peaks / draws


def _filled_masks(maps: Maps, masks: Maps) -> np.ndarray:
    inside = as_masks(masks, tuple(maps.shape))
    empty = np.flatnonzero(~inside.any(axis=(1, 2)))
    if len(empty):
        raise InputError(
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


@dataclass(frozen=True, eq=False)
class ImageGrids:
    """Pictures of n x n images, each cell of another class that the model knows confidently.

    Attributes:
        images: Float (G, C, n H, n W).
        classes: (G, n n) int64, the class of each cell, row by row.
        sources: (G, n n) int64, the index of the image of each cell.
        n: Cells along a side.
    """

    images: torch.Tensor
    classes: np.ndarray
    sources: np.ndarray
    n: int


def image_grids(
    model: nn.Module,
    images: torch.Tensor,
    labels: Classes,
    *,
    n: int = 2,
    grids: int = 50,
    confidence: float = 0.9,
    seed: int = 0,
) -> ImageGrids:
    """Compose up to `grids` grids of images that the model classifies rightly with at least `confidence`.

    Every image is used once at most, the most confident of a class first; the classes of a grid are drawn
    from those with most images left.

    Args:
        model: A classifier.
        images: Float (B, C, H, W).
        labels: (B,).
        n: Cells along a side, 2 or more.
        grids: How many, at most.
        confidence: Of an image in a grid, at least.
        seed: Of the draws.

    Raises:
        InputError: There are not n n classes with such an image.
    """
    images = check_images(images)
    check_at_least("n", n, 2)
    check_at_least("grids", grids, 1)
    classes = as_classes(labels, len(images)).numpy()
    sure, predicted = (found.cpu().numpy() for found in logits_of(model, images).softmax(dim=1).max(dim=1))
    right = (predicted == classes) & (sure >= confidence)
    ranked = np.argsort(-sure, kind="stable")
    left = {label: list(ranked[right[ranked] & (classes[ranked] == label)]) for label in np.unique(classes)}
    rng = np.random.default_rng(seed)
    sources = []
    while len(sources) < grids and sum(map(bool, left.values())) >= n * n:
        order = sorted(left, key=lambda label: (-len(left[label]), rng.random()))
        sources.append(rng.permutation([left[label].pop(0) for label in order[: n * n]]))
    if not sources:
        usable = sum(map(bool, left.values()))
        raise InputError(
            f"{usable} classes have an image classified rightly with confidence {confidence}; a {n}x{n} grid "
            f"needs {n * n}: pass more images, or a lower confidence"
        )
    cells = np.stack(sources)  # (G, n n)
    return ImageGrids(_tiled(images, cells, n), classes[cells], cells, n)


def grid_pointing_game(
    model: nn.Module,
    images: torch.Tensor,
    labels: Classes,
    *,
    n: int = 2,
    grids: int = 50,
    confidence: float = 0.9,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    seed: int = 0,
) -> Measurement:
    """Share of a map's positive heat in the cell of its class, on n x n grids of images; higher is better.

    One value per grid: the mean over its cells, each explained for its own class at n times the size.
    Expected by chance is 1 / n^2, which is what a map without positive heat gets. The layer is chosen at the
    images' own size.

    Args:
        model: A classifier that takes images of n times the size.
        images: Float (B, C, H, W), of which `image_grids` makes the grids, as of the other arguments.
        labels: (B,).
        n: Cells along a side.
        grids: How many, at most.
        confidence: Of an image in a grid, at least.
        method: As for `explain`.
        layer: As for `explain`.
        seed: Of the draws.

    Raises:
        InputError: The model cannot take images of n times the size: it must be fully convolutional up to a
            pooling over whatever is left.
    """
    layer = target_layer(model, images) if layer is None else layer
    made = image_grids(model, images, labels, n=n, grids=grids, confidence=confidence, seed=seed)
    _check_takes(model, made)
    cells = _cell_masks(n, (images.shape[2], images.shape[3]))  # (n n, n H, n W)
    shares = []
    for cell in range(n * n):
        heat = explain(model, made.images, made.classes[:, cell], method=method, layer=layer).heatmaps()
        shares.append(heat_in_masks(heat, np.broadcast_to(cells[cell], heat.shape)))
    chance = np.full(len(made.images), 1 / n**2)
    return Measurement("grid pointing game", np.mean(shares, axis=0), True, chance=chance)


def difull(
    model: nn.Module,
    images: torch.Tensor,
    labels: Classes,
    *,
    n: int = 2,
    grids: int = 8,
    confidence: float = 0.9,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    seed: int = 0,
) -> Measurement:
    """Share of a map's absolute heat outside of the only cell that its logit can see; must be exactly 0.

    The cells of a grid of `image_grids` are run through the model one by one, as if by n n disconnected
    networks, and the logits put side by side: the logit of a cell's class depends on that cell alone, so
    whatever a method shows in another cell is false. One value per grid: the mean over its cells.

    For methods of one layer, and for gradients of the input. It does not fit methods that mask the grid as a
    whole by the activations of a cell (Score-CAM), or add maps of all layers (FullGrad). The arguments are
    those of `grid_pointing_game`.
    """
    layer = target_layer(model, images) if layer is None else layer
    made = image_grids(model, images, labels, n=n, grids=grids, confidence=confidence, seed=seed)
    apart = _Disconnected(model, n)
    classes = logits_of(model, images[:1]).shape[1]
    leaks = []
    for cell in range(n * n):
        targets = cell * classes + made.classes[:, cell]
        heat = _heat_by_cell(apart, made, targets, method, str(name_in(model, layer)))  # (n n, G)
        total = heat.sum(axis=0)
        outside = np.delete(heat, cell, axis=0).sum(axis=0)
        leaks.append(np.divide(outside, total, out=np.zeros_like(total), where=total > 0))
    return Measurement("difull", np.mean(leaks, axis=0), False)


class _Disconnected(nn.Module):
    """n n copies of a model that share its weights, one per cell: (B, C, n H, n W) to (B, n n classes)."""

    def __init__(self, model: nn.Module, n: int):
        super().__init__()
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        # A copy of its own per cell, so that a layer of each can be named and runs once.
        self.cells = nn.ModuleList(copy.deepcopy(model, dict(shared)) for _ in range(n * n))
        self.n = n

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        parts = [part for row in images.chunk(self.n, dim=2) for part in row.chunk(self.n, dim=3)]
        return torch.cat([cell(part) for cell, part in zip(self.cells, parts, strict=True)], dim=1)


def _heat_by_cell(
    apart: _Disconnected, made: ImageGrids, targets: np.ndarray, method: str | Callable, layer: str
) -> np.ndarray:
    """Return the absolute heat (n n, G) that the map of `targets` (G,) puts into each cell."""
    heat = []
    for cell in range(made.n**2):
        maps = explain(apart, made.images, targets, method=method, layer=f"cells.{cell}.{layer}").maps
        maps = np.abs(maps.astype(np.float64))
        if maps.shape[1:] == tuple(made.images.shape[2:]):  # of the input: all cells at once
            tiles = maps.reshape(len(maps), made.n, maps.shape[1] // made.n, made.n, -1)
            return tiles.sum(axis=(2, 4)).reshape(len(maps), -1).T
        heat.append(maps.sum(axis=(1, 2)))
    return np.stack(heat)


def _tiled(images: torch.Tensor, cells: np.ndarray, n: int) -> torch.Tensor:
    """Lay the images (B, C, H, W) of each row of `cells` (G, n n) out as a picture: (G, C, n H, n W)."""
    chosen = images[torch.from_numpy(cells)]  # (G, n n, C, H, W)
    rows = chosen.unflatten(1, (n, n)).permute(0, 3, 1, 4, 2, 5)  # (G, C, n, H, n, W)
    return rows.flatten(4, 5).flatten(2, 3)


def _cell_masks(n: int, size: tuple[int, int]) -> np.ndarray:
    """Return bool (n n, n H, n W): each cell of the grid, row by row."""
    block = np.ones(size, dtype=bool)
    return np.stack([np.kron(unit.reshape(n, n), block) for unit in np.eye(n * n, dtype=bool)])


def _check_takes(model: nn.Module, made: ImageGrids) -> None:
    height, width = made.images.shape[2:]
    try:
        logits_of(model, made.images[:1])
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{type(model).__name__} cannot take {height}x{width} images ({reason}); the grid pointing game "
            "needs a classifier that is convolutional up to a pooling over any size"
        ) from error
