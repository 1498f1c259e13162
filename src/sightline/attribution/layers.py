"""Layers as maps: how tokens become a grid and back, and which layer to explain if the user names none.

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
import torch.nn.functional as F
from torch import nn

from sightline.attribution.hooks import at_rest, hooked
from sightline.attribution.validation import as_input, check_images
from sightline.attribution.wrapped_model import Score, WrappedModel, find_head, widened, wrap_model
from sightline.errors import InputError
from sightline.models.layers import find_layer, layer_name

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
        return channels_last if _is_channels_last(layer, output) else None
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


def _token_grid(
    model: nn.Module, tokens: torch.Tensor, image_size: tuple[int, ...]
) -> tuple[int, ...] | None:
    size = _patch_grid(model, image_size)
    while size and min(size) > 1:
        if 0 <= tokens.shape[1] - torch.Size(size).numel() <= MAX_EXTRA_TOKENS:
            return size
        size = tuple(-(-length // 2) for length in size)  # patch merging pads what is odd
    return None


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


def target_layer(
    model: nn.Module, images: torch.Tensor, minimum: int = 5, *, score: Score | None = None
) -> str:
    """Return the name of the deepest layer whose map has at least `minimum` x `minimum` cells.

    Depth is read from the grid: the coarsest one that is large enough. Among the layers with that
    grid, whole stages go before their parts, and late before early. So ResNet-18 gives "layer3"
    (8x8) for images of 32 pixels and "layer4" (7x7) for images of 224. No candidate is what runs
    before the first weights (normalisation), what enlarges its input, or what runs several times.
    If no grid is that large, the largest one is taken: read `maps.shape`.

    In a transformer, where maps end with the patch embedding, it is the last normalisation of tokens
    whose patches the logit of the predicted class still reacts to: the one before the last attention if
    a class token is read, the final one if patches are pooled.

    Args:
        model: Any module that `explain` takes.
        images: Float (B, C, H, W), or (B, C, D, H, W); the first is passed once, for a transformer twice.
        minimum: Cells along the shorter side.
        score: As for `explain`.

    Raises:
        InputError: No layer has a map of more than one cell, or the images do not fit.

    >>> small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> target_layer(small, torch.rand(1, 3, 8, 8))
    '1'
    """
    check_images(images)
    wrapped = wrap_model(model, score)
    with at_rest(wrapped.model):
        return choose_layer(wrapped, as_input(wrapped.model, images[:1]), minimum)


def choose_layer(wrapped: WrappedModel, images: torch.Tensor, minimum: int = 5) -> str:
    """Return what `target_layer` finds, for a wrapped model and images that were checked."""
    _, seen = observe(wrapped, images)
    served = {name: run for name, run in seen.items() if run.serves and run.cells > 1}
    if not served:
        raise InputError(
            f"{type(wrapped.model).__name__} has no layer with a map (B, K, h, w) larger than 1x1; "
            "explain needs a network with convolutions, or tokens and grid="
        )
    order = list(served)
    maps = [name for name in order if not served[name].tokens]
    norms = [name for name in order if served[name].tokens and _is_norm(wrapped.model, name)]
    if norms and (not maps or order.index(norms[-1]) > order.index(maps[-1])):
        large = [name for name in norms if min(served[name].size) >= minimum]
        return _last_with_gradient(wrapped, images, large or norms)
    grids = {name: served[name].size for name in maps or order}
    large = [size for size in grids.values() if min(size) >= minimum]
    chosen = min(large, key=_cells) if large else max(grids.values(), key=_cells)
    fitting = [name for name, size in grids.items() if size == chosen]  # in the order in which they ended
    return outermost(fitting, seen)[-1]


def name_of(model: nn.Module, layer: Layer | None) -> str | None:
    """Return the name of a layer that exists; None stays."""
    if isinstance(layer, str):
        find_layer(model, layer)
        return layer
    return None if layer is None else layer_name(model, layer)


def spatial_layers(wrapped: WrappedModel, images: torch.Tensor) -> list[str]:
    """Return the outermost layers with a map of more than one cell, in the order in which they ran."""
    _, seen = observe(wrapped, images)
    return [name for name, run in seen.items() if run.serves and run.cells > 1 and not _nesting(name, seen)]


def as_maps(
    wrapped: WrappedModel, name: str, output: torch.Tensor, grid: Grid | None, images: torch.Tensor
) -> torch.Tensor:
    """Return a layer's output as maps (B, K, h, w), float32 or float64.

    Raises:
        InputError: The output is no map, or one of a single cell.
    """
    maps = output if grid is None else grid(output)
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
        tokens: Whether a grid turned tokens into the map.
        serves: Whether it can be a target layer.
        pooled: The mean over the cells, (1, K); None if it is no map.
    """

    size: Size
    tokens: bool
    serves: bool
    pooled: torch.Tensor | None

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


def observe(wrapped: WrappedModel, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, LayerRun]]:
    """LayerRun the first image: its logits, and what each module put out in the order in which they ended."""
    layers = {name: module for name, module in wrapped.model.named_modules() if name}
    seen: dict[str, LayerRun] = {}
    learned = False

    def note(name: str, inputs: tuple, output: object) -> None:
        nonlocal learned
        learned = learned or any(parameter.ndim > 1 for parameter in layers[name].parameters())
        maps, tokens = None, False
        if isinstance(output, torch.Tensor) and output.is_floating_point() and output.ndim > 2:
            grid = find_grid(wrapped.model, layers[name], output, images.shape[2:])
            maps, tokens = (output, False) if grid is None else (grid(output), True)
        if maps is None or maps.ndim != images.ndim:
            seen[name] = LayerRun((), False, False, None)
            return
        before = inputs[0].shape[2:] if inputs and isinstance(inputs[0], torch.Tensor) else torch.Size()
        enlarged = not tokens and len(before) == maps.ndim - 2 and before.numel() < maps.shape[2:].numel()
        serves = learned and not enlarged and name not in seen
        seen[name] = LayerRun(tuple(maps.shape[2:]), tokens, serves, widened(maps.flatten(2).mean(2)))

    with hooked(wrapped.model, layers, note):
        logits = wrapped.logits(images[:1])
    return logits, seen


def _is_norm(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name), nn.LayerNorm | nn.RMSNorm)


def _last_with_gradient(wrapped: WrappedModel, images: torch.Tensor, names: Sequence[str]) -> str:
    layers = {name: wrapped.model.get_submodule(name) for name in names}
    logits, outputs = wrapped.record(images[:1], layers)
    predicted = F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)
    gradients = torch.autograd.grad(logits, list(outputs.values()), predicted, materialize_grads=True)
    found = names[-1]
    for name, gradient in zip(outputs, gradients, strict=True):
        grid = find_grid(wrapped.model, layers[name], gradient, images.shape[2:])
        if grid and grid(gradient).any():
            found = name
    return found


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
