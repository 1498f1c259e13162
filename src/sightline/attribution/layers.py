"""Which layer to explain when the user names none, from what the layers really put out.

From what a transformer's layers put out to maps: token grids, found or given, and the way back.

ViT, DeiT (timm, torchvision, Hugging Face)   (B, r + h w, K), r class, distillation, register tokens first
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
from sightline.attribution.wrapped_model import Score, Subject, find_head, subject_of, widened
from sightline.errors import SightlineError
from sightline.models.layers import find_layer, layer_name

Grid = Callable[[torch.Tensor], torch.Tensor]

MOST_EXTRA_TOKENS = 8  # one class token, one for distillation, four registers are common


def grid_of_tokens(size: tuple[int, ...]) -> Grid:
    """Return the function from tokens (B, N, K) to maps (B, K, *size): the last h * w tokens, row by row.

    size: (h, w), or (d, h, w). What comes first (class, distillation and register tokens) has no place.
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
        if 0 <= tokens.shape[1] - torch.Size(size).numel() <= MOST_EXTRA_TOKENS:
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


def place_back(grid: Grid, maps: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return the layer's output with the maps in place of its own, (M, K, h, w) to (M, N, K).

    A grid only selects and reorders, so its transpose, the vector-Jacobian product, is its way back.
    """
    with torch.enable_grad():
        zeros = torch.zeros_like(output).requires_grad_()
        change = maps.to(output.dtype) - grid(output)
        (placed,) = torch.autograd.grad(grid(zeros), zeros, change, create_graph=maps.requires_grad)
    return output + placed


Layer = str | nn.Module
Size = tuple[int, ...]  # (h, w) or (d, h, w)


def target_layer(
    model: nn.Module, images: torch.Tensor, minimum: int = 5, *, score: Score | None = None
) -> str:
    """Return the name of the deepest layer whose map has at least `minimum` x `minimum` cells.

    images: float (B, C, H, W), or (B, C, D, H, W); one forward pass is made, with the first.
    score: as for `explain`.

    Depth is read from the grid: the coarsest one that is large enough. Among the layers with that
    grid, whole stages go before their parts, and late before early. So ResNet-18 gives "layer3"
    (8x8) for images of 32 pixels and "layer4" (7x7) for images of 224. No candidate is what runs
    before the first weights (normalisation), what enlarges its input, or what runs several times.

    In a transformer, where maps end with the patch embedding, it is the last normalisation of tokens
    whose patches the logit of the predicted class still reacts to, at the cost of one more pass: the
    one before the last attention where a class token is read, the final one where patches are pooled.

    If no grid is that large, the largest one that there is serves: read `maps.shape`.

    Raises SightlineError if no layer has a map of more than one cell, or the images do not fit.

    >>> small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> target_layer(small, torch.rand(1, 3, 8, 8))
    '1'
    """
    check_images(images)
    subject = subject_of(model, score)
    with at_rest(subject.model):
        return choose_layer(subject, as_input(subject.model, images[:1]), minimum)


def choose_layer(subject: Subject, images: torch.Tensor, minimum: int = 5) -> str:
    """What `target_layer` finds, for a subject and images that were checked."""
    _, seen = observe(subject, images)
    served = {name: run for name, run in seen.items() if run.serves and run.cells > 1}
    if not served:
        raise SightlineError(
            f"{type(subject.model).__name__} has no layer with a map (B, K, h, w) larger than 1x1; "
            "explain needs a network with convolutions, or tokens and grid="
        )
    order = list(served)
    maps = [name for name in order if not served[name].tokens]
    norms = [name for name in order if served[name].tokens and _is_norm(subject.model, name)]
    if norms and (not maps or order.index(norms[-1]) > order.index(maps[-1])):
        large = [name for name in norms if min(served[name].size) >= minimum]
        return _last_with_gradient(subject, images, large or norms)
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


def spatial_layers(subject: Subject, images: torch.Tensor) -> list[str]:
    """Return the outermost layers with a map of more than one cell, in the order in which they ran."""
    _, seen = observe(subject, images)
    return [name for name, run in seen.items() if run.serves and run.cells > 1 and not _nesting(name, seen)]


def as_maps(
    subject: Subject, name: str, output: torch.Tensor, grid: Grid | None, images: torch.Tensor
) -> torch.Tensor:
    """Return a layer's output as maps (B, K, h, w), float32 or float64.

    Raises SightlineError if they are none, or of a single cell.
    """
    maps = output if grid is None else grid(output)
    if maps.ndim != images.ndim or maps.shape[2:].numel() == 1 or len(maps) != len(output):
        known = ", ".join(spatial_layers(subject, images)) or "none"
        came = f"which grid turned into {tuple(maps.shape)}, " if grid else ""
        hint = "; for tokens pass grid=, a function from them to (B, K, h, w)" if maps.ndim == 3 else ""
        raise SightlineError(
            f"layer {name!r} returns {tuple(output.shape)}, {came}no map (B, K, h, w) of more than one "
            f"cell; layers with a map: {known}{hint}"
        )
    return widened(maps)


@dataclass
class Run:
    """What a module put out. size: of its map, () if it is none. tokens: it took a grid to see one.

    serves: as a target layer. pooled: the mean over the cells, (1, K).
    """

    size: Size
    tokens: bool
    serves: bool
    pooled: torch.Tensor | None

    @property
    def cells(self) -> int:
        return _cells(self.size) if self.size else 0  # the product of no lengths is 1


def head_layer(subject: Subject, images: torch.Tensor) -> str | None:
    """Return the layer that is pooled for a linear head, outermost and latest; None if there is none."""
    logits, seen = observe(subject, images)
    fitting = [
        name
        for name, run in seen.items()
        if run.serves and run.cells > 1 and run.pooled is not None and find_head(subject, run.pooled, logits)
    ]
    return outermost(fitting, seen)[-1] if fitting else None


def observe(subject: Subject, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, Run]]:
    """Run the first image: its logits, and what each module put out in the order in which they ended."""
    layers = {name: module for name, module in subject.model.named_modules() if name}
    seen: dict[str, Run] = {}
    learned = False

    def note(name: str, inputs: tuple, output: object) -> None:
        nonlocal learned
        learned = learned or any(parameter.ndim > 1 for parameter in layers[name].parameters())
        maps, tokens = None, False
        if isinstance(output, torch.Tensor) and output.is_floating_point() and output.ndim > 2:
            grid = find_grid(subject.model, layers[name], output, images.shape[2:])
            maps, tokens = (output, False) if grid is None else (grid(output), True)
        if maps is None or maps.ndim != images.ndim:
            seen[name] = Run((), False, False, None)
            return
        before = inputs[0].shape[2:] if inputs and isinstance(inputs[0], torch.Tensor) else torch.Size()
        enlarged = not tokens and len(before) == maps.ndim - 2 and before.numel() < maps.shape[2:].numel()
        serves = learned and not enlarged and name not in seen
        seen[name] = Run(tuple(maps.shape[2:]), tokens, serves, widened(maps.flatten(2).mean(2)))

    with hooked(subject.model, layers, note):
        logits = subject.logits(images[:1])
    return logits, seen


def _is_norm(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name), nn.LayerNorm | nn.RMSNorm)


def _last_with_gradient(subject: Subject, images: torch.Tensor, names: Sequence[str]) -> str:
    layers = {name: subject.model.get_submodule(name) for name in names}
    logits, outputs = subject.record(images[:1], layers)
    predicted = F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)
    gradients = torch.autograd.grad(logits, list(outputs.values()), predicted, materialize_grads=True)
    found = names[-1]
    for name, gradient in zip(outputs, gradients, strict=True):
        grid = find_grid(subject.model, layers[name], gradient, images.shape[2:])
        if grid and grid(gradient).any():
            found = name
    return found


def _cells(size: Size) -> int:
    return torch.Size(size).numel()


def outermost(names: Sequence[str], seen: dict[str, Run]) -> list[str]:
    """Return those of the names that lie in the fewest modules that put out a map themselves."""
    nesting = {name: _nesting(name, seen) for name in names}
    return [name for name in names if nesting[name] == min(nesting.values())]


def _nesting(name: str, seen: dict[str, Run]) -> int:
    """Count the modules around `name` that put out a map themselves."""
    parts = name.split(".")
    around = (".".join(parts[:count]) for count in range(1, len(parts)))
    return sum(outer in seen and bool(seen[outer].size) for outer in around)
