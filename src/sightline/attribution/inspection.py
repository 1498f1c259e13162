"""Before the maps: what can be said about a model's maps at one layer, in sentences.

>>> head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
>>> print(preflight(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *head), (2, 3, 12, 12)))
Sequential, layer '1': 10x10 cells, 8 channels.
It is the last layer of 10x10 cells that all evidence passes. Next in rank: '0' (10x10).
The head '4' is linear in the pooled layer: maps of classes are exact, and sum to the logit less
its bias.
These methods give the same map here, up to a factor: cam, grad_cam, hires_cam, xgrad_cam,
shapley_cam.
These methods give the same map here: elementwise_grad_cam, layer_cam.
No hazards were found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sightline.attribution import validation
from sightline.attribution.attribution import in_batches
from sightline.attribution.context import AttributionContext
from sightline.attribution.hooks import hooked
from sightline.attribution.layer_choice import REQUESTED, Candidate, choose_layer, layer_choice
from sightline.attribution.layers import Grid, Layer, head_layer, name_of
from sightline.attribution.wrapped_model import Score, WrappedModel, wrap_model
from sightline.errors import InputError
from sightline.models.layers import find_layer

SMALL = 5  # cells along a side: a coarser map says little about where

RANKED = 3  # candidates that are listed

LINEAR = ("cam", "grad_cam", "hires_cam", "xgrad_cam", "shapley_cam")
POOLED = ("grad_cam", "hires_cam", "xgrad_cam")
RECTIFIED = ("elementwise_grad_cam", "layer_cam")


@dataclass(frozen=True)
class Preflight:
    """What was found out about a model at one layer; `str()` says it in sentences.

    Attributes:
        model: The name of its class.
        layer: The requested one, or what `target_layer` finds.
        grid: Its cells, (h, w) or (d, h, w).
        channels: K.
        head: The name of the linear module that makes the logits of the mean of this very layer; None if none
            reproduces them.
        exact_layer: The layer for which there is such a head; None if there is none.
        coincide: Names of methods that give the same map here, up to a positive factor, by identity.
        hazards: A sentence for each thing to know before relying on a map.
        layer_reason: How the layer was found, and what there is to doubt.
        candidates: Layers that could be explained, best first; empty if a layer was requested.
    """

    model: str
    layer: str
    grid: tuple[int, ...]
    channels: int
    head: str | None
    exact_layer: str | None
    coincide: tuple[tuple[str, ...], ...]
    hazards: tuple[str, ...]
    layer_reason: str = REQUESTED
    candidates: tuple[Candidate, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether maps of classes are exact at this layer."""
        return self.head is not None

    def __str__(self) -> str:
        lines = [f"{self.model}, layer {self.layer!r}: {_cells(self.grid)} cells, {self.channels} channels."]
        if self.candidates:
            others = ", ".join(str(one) for one in self.candidates[1 : 1 + RANKED])
            lines.append(f"It is {self.layer_reason}." + (f" Next in rank: {others}." if others else ""))
        lines.append(_head_sentence(self))
        for names in self.coincide:
            factor = "" if names == RECTIFIED else ", up to a factor"
            lines.append(f"These methods give the same map here{factor}: {', '.join(names)}.")
        lines.extend(f"Hazard: {hazard}" for hazard in self.hazards)
        return "\n".join(lines if self.hazards else [*lines, "No hazards were found."])


def preflight(
    model: nn.Module,
    images: torch.Tensor | Sequence[int],
    layer: Layer | None = None,
    *,
    score: Score | None = None,
    grid: Grid | None = None,
) -> Preflight:
    """Find the head, say whether maps are exact, which methods coincide, and what to be careful about.

    A few passes of a few images.

    Args:
        model: As for `explain`, and so are `score` and `grid`.
        images: Float (B, C, H, W), best some real ones; or such a shape, for images of noise.
        layer: A name or a module; None for what `target_layer` finds.

    Raises:
        InputError: As for `explain`; a layer without gradient is a hazard, not an error.
    """
    if not isinstance(images, torch.Tensor):
        images = _noise(images)
    validation.check_images(images)
    wrapped = wrap_model(model, score)
    name = name_of(wrapped.model, layer)

    def visit(wrapped: WrappedModel, some: torch.Tensor) -> Preflight:
        if name:
            return _inspect(AttributionContext(wrapped, some, None, name, grid))
        choice = layer_choice(wrapped, some)
        found = _inspect(AttributionContext(wrapped, some, None, choice.layer, grid))
        return dataclasses.replace(found, layer_reason=choice.reason, candidates=choice.candidates)

    return in_batches(wrapped, images[:8], [], 8, visit)[0]


def _noise(shape: Sequence[int]) -> torch.Tensor:
    if len(shape) not in (4, 5) or min(shape) < 1:
        raise InputError(f"the shape is {tuple(shape)}; pass (B, C, H, W), such as (1, 3, 32, 32)")
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _inspect(context: AttributionContext) -> Preflight:
    activations, exact_layer = context.activations, context.layer
    if context.head is None:
        exact_layer = head_layer(context.wrapped, context.images)
    gradients, hazards = None, []
    try:
        gradients = context.gradients
    except InputError as error:
        hazards.append(f"{error}, or a method without gradients.")
    return Preflight(
        model=type(context.model).__name__,
        layer=context.layer,
        grid=tuple(activations.shape[2:]),
        channels=activations.shape[1],
        head=context.head.name if context.head else None,
        exact_layer=exact_layer,
        coincide=_coincide(context, gradients),
        hazards=(*hazards, *_hazards(context, gradients)),
    )


def _coincide(context: AttributionContext, gradients: torch.Tensor | None) -> tuple[tuple[str, ...], ...]:
    if gradients is None:
        return ()
    groups = []
    if context.head:
        groups.append(LINEAR)
    elif _is_constant(gradients):
        groups.append(POOLED)
    if (context.activations >= 0).all():
        groups.append(RECTIFIED)
    return tuple(groups)


def _is_constant(gradients: torch.Tensor) -> bool:
    """Whether each channel's gradient (B, K, h, w) is the same in all cells."""
    flat = gradients.flatten(2)
    return bool((flat - flat[:, :, :1]).abs().max() <= 1e-5 * flat.abs().max())


def _hazards(context: AttributionContext, gradients: torch.Tensor | None) -> list[str]:
    return [
        sentence
        for sentence in (
            _coarse(context),
            _overwritten(context),
            _extra_tokens(context),
            _silent(context, gradients),
            _negative(context),
            _frozen(context),
        )
        if sentence
    ]


def _coarse(context: AttributionContext) -> str | None:
    size = context.activations.shape[2:]
    if min(size) >= SMALL:
        return None
    finer = choose_layer(context.wrapped, context.images)
    advice = (
        f"layer {finer!r} is finer" if finer != context.layer else "no later layer of this model is finer"
    )
    return f"the map has {_cells(size)} cells, too few to say where; {advice}."


def _overwritten(context: AttributionContext) -> str | None:
    kept: list[tuple[torch.Tensor, int]] = []

    def keep(name: str, inputs: tuple, output: object) -> None:
        if isinstance(output, torch.Tensor):
            kept.append((output, output._version))

    with hooked(context.model, {context.layer: find_layer(context.model, context.layer)}, keep):
        context.wrapped.logits(context.images[:1])
    if all(output._version == version for output, version in kept):
        return None
    return (
        "an in-place operation overwrites the output of this layer; the maps here are made from a copy, "
        "but a tool that keeps the tensor itself shows what came after."
    )


def _extra_tokens(context: AttributionContext) -> str | None:
    count = context.extra_tokens
    if not count:
        return None
    tokens = "1 token has" if count == 1 else f"{count} tokens have"
    return f"{tokens} no position in the image (class, distillation, register): no map shows what they carry."


def _silent(context: AttributionContext, gradients: torch.Tensor | None) -> str | None:
    if gradients is None:
        return None
    count = int((gradients == 0).flatten(1).all(dim=1).sum())
    if not count:
        return None
    return (
        f"the predicted logit does not react to this layer (zero gradient) for {count} of {len(gradients)} "
        f"images; choose an earlier layer, such as {choose_layer(context.wrapped, context.images)!r}."
    )


def _negative(context: AttributionContext) -> str | None:
    share = float((context.activations < 0).double().mean())
    if not share:
        return None
    return (
        f"{share:.0%} of the layer's output is below 0, as its last step is not a ReLU: xgrad_cam "
        "and grad_cam_plus_plus divide by sums that may cancel; prefer grad_cam or hires_cam."
    )


def _frozen(context: AttributionContext) -> str | None:
    parameters = list(context.model.parameters())
    count = sum(not parameter.requires_grad for parameter in parameters)
    if not count:
        return None
    return (
        f"{count} of {len(parameters)} parameters are frozen: maps do not need their gradients, but tools "
        "that hook a backward pass through them may find none."
    )


def _cells(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _head_sentence(found: Preflight) -> str:
    if found.head:
        return (
            f"The head {found.head!r} is linear in the pooled layer: maps of classes are exact, and sum to "
            "the logit less its bias."
        )
    if found.exact_layer:
        return (
            f"Maps are approximate at this layer, and exact at {found.exact_layer!r}, which is pooled for a "
            "linear head."
        )
    return "Maps are approximate: no layer was found that is pooled for a linear head."
