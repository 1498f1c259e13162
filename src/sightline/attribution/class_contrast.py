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
from sightline.attribution.context import Case
from sightline.attribution.explanation import Explanation, explanation_of, join
from sightline.attribution.layers import Grid, Layer, choose_layer, head_layer, name_of
from sightline.attribution.methods.cam import hires_cam
from sightline.attribution.validation import Targets
from sightline.attribution.wrapped_model import Score, subject_of
from sightline.errors import SightlineError


def class_maps(
    model: nn.Module,
    images: torch.Tensor,
    layer: Layer | None = None,
    *,
    score: Score | None = None,
    grid: Grid | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Return the evidence for each class, (B, C, h, w), signed: what `hires_cam` gives for one.

    Where the head is exact (see `preflight`), in closed form: one forward pass and one product for all
    classes, and a map sums to its logit less its bias. Elsewhere by one backward pass per class from
    the logits to the layer, and the sum is that only to first order.

    layer: a name or a module; None for the one that the head pools, or else what `target_layer` finds.
    The other arguments, and the errors, are those of `explain`.
    """
    validation.check_images(images)
    subject = subject_of(model, score)
    name = name_of(subject.model, layer)

    def visit(some: torch.Tensor) -> np.ndarray:
        nonlocal name  # what the first batch finds serves the others
        name = name or head_layer(subject, some) or choose_layer(subject, some)
        return _of_all_classes(Case(subject, some, None, name, grid)).cpu().numpy()

    return np.concatenate(in_batches(subject, images, [], batch_size, visit))


def _of_all_classes(case: Case) -> torch.Tensor:
    activations = case.activations
    if case.head is not None:
        weights = case.head.weight.to(activations) / activations[0, 0].numel()  # (C, K)
        return torch.einsum("ck,bk...->bc...", weights, activations)
    ones = torch.eye(case.logits.shape[1], device=activations.device)
    slopes = (case.slopes(one.expand(len(activations), -1)) for one in ones)
    return torch.stack([hires_cam(activations, slope) for slope in slopes], dim=1)


@dataclass(frozen=True, eq=False)
class Difference:
    """Where the evidence for class a over class b lies, and how much of the difference it accounts for.

    explanation: maps (B, h, w), above 0 where the image speaks for a rather than b, in units of the
    logit; its targets are a. a, b: (B,) int64. exact: whether the head is linear, so that this is the
    difference itself and not its linearisation.
    gap: (B,) y_a - y_b. shown, against: (B,) sums of the map above and below 0. rest: (B,) what is left
    of the gap: the difference of the biases where exact, else also what bends. So
    gap = shown + against + rest.
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
        """(B,) shown / gap: above 1 where other regions take some back; NaN where a does not lead."""
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

    a, b: as `targets` of `explain`; a may be None, the predicted class. The map is the gradient of
    y_a - y_b times the activations; behind an exact head, (w_a - w_b) . A / N.
    layer: a name or a module; None for the one that an exact head pools, or else what `target_layer`
    finds. The other arguments are those of `explain`.

    Raises SightlineError as `explain` does, and if a and b are the same class for an image.
    """
    validation.check_images(images)
    subject = subject_of(model, score)
    name = name_of(subject.model, layer)

    def visit(some: torch.Tensor, first: Targets | None, second: Targets) -> tuple:
        nonlocal name  # what the first batch finds serves the others
        name = name or head_layer(subject, some) or choose_layer(subject, some)
        case = Case(subject, some, first, name, grid)
        others = validation.choose_classes(second, case.logits)
        _check_differ(case.targets, others)
        count = case.logits.shape[1]
        slopes = case.slopes(F.one_hot(case.targets, count) - F.one_hot(others, count))
        maps = hires_cam(case.activations, slopes)
        found = explanation_of(maps, slopes, case.targets, case.logits, some, "difference", name)
        return found, others.cpu().numpy(), case.affine

    explanations, others, exact = zip(*in_batches(subject, images, [a, b], batch_size, visit), strict=True)
    return _difference(join(explanations), np.concatenate(others), all(exact))


def _check_differ(a: torch.Tensor, b: torch.Tensor) -> None:
    same = (a == b).nonzero()[:, 0].tolist()
    if same:
        raise SightlineError(
            f"a and b are both class {int(b[same[0]])} for {len(same)} of {len(b)} images; pass two classes, "
            "and only images where they differ"
        )


def _difference(explanation: Explanation, b: np.ndarray, exact: bool) -> Difference:
    rows, a = np.arange(len(b)), explanation.targets
    gap = explanation.logits[rows, a] - explanation.logits[rows, b]
    flat = explanation.maps.reshape(len(b), -1)
    shown, against = flat.clip(min=0).sum(axis=1), flat.clip(max=0).sum(axis=1)
    return Difference(explanation, a, b, exact, gap, shown, against, gap - shown - against)
