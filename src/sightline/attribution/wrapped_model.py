"""A model as it is explained: out of its wrapping, in the caller's precision, with logits (B, C).

Maps are exact where the logits are a matrix times the mean of a layer. Such a linear head behind global
average pooling is looked for by its shape, and accepted only if it reproduces the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sightline.attribution import validation
from sightline.attribution.hooks import recorded
from sightline.errors import InputError
from sightline.models.device import device_of
from sightline.signatures import needs_two

Score = Callable[..., torch.Tensor]
"""`score(output)`, or `score(output, index)` with the index (M,) int64 of the caller's image for each row."""


@dataclass(frozen=True, eq=False)
class WrappedModel:
    """A module that returns logits (M, C), or one score per image.

    Attributes:
        model: The user's module, without compiled or distributed wrapping.
        score: From the model's output, and from the index of each row's image if it takes a second argument,
            to logits (M, C), or one number per image (M,); None for the output.
        autocast: The dtype of the caller's mixed precision; None without it.
        first: Index of the first image of this batch among the caller's.
        every: After how many images they begin anew, where the batch is of several copies of each; 0: never.
    """

    model: nn.Module
    score: Score | None = None
    autocast: torch.dtype | None = None
    first: int = 0
    every: int = 0

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    def logits(
        self, images: torch.Tensor, count: int | None = None, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits (M, C) of one forward pass, float32 or float64; scores (M,) become (M, 1).

        Args:
            images: (M, C, H, W).
            count: M, if it is not the number of images.
            rows: (M,) int64, which image of the batch each row belongs to; None if they are in order.

        Raises:
            InputError: The output is anything else.
        """
        try:
            if self.autocast is None:
                output = self.model(images)
            else:  # without its cache: weights cast here would have no graph for the caller's own training
                with torch.autocast(images.device.type, self.autocast, cache_enabled=False):
                    output = self.model(images)
        except (TypeError, RuntimeError, AssertionError) as error:
            reason = validation.reason_of_failure(self.model, images, error)
            if reason is None:
                raise
            raise InputError(reason) from error
        count = len(images) if count is None else count
        if self.score is not None:
            rows = torch.arange(count) % (self.every or count) if rows is None else rows
            output = score_of(self.score, output, self.first + rows.to(images.device))
        return widened(validation.check_logits(output, count, scored=self.score is not None))

    def record(
        self, images: torch.Tensor, layers: Mapping[str, nn.Module]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the logits and, joined to them by a graph, the output of each layer in the same pass.

        Raises:
            InputError: A layer did not run, ran twice, or returned no tensor of floats.
        """
        with recorded(self.model, layers) as outputs:
            logits = self.logits(images)
        validation.check_ran(layers, outputs)
        return logits, outputs


def wrap_model(model: nn.Module, score: Score | None = None) -> WrappedModel:
    """Return the model as it is to be explained here and now, under the caller's autocast."""
    model = unwrapped(model)
    validation.check_model(model)
    kind = device_of(model).type
    mixed = torch.is_autocast_enabled(kind)
    return WrappedModel(model, score, torch.get_autocast_dtype(kind) if mixed else None)


def score_of(score: Score, output: Any, index: torch.Tensor) -> torch.Tensor:
    """Return the score of a model's output, given the index (M,) of each row's image if it asks for it."""
    return score(output, index) if needs_two(score) else score(output)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return half precision as float32; float32 and float64 stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head, y_c = b_c + sum_k w_ck mean(A_k).

    Attributes:
        name: Of the module that holds it.
        weight: w, (C, K).
        bias: b, (C,).
    """

    name: str
    weight: torch.Tensor
    bias: torch.Tensor


def find_head(wrapped: WrappedModel, pooled: torch.Tensor, logits: torch.Tensor) -> Head | None:
    """Return the head for which the logits are weight @ pooled + bias; None if there is none.

    Candidates are linear layers, and convolutions of a single cell, from K to C. Dropout does nothing in
    evaluation mode; whatever else is in between (a hidden layer, max pooling, a scale) changes the numbers,
    so that the head does not reproduce the logits.

    Args:
        wrapped: The model.
        pooled: (B, K), the mean of the layer's maps over their cells.
        logits: (B, C), of the same pass.
    """
    scale = logits.abs().max().clamp(min=torch.finfo(logits.dtype).tiny)
    for name, module in wrapped.model.named_modules():
        head = _linear(name, module)
        if head is None or head.weight.shape != (logits.shape[1], pooled.shape[1]):
            continue
        expected = F.linear(pooled, head.weight.to(pooled), head.bias.to(pooled))
        # Half precision leaves two digits or three; B times C numbers that agree so far are no accident.
        half = wrapped.autocast is not None or module.weight.dtype.itemsize < 4  # type: ignore[union-attr]
        if (expected - logits).abs().max() <= (3e-2 if half else 3e-3) * scale:
            return head
    return None


def _linear(name: str, module: nn.Module) -> Head | None:
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        single = set(module.kernel_size) == set(module.stride) == {1} and module.groups == 1
        fits = single and not any(module.padding)
    else:
        fits = isinstance(module, nn.Linear)
    if not fits or not isinstance(weight, torch.Tensor):
        return None
    weight = widened(weight.detach().flatten(1))
    bias = getattr(module, "bias", None)
    return Head(name, weight, weight.new_zeros(len(weight)) if bias is None else widened(bias.detach()))
