"""Layers as maps: how tokens become a grid and back, and what each layer puts out in one pass.

Outputs that are not maps (B, K, h, w) already, K channels of h x w cells, are recognised by their layout:

    ViT, DeiT (timm, torchvision, Hugging Face)   (B, r + h w, K), r tokens of other kinds first
    Swin (timm, torchvision)                      (B, h, w, K)
    Swin (Hugging Face)                           (B, h w, K)

    >>> tokens = torch.tensor([[[9.0], [1.0], [2.0], [3.0], [4.0]]])  # (B, 1 + 2 * 2, K): a class token first
    >>> grid_of_tokens((2, 2))(tokens)
    tensor([[[[1., 2.],
              [3., 4.]]]])
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sightline.attribution.hooks import Visit, hooked
from sightline.attribution.wrapped_model import WrappedModel, find_head, widened
from sightline.errors import InputError
from sightline.models.layers import find_layer, full_name, layer_name

Layer = str | nn.Module
Size = tuple[int, ...]  # (h, w) or (d, h, w)
Grid = Callable[[torch.Tensor], torch.Tensor]  # from a layer's output to maps (B, K, h, w)

MAX_EXTRA_TOKENS = 8  # one class token, one for distillation, four registers are common


def grid_of_tokens(size: tuple[int, ...]) -> Grid:
    """Return the function from tokens to maps that takes the last h * w tokens, row by row.

    What comes first (class, distillation and register tokens) belongs to no cell.

    Args:
        size: (h, w), or (d, h, w) for volumes.

    Returns:
        A function from (B, N, K) to (B, K, h, w), for `grid=` of `explain`.
    """
    return functools.partial(_last_tokens, size)


def _last_tokens(size: tuple[int, ...], tokens: torch.Tensor) -> torch.Tensor:
    cells = torch.Size(size).numel()
    return tokens[:, tokens.shape[1] - cells :].unflatten(1, size).movedim(-1, 1)


def channels_last(output: torch.Tensor) -> torch.Tensor:
    """Return maps (B, K, h, w) of (B, h, w, K)."""
    return output.movedim(-1, 1)


def find_grid(
    model: nn.Module, layer: nn.Module, output: torch.Tensor, image_size: tuple[int, ...]
) -> Grid | None:
    """Return the function from the layer's output to maps; None where it is a map, or nothing known.

    The channels of (B, a, b, c) are where the layer's own weights say they are. The grid of tokens
    is that of the patch embedding (the first convolution whose stride is its kernel), halved as often
    as it takes to leave at most a few tokens over.
    """
    if output.ndim == len(image_size) + 2 and output.ndim > 3:
        per_head = is_per_head(model, output, image_size)
        return channels_last if _is_channels_last(layer, output) and not per_head else None
    size = _token_grid(model, output, image_size) if output.ndim == 3 else None
    return grid_of_tokens(size) if size else None


def _is_channels_last(layer: nn.Module, output: torch.Tensor) -> bool:
    widths = set()
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            widths.add(module.out_features)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            widths.add(module.normalized_shape[-1])
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            widths.add(-module.out_channels)
    first, last = output.shape[1], output.shape[-1]
    return last in widths and first not in widths and -first not in widths


def is_per_head(model: nn.Module, output: torch.Tensor, image_size: Size) -> bool:
    """Whether (B, a, b, c) holds the tokens of attention heads, (B, heads, N, d) or (B, N, heads, d).

    It is no map then, though it has the shape of one: N counts all cells at once.
    """
    if output.ndim != 4 or len(image_size) != 2:
        return False
    sizes = _halvings(_patch_grid(model, image_size))
    sides = tuple(output.shape[2:]), tuple(output.shape[1:3])
    if any(size in sides for size in sizes):
        return False
    counts = {_cells(size) for size in sizes if _cells(size) > 1}
    return any(0 <= along - count <= MAX_EXTRA_TOKENS for along in output.shape[1:3] for count in counts)


def likely_grid(tokens: torch.Tensor, image_size: Size) -> Grid | None:
    """Return the grid of the image's proportions that tokens (B, N, K) fit with the fewest left over.

    It is a guess from two numbers: `follows_the_image` tells whether it holds.
    """
    if tokens.ndim != 3 or len(image_size) != 2:
        return None
    height, width = image_size
    count = tokens.shape[1]
    sizes = {(rows, round(rows * width / height)) for rows in range(2, height + 1)}
    left = {size: count - _cells(size) for size in sizes if min(size) > 1}
    fitting = [size for size, over in left.items() if 0 <= over <= MAX_EXTRA_TOKENS]
    return grid_of_tokens(min(fitting, key=lambda size: (left[size], size))) if fitting else None


def _token_grid(
    model: nn.Module, tokens: torch.Tensor, image_size: tuple[int, ...]
) -> tuple[int, ...] | None:
    for size in _halvings(_patch_grid(model, image_size)):
        if 0 <= tokens.shape[1] - _cells(size) <= MAX_EXTRA_TOKENS:
            return size
    return None


def _halvings(size: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    """Return the size and what patch merging makes of it, as long as no side is a single cell."""
    sizes = []
    while size and min(size) > 1:
        sizes.append(size)
        size = tuple(-(-length // 2) for length in size)  # patch merging pads what is odd
    return sizes


def _patch_grid(model: nn.Module, image_size: tuple[int, ...]) -> tuple[int, ...] | None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.stride == module.kernel_size:
            strides = [int(stride) for stride in module.stride]
            if max(strides) > 1 and len(strides) == len(image_size):
                return tuple(length // stride for length, stride in zip(image_size, strides, strict=True))
    return None


def put_maps_back(grid: Grid, maps: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return the layer's output with the maps written into it, (M, K, h, w) to (M, N, K).

    A grid only selects and reorders, so its transpose, the vector-Jacobian product, is its way back.
    """
    with torch.enable_grad():
        zeros = torch.zeros_like(output).requires_grad_()
        change = maps.to(output.dtype) - grid(output)
        (written,) = torch.autograd.grad(grid(zeros), zeros, change, create_graph=maps.requires_grad)
    return output + written


def name_of(model: nn.Module, layer: Layer | None) -> str | None:
    """Return the name of a layer that exists; None stays."""
    if isinstance(layer, str):
        return full_name(model, layer)
    return None if layer is None else layer_name(model, layer)


def spatial_layers(wrapped: WrappedModel, images: torch.Tensor) -> list[str]:
    """Return the outermost layers with a map of more than one cell, in the order in which they ran."""
    _, seen = observe(wrapped, images)
    sure = _patch_grid(wrapped.model, images.shape[2:]) is not None  # else tokens have a likely grid only
    return [
        name
        for name, run in seen.items()
        if run.serves and run.cells > 1 and not _nesting(name, seen)
        if sure or run.grid in (None, channels_last)
    ]


def follows_the_image(wrapped: WrappedModel, name: str, grid: Grid, images: torch.Tensor) -> bool:
    """Whether the cells of a layer lie where the grid says: tried out on the first image.

    Each quarter of the image is replaced by noise in turn. In networks that keep places apart the same
    quarter of the map changes most, also where attention lets a change reach every cell; rows and columns
    that are swapped, or tokens in an order of windows, fail. Of clips, time and depth are not tried.
    """
    image = images[:1]
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    noise = image.amin() + noise * (image.amax() - image.amin()).clamp(min=0.5)
    plain = grid(_output_of(wrapped, name, image))  # (1, K, h, w)
    if plain.ndim not in (4, 5) or min(plain.shape[-2:]) < 2:
        return False
    corners = [(vertical, across) for vertical in (0, 1) for across in (0, 1)]
    for place, corner in enumerate(corners):
        changed = image.clone()
        changed[_quarter(corner, image.shape[2:])] = noise[_quarter(corner, image.shape[2:])]
        change = widened(grid(_output_of(wrapped, name, changed)) - plain).norm(dim=1, keepdim=True)
        means = [float(change[_quarter(one, change.shape[2:])].mean()) for one in corners]
        if means[place] <= max(means[:place] + means[place + 1 :]):
            return False
    return True


def _quarter(corner: tuple[int, int], size: Sequence[int]) -> tuple:
    sides = [
        slice(length - length // 2, None) if far else slice(length // 2)
        for far, length in zip(corner, size[-2:], strict=True)
    ]
    return (..., *sides)


def _output_of(wrapped: WrappedModel, name: str, images: torch.Tensor) -> torch.Tensor:
    kept: list[torch.Tensor] = []

    def keep(name: str, inputs: tuple, output: object) -> None:
        assert isinstance(output, torch.Tensor)
        kept.append(output.detach().clone())  # an in-place operation may follow

    with hooked(wrapped.model, {name: find_layer(wrapped.model, name)}, keep):
        wrapped.logits(images)
    return kept[-1]


# What these return is a map, whatever its numbers of channels and cells look like.
_MAP_MAKERS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.Upsample)


def as_maps(
    wrapped: WrappedModel, name: str, output: torch.Tensor, grid: Grid | None, images: torch.Tensor
) -> torch.Tensor:
    """Return a layer's output as maps (B, K, h, w), float32 or float64.

    Raises:
        InputError: The output is no map, or one of a single cell.
    """
    maps = output if grid is None else grid(output)
    made_of_maps = isinstance(find_layer(wrapped.model, name), _MAP_MAKERS)
    if grid is None and not made_of_maps and is_per_head(wrapped.model, output, images.shape[2:]):
        raise InputError(
            f"layer {name!r} returns {tuple(output.shape)}, tokens of separate attention heads and no map "
            "(B, K, h, w); choose the block around it, or pass grid=, a function from them to (B, K, h, w)"
        )
    if maps.ndim != images.ndim or maps.shape[2:].numel() == 1 or len(maps) != len(output):
        known = ", ".join(spatial_layers(wrapped, images)) or "none"
        came = f"which grid turned into {tuple(maps.shape)}, " if grid else ""
        hint = "; for tokens pass grid=, a function from them to (B, K, h, w)" if maps.ndim == 3 else ""
        raise InputError(
            f"layer {name!r} returns {tuple(output.shape)}, {came}no map (B, K, h, w) of more than one "
            f"cell; layers with a map: {known}{hint}"
        )
    return widened(maps)


@dataclass(frozen=True)
class LayerRun:
    """What a module returned in one forward pass.

    Attributes:
        size: Of its map, () if it is none.
        grid: The function that turned tokens into the map; None if it is one already.
        serves: Whether it can be a target layer.
        pooled: The mean over the cells, (1, K); None if it is no map.
        extra: How many tokens belong to no cell.
    """

    size: Size
    grid: Grid | None
    serves: bool
    pooled: torch.Tensor | None
    extra: int = 0

    @property
    def tokens(self) -> bool:
        return self.grid is not None

    @property
    def cells(self) -> int:
        return _cells(self.size) if self.size else 0  # the product of no lengths is 1


def head_layer(wrapped: WrappedModel, images: torch.Tensor) -> str | None:
    """Return the layer that is pooled for a linear head, outermost and latest; None if there is none."""
    logits, seen = observe(wrapped, images)
    fitting = [
        name
        for name, run in seen.items()
        if run.serves and run.cells > 1 and run.pooled is not None and find_head(wrapped, run.pooled, logits)
    ]
    return outermost(fitting, seen)[-1] if fitting else None


def observe(
    wrapped: WrappedModel, images: torch.Tensor, watch: Visit | None = None
) -> tuple[torch.Tensor, dict[str, LayerRun]]:
    """Run the first image: its logits, and what each module put out in the order in which they ended.

    With `watch`, which sees each run and may replace its output, the pass builds its graph.
    """
    layers = {name: module for name, module in wrapped.model.named_modules() if name}
    seen: dict[str, LayerRun] = {}
    learned = False

    def note(name: str, inputs: tuple, output: object) -> torch.Tensor | None:
        nonlocal learned
        learned = learned or any(parameter.ndim > 1 for parameter in layers[name].parameters())
        maps, grid = None, None
        if isinstance(output, torch.Tensor) and output.is_floating_point() and output.shape[:1] == (1,):
            maps, grid = map_of(wrapped.model, layers[name], output.detach(), images.shape[2:])
        if maps is None or maps.ndim != images.ndim:
            seen[name] = LayerRun((), None, False, None)
        else:
            before = inputs[0].shape[2:] if inputs and isinstance(inputs[0], torch.Tensor) else torch.Size()
            enlarged = not grid and len(before) == maps.ndim - 2 and before.numel() < maps.shape[2:].numel()
            serves = learned and not enlarged and name not in seen
            extra = _extra(output, maps)
            size = tuple(maps.shape[2:])
            seen[name] = LayerRun(size, grid, serves, widened(maps.flatten(2).mean(2)), extra)
        return watch(name, inputs, output) if watch else None

    with hooked(wrapped.model, layers, note), torch.set_grad_enabled(watch is not None):
        logits = wrapped.logits(images[:1])
    return logits, seen


def _extra(output: object, maps: torch.Tensor) -> int:
    if isinstance(output, torch.Tensor) and output.ndim == 3:
        return output.shape[1] - maps[0, 0].numel()
    return 0


def map_of(
    model: nn.Module, layer: nn.Module, output: torch.Tensor, image_size: Size
) -> tuple[torch.Tensor | None, Grid | None]:
    """Return the layer's output as maps, None if it is none, and the grid if it is made of tokens."""
    grid = find_grid(model, layer, output, image_size) or likely_grid(output, image_size)
    if grid is not None:
        return grid(output), grid
    fits = output.ndim == len(image_size) + 2 and not is_per_head(model, output, image_size)
    return (output if fits else None), None


def _cells(size: Size) -> int:
    return torch.Size(size).numel()


def outermost(names: Sequence[str], seen: dict[str, LayerRun]) -> list[str]:
    """Return those of the names that lie in the fewest modules that return a map themselves."""
    nesting = {name: _nesting(name, seen) for name in names}
    return [name for name in names if nesting[name] == min(nesting.values())]


def _nesting(name: str, seen: dict[str, LayerRun]) -> int:
    """Count the modules around `name` that return a map themselves."""
    parts = name.split(".")
    around = (".".join(parts[:count]) for count in range(1, len(parts)))
    return sum(outer in seen and bool(seen[outer].size) for outer in around)
