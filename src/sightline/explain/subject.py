"""A model as it is explained: out of its wrapping, in the caller's precision, with logits (B, C)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sightline.explain import arguments
from sightline.explain.hooks import recorded
from sightline.models.execution import device_of

Score = Callable[[Any], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Subject:
    """model: without wrapping. read: from its output to logits (M, C), or one score each (M,).

    autocast: the dtype of the caller's mixed precision; None where there is none.
    """

    model: nn.Module
    read: Score | None = None
    autocast: torch.dtype | None = None

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    def logits(self, images: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Return the logits (M, C) of one forward pass, float32 or float64; scores (M,) become (M, 1).

        count: M, where it is not the number of images. Raises SightlineError for any other output.
        """
        if self.autocast is None:
            output = self.model(images)
        else:  # without its cache: weights cast here would have no graph for the caller's own training
            with torch.autocast(images.device.type, self.autocast, cache_enabled=False):
                output = self.model(images)
        output = output if self.read is None else self.read(output)
        count = len(images) if count is None else count
        return widened(arguments.check_logits(output, count, scored=self.read is not None))

    def record(
        self, images: torch.Tensor, layers: Mapping[str, nn.Module]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the logits and, joined to them by a graph, what each layer put out in the same pass.

        Raises SightlineError for a layer that did not run, ran twice, or put out no tensor of floats.
        """
        with recorded(self.model, layers) as outputs:
            logits = self.logits(images)
        arguments.check_ran(layers, outputs)
        return logits, outputs


def subject_of(model: nn.Module, score: Score | None = None) -> Subject:
    """Return the model as it is to be explained here and now, under the caller's autocast."""
    model = unwrapped(model)
    arguments.check_model(model)
    kind = device_of(model).type
    mixed = torch.is_autocast_enabled(kind)
    return Subject(model, score, torch.get_autocast_dtype(kind) if mixed else None)


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
