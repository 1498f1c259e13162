"""The evidence for every class at once, and for one class over another.

With A the layer's K maps of N cells and g_c the gradient of the logit y_c, the evidence for c is
sum_k g_ck A_k, which is linear in the class. Behind global average pooling and a linear head with
weights w and bias b, g_ck = w_ck / N everywhere, so that exactly

    sum over cells of the map of c             = y_c - b_c
    sum over cells of the map of a minus of b  = (y_a - y_b) - (b_a - b_b)

and all classes cost one forward pass and one product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sightline.attribution import validation
from sightline.attribution.attribution import in_batches
from sightline.attribution.context import AttributionContext
from sightline.attribution.explanation import Explanation, join, make_explanation
from sightline.attribution.layer_choice import choose_layer
from sightline.attribution.layers import Grid, Layer, head_layer, name_of
from sightline.attribution.methods.cam import hires_cam
from sightline.attribution.validation import Targets
from sightline.attribution.wrapped_model import Score, WrappedModel, wrap_model
from sightline.errors import InputError


def class_maps(
    model: nn.Module,
    images: torch.Tensor,
    layer: Layer | None = None,
    *,
    score: Score | None = None,
    grid: Grid | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Return the evidence for each class: what `hires_cam` gives for one.

    If the head is exact (see `preflight`), in closed form: one forward pass and one product for all classes,
    and a map sums to its logit less its bias. Otherwise by one backward pass per class from the logits to
    the layer, and the sum is that only to first order.

    Args:
        model: As for `explain`, and so are the arguments that are not listed here.
        images: Float (B, C, H, W).
        layer: A name or a module; None for the one that the head pools, or else what `target_layer` finds.

    Returns:
        (B, C, h, w), signed.
    """
    validation.check_images(images)
    wrapped = wrap_model(model, score)
    name = name_of(wrapped.model, layer)

    def visit(wrapped: WrappedModel, some: torch.Tensor) -> np.ndarray:
        nonlocal name  # what the first batch finds serves the others
        name = name or head_layer(wrapped, some) or choose_layer(wrapped, some)
        return _of_all_classes(AttributionContext(wrapped, some, None, name, grid)).cpu().numpy()

    return np.concatenate(in_batches(wrapped, images, [], batch_size, visit))


def _of_all_classes(context: AttributionContext) -> torch.Tensor:
    activations = context.activations
    if context.head is not None:
        weights = context.head.weight.to(activations) / activations[0, 0].numel()  # (C, K)
        return torch.einsum("ck,bk...->bc...", weights, activations)
    ones = torch.eye(context.logits.shape[1], device=activations.device)
    slopes = (context.slopes(one.expand(len(activations), -1)) for one in ones)
    return torch.stack([hires_cam(activations, slope) for slope in slopes], dim=1)


@dataclass(frozen=True, eq=False)
class Difference:
    """Where the evidence for class a over class b lies, and how much of the difference it accounts for.

    gap = shown + against + rest.

    Attributes:
        explanation: Maps (B, h, w), above 0 where the image speaks for a rather than b, in units of the
            logit; its targets are a.
        a: (B,) int64.
        b: (B,) int64.
        exact: Whether the head is linear, so that this is the difference itself and not its linearisation.
        gap: (B,) y_a - y_b.
        shown: (B,) the sum of the map where it is above 0.
        against: (B,) the sum of the map where it is below 0.
        rest: (B,) what is left of the gap: the difference of the biases where exact, otherwise also what is
            not linear.
    """

    explanation: Explanation
    a: np.ndarray
    b: np.ndarray
    exact: bool
    gap: np.ndarray
    shown: np.ndarray
    against: np.ndarray
    rest: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """(B,) shown / gap: above 1 where other regions speak against a; NaN where y_a is not above y_b."""
        return np.divide(self.shown, self.gap, out=np.full_like(self.gap, np.nan), where=self.gap > 0)


def explain_difference(
    model: nn.Module,
    images: torch.Tensor,
    a: Targets | None,
    b: Targets,
    *,
    layer: Layer | None = None,
    score: Score | None = None,
    grid: Grid | None = None,
    batch_size: int = 64,
) -> Difference:
    """Map the evidence for class a over class b: for a mistake, the predicted class over the true one.

    The map is the gradient of y_a - y_b times the activations; behind an exact head, (w_a - w_b) . A / N.

    Args:
        model: As for `explain`, and so are the arguments that are not listed here.
        images: Float (B, C, H, W).
        a: As `targets` of `explain`; None for the predicted class.
        b: As `targets` of `explain`.
        layer: A name or a module; None for the one that an exact head pools, or else what `target_layer`
            finds.

    Raises:
        InputError: An argument does not fit, or a and b are the same class for an image.
    """
    validation.check_images(images)
    wrapped = wrap_model(model, score)
    name = name_of(wrapped.model, layer)

    def visit(wrapped: WrappedModel, some: torch.Tensor, first: Targets | None, second: Targets) -> tuple:
        nonlocal name  # what the first batch finds serves the others
        name = name or head_layer(wrapped, some) or choose_layer(wrapped, some)
        context = AttributionContext(wrapped, some, first, name, grid)
        others = validation.choose_classes(second, context.logits)
        _check_differ(context.targets, others)
        count = context.logits.shape[1]
        slopes = context.slopes(F.one_hot(context.targets, count) - F.one_hot(others, count))
        maps = hires_cam(context.activations, slopes)
        found = make_explanation(maps, slopes, context.targets, context.logits, some, "difference", name)
        return found, others.cpu().numpy(), context.head is not None

    explanations, others, exact = zip(*in_batches(wrapped, images, [a, b], batch_size, visit), strict=True)
    return _difference(join(explanations), np.concatenate(others), all(exact))


def _check_differ(a: torch.Tensor, b: torch.Tensor) -> None:
    same = (a == b).nonzero()[:, 0].tolist()
    if same:
        raise InputError(
            f"a and b are both class {int(b[same[0]])} for {len(same)} of {len(b)} images; pass two classes, "
            "and only images where they differ"
        )


def _difference(explanation: Explanation, b: np.ndarray, exact: bool) -> Difference:
    rows, a = np.arange(len(b)), explanation.targets
    gap = explanation.logits[rows, a] - explanation.logits[rows, b]
    flat = explanation.maps.reshape(len(b), -1)
    shown, against = flat.clip(min=0).sum(axis=1), flat.clip(max=0).sum(axis=1)
    return Difference(explanation, a, b, exact, gap, shown, against, gap - shown - against)
