"""What the score does when part of the image, or of the layer, is taken away.

    >>> from torch import nn
    >>> from sightline.attribution import explain
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> explain(model, torch.rand(2, 3, 8, 8), method="score_cam", layer="1").maps.shape
    (2, 6, 6)

With y the target's score, x the image, A_k the channels of the layer and Up the resize to the image:

    Score-CAM      sum_k softmax_k( y(x * norm(Up(A_k))) ) A_k, norm(m) = (m - min m) / (max m - min m)
                   Wang et al. 2020, arXiv:1910.01279, algorithm 1
    Ablation-CAM   sum_k (y - y_without_k) / |y| A_k
                   Desai & Ramaswamy 2020, "Ablation-CAM", WACV, eq. 3
    RISE           1 / (N p) sum_i (y(x * M_i) - mean y) M_i, over N random masks that show a share p
                   Petsiuk et al. 2018, arXiv:1806.07421, eq. 6
    occlusion      the mean of y(x) - y(x with a patch painted over), over the patches that cover a pixel
                   Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2

All run in passes of about `context.batch_size` images: the memory grows with that and not with the
number of channels, masks or patches, and the result does not depend on it.

Deviations. Ablation-CAM divides by |y| (the paper by y, which turns the map over where y < 0). RISE
subtracts the mean score: eq. 6 alone is mostly that mean, times how often a random mask showed the pixel;
what is left is signed, and above 0 where showing the pixel raises the score.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator

import torch

from sightline.attribution.context import AttributionContext
from sightline.attribution.scaling import resize, to_unit
from sightline.attribution.validation import warn_of_normalised
from sightline.attribution.wrapped_model import widened
from sightline.errors import InputError

# Images (B, C, H, W) to what they are painted over with, of the same shape.
Fill = Callable[[torch.Tensor], torch.Tensor]


def score_cam(context: AttributionContext, *, autocast: torch.dtype | None = None) -> torch.Tensor:
    """Return sum_k softmax_k(score of the image seen through channel k) A_k, (B, h, w) (Wang 2020).

    At most K passes per image: a flat channel has no min-max mask, so it gets no pass and no weight.

    Args:
        context: Model, images and targets.
        autocast: A lower precision for the passes, such as torch.bfloat16; weights and maps stay wide.
    """
    warn_of_normalised(context.images, "what a channel dims turns to the mean colour where black was meant")
    activations = context.activations  # (B, K, h, w)
    low, high = activations.flatten(2).aminmax(dim=2)  # (B, K)
    # Rounding leaves a constant channel with ripples, which min-max would blow up into a mask.
    varied = (high - low) > 1e-6 * torch.maximum(low.abs(), high.abs())
    pairs = varied.nonzero()  # (M, 2): image, channel
    found = torch.full_like(low, -torch.inf)
    for chunk in context.chunks(len(pairs)):
        rows, channels = pairs[chunk].unbind(1)
        masks = to_unit(resize(activations[rows, channels], context.images.shape[2:]))  # (n, H, W)
        images = context.images[rows] * masks[:, None].to(context.images)
        with _precision(autocast, images.device):
            found[rows, channels] = context.score(images, rows).to(found)
    weights = found.softmax(dim=1).nan_to_num()  # NaN where all channels are flat
    return torch.einsum("bk,bk...->b...", weights, activations)


def ablation_cam(context: AttributionContext) -> torch.Tensor:
    """Return sum_k (y - y_without_k) / |y| A_k, (B, h, w), signed (Desai & Ramaswamy 2020, eq. 3).

    Behind a linear head the drop is w_k mean(A_k): one forward pass in all. Elsewhere what follows
    the layer runs once for each channel, and what precedes it once for each image.
    """
    activations, y = context.activations, _current_scores(context)[:, None]  # (B, K, h, w), (B, 1)
    if context.head:
        drops = context.head.weight[context.targets] * activations.flatten(2).mean(2)  # (B, K)
    else:
        drops = y - torch.stack([_without_each_channel(context, row) for row in range(len(y))])
    return torch.einsum("bk,bk...->b...", drops / y.abs(), activations)


def rise(
    context: AttributionContext, *, masks: int = 1000, cells: int = 7, share: float = 0.5, seed: int = 0
) -> torch.Tensor:
    """Return what seeing a pixel adds to the score, (B, H, W), signed (Petsiuk 2018, eq. 6, centred).

    Args:
        context: Model, images and targets.
        masks: How many, N; the noise of the map falls with its square root (the paper takes 4,000 and more).
        cells: Of the random grid, along each side.
        share: Of the cells that are shown, p.
        seed: Of the masks.
    """
    images = widened(context.images)
    size, black = images.shape[2:], torch.zeros_like(images)
    weighted, shown = torch.zeros_like(images[:, 0]), torch.zeros_like(images[0, 0])  # sums of y_i M_i, M_i
    total = images.new_zeros(len(images))  # sum of y_i
    warn_of_normalised(context.images, "what is hidden shows the mean colour where black was meant")
    for some in _random_masks(size, masks, cells, share, seed, context.copies_per_pass):
        some = some.to(images)  # (n, H, W)
        y = _scores_behind(context, some, black)  # (n, B)
        weighted += torch.einsum("nb,n...->b...", y, some)
        shown += some.sum(0)
        total += y.sum(0)
    return (weighted - torch.einsum("b,...->b...", total / masks, shown)) / (masks * share)


def mean_colour(images: torch.Tensor) -> torch.Tensor:
    """Return each image's own mean colour everywhere, (B, C, H, W) to the same."""
    return images.flatten(2).mean(2)[(..., *[None] * (images.ndim - 2))].expand_as(images)


def occlusion(
    context: AttributionContext,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: Fill = mean_colour,
) -> torch.Tensor:
    """Return the mean drop of the score under the patches on a pixel, (B, H, W), signed (Zeiler 2014).

    Args:
        context: Model, images and targets.
        patch: The side in pixels; an eighth of the image's shorter side by default.
        stride: From one patch to the next; half a patch by default. The last patch ends at the border.
        fill: From images (B, C, H, W) to what the patches show, of the same shape.

    Raises:
        InputError: Patches do not fit into the image, or leave gaps.
    """
    size = context.images.shape[2:]
    patch = max(1, min(size) // 8) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    if not 1 <= stride <= patch <= min(size):
        raise InputError(
            f"patch is {patch} and stride {stride} for images of {tuple(size)}; occlusion needs "
            f"1 <= stride <= patch <= {min(size)}"
        )
    context = _in_full_precision(context)
    images, y = widened(context.images), _current_scores(context)
    painted = fill(images)
    starts = [sorted({*range(0, length - patch, stride), length - patch}) for length in size]
    boxes = [tuple(slice(s, s + patch) for s in corner) for corner in itertools.product(*starts)]
    drops, covers = torch.zeros_like(images[:, 0]), torch.zeros_like(images[0, 0])
    for first in range(0, len(boxes), context.copies_per_pass):
        some = boxes[first : first + context.copies_per_pass]
        masks = images.new_ones(len(some), *size)  # (n, H, W)
        for mask, box in zip(masks, some, strict=True):
            mask[box] = 0
        drop = y - _scores_behind(context, masks, painted)  # (n, B)
        drops += torch.einsum("nb,n...->b...", drop, 1 - masks)
        covers += (1 - masks).sum(0)
    return drops / covers


def _in_full_precision(context: AttributionContext) -> AttributionContext:
    """Return the context outside of autocast: bfloat16 does not resolve the drop of one patch."""
    if context.wrapped.autocast is None:
        return context
    wrapped = dataclasses.replace(context.wrapped, autocast=None)
    return dataclasses.replace(context, wrapped=wrapped, requested_targets=context.targets)


def _current_scores(context: AttributionContext) -> torch.Tensor:
    return context.logits.gather(1, context.targets[:, None])[:, 0]  # (B,)


def _without_each_channel(context: AttributionContext, row: int) -> torch.Tensor:
    """Return the score of image `row` with each channel of the layer set to 0 in turn: (K,)."""
    activations = context.activations[row]  # (K, h, w)
    found = _current_scores(context)[row].repeat(len(activations))
    live = activations.flatten(1).any(1).nonzero()[:, 0]  # to set a channel to 0 that is 0 changes nothing
    for chunk in context.chunks(len(live)):
        channels = live[chunk]
        ablated = activations.repeat(len(channels), *[1] * activations.ndim)  # (n, K, h, w)
        ablated[torch.arange(len(channels)), channels] = 0
        found[channels] = context.run_from_layer(ablated, row)[:, context.targets[row]]
    return found


def _scores_behind(context: AttributionContext, masks: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the scores (n, B) of every image behind every mask (n, H, W): `hidden` where a mask is 0."""
    return context.score_copies(torch.lerp(hidden, widened(context.images), masks[:, None, None])).to(hidden)


def _random_masks(
    size: torch.Size, count: int, cells: int, share: float, seed: int, per_pass: int
) -> Iterator[torch.Tensor]:
    """Yield masks (n, H, W): random grids of 0 and 1, resized to a cell more than the image, and shifted."""
    generator = torch.Generator().manual_seed(seed)
    grids = (torch.rand(count, *[cells] * len(size), generator=generator) < share).float()
    steps = [-(-length // cells) for length in size]  # pixels per cell, rounded up
    shifts = torch.stack([torch.randint(step, (count,), generator=generator) for step in steps], dim=1)
    for some, moves in zip(grids.split(per_pass), shifts.split(per_pass), strict=True):
        large = resize(some, [(cells + 1) * step for step in steps])
        yield torch.stack(
            [
                mask[tuple(slice(s, s + length) for s, length in zip(move, size, strict=True))]
                for mask, move in zip(large, moves.tolist(), strict=True)
            ]
        )


def _precision(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager:
    return torch.autocast(device.type, dtype, cache_enabled=False) if dtype else contextlib.nullcontext()
