"""The linear head behind global average pooling, found by its shape and believed only by its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sightline.explain.subject import Subject, widened


@dataclass(frozen=True, eq=False)
class Head:
    """y_c = b_c + sum_k w_ck mean(A_k). name: of the module that holds it; weight: (C, K); bias: (C,)."""

    name: str
    weight: torch.Tensor
    bias: torch.Tensor


def find_head(subject: Subject, pooled: torch.Tensor, logits: torch.Tensor) -> Head | None:
    """Return the head for which the logits (B, C) are weight @ pooled + bias; None if none is.

    pooled: the mean of A over its cells, (B, K), of the same pass. Candidates are linear layers, and
    convolutions of a single cell, from K to C. Dropout does nothing in evaluation mode; whatever else
    is in between (a hidden layer, max pooling, a scale) changes the numbers, and is told by that.
    """
    scale = logits.abs().max().clamp(min=torch.finfo(logits.dtype).tiny)
    for name, module in subject.model.named_modules():
        head = _linear(name, module)
        if head is None or head.weight.shape != (logits.shape[1], pooled.shape[1]):
            continue
        expected = F.linear(pooled, head.weight.to(pooled), head.bias.to(pooled))
        # Half precision leaves two digits or three; B times C numbers that agree so far are no accident.
        half = subject.autocast is not None or module.weight.dtype.itemsize < 4  # type: ignore[union-attr]
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
