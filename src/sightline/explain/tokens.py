"""From what a transformer's layers put out to maps: token grids, found or given, and the way back.

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
from collections.abc import Callable

import torch
from torch import nn

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
