"""Which layer to explain when the user names none, from what the layers really put out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.explain.arguments import as_input, check_images
from sightline.explain.hooks import hooked

Grid = tuple[int, int]


def target_layer(model: nn.Module, images: torch.Tensor, minimum: int = 5) -> str:
    """Return the name of the deepest layer whose map has at least `minimum` x `minimum` cells.

    images: float (B, C, H, W); one forward pass is made, with the first.

    Depth is read from the grid: the coarsest one that is large enough. Among the layers with that
    grid, whole stages go before their parts, and late before early. So ResNet-18 gives "layer3"
    (8x8) for images of 32 pixels and "layer4" (7x7) for images of 224. No candidate is what runs
    before the first weights (normalisation), what enlarges its input, or what runs several times.

    If no grid is that large, the largest one that there is serves: read `maps.shape`.

    Raises SightlineError if no layer has a map of more than one cell, or the images do not fit.

    >>> small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> target_layer(small, torch.rand(1, 3, 8, 8))
    '1'
    """
    check_images(images)
    seen = _observe(model, images)
    grids = {name: run.grid for name, run in seen.items() if run.serves and run.grid and max(run.grid) > 1}
    if not grids:
        raise SightlineError(
            f"{type(model).__name__} has no layer with a map (B, K, h, w) larger than 1x1; "
            "explain needs a network with convolutions"
        )
    large = [grid for grid in grids.values() if min(grid) >= minimum]
    chosen = min(large, key=_cells) if large else max(grids.values(), key=_cells)
    fitting = [name for name, grid in grids.items() if grid == chosen]  # in the order in which they ended
    nesting = {name: _nesting(name, seen) for name in fitting}
    return [name for name in fitting if nesting[name] == min(nesting.values())][-1]


def spatial_layers(model: nn.Module, images: torch.Tensor) -> list[str]:
    """Return the outermost layers with a map of more than one cell, in the order in which they ran."""
    seen = _observe(model, images)
    return [
        name
        for name, run in seen.items()
        if run.serves and run.grid and max(run.grid) > 1 and not _nesting(name, seen)
    ]


@dataclass
class _Run:
    grid: Grid | None  # (h, w) of the output; None if it is not (B, K, h, w)
    serves: bool  # as a target layer


def _observe(model: nn.Module, images: torch.Tensor) -> dict[str, _Run]:
    """Run the first image and return what each module put out, in the order in which they ended."""
    layers = {name: module for name, module in model.named_modules() if name}
    seen: dict[str, _Run] = {}
    learned = False

    def note(name: str, inputs: tuple, output: object) -> None:
        nonlocal learned
        learned = learned or any(parameter.ndim > 1 for parameter in layers[name].parameters())
        grid, before = _grid(output), _grid(inputs[0] if inputs else None)
        enlarged = grid is not None and before is not None and _cells(grid) > _cells(before)
        seen[name] = _Run(grid, serves=learned and not enlarged and name not in seen)

    with hooked(model, layers, note):
        model(as_input(model, images[:1]))
    return seen


def _grid(value: object) -> Grid | None:
    return (value.shape[2], value.shape[3]) if isinstance(value, torch.Tensor) and value.ndim == 4 else None


def _cells(grid: Grid) -> int:
    return grid[0] * grid[1]


def _nesting(name: str, seen: dict[str, _Run]) -> int:
    """Count the modules around `name` that put out a map themselves."""
    parts = name.split(".")
    around = (".".join(parts[:count]) for count in range(1, len(parts)))
    return sum(outer in seen and seen[outer].grid is not None for outer in around)
