"""Where a classifier found its evidence: `explain` for one layer, `explain_layers` for several at once.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> explanation = explain(model, torch.rand(2, 3, 10, 10))
    >>> explanation.layer, explanation.maps.shape, explanation.heatmaps().shape
    ('1', (2, 8, 8), (2, 10, 10))

Any `nn.Module` that returns logits (B, C) will do, and with `score` any other. The cost of a method of
activations and gradients is one forward pass, and a backward pass from the logits to the earliest
layer; the model is left bit for bit as it was found.

A batch at a time, with the model at rest, the images where the model is, and autocast off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from sightline.attribution import validation
from sightline.attribution.context import Case
from sightline.attribution.explanation import (
    Combination,
    Explanation,
    combined,
    explanation_of,
    find_combination,
    join,
)
from sightline.attribution.hooks import at_rest, gradients_of
from sightline.attribution.layers import Grid, Layer, as_maps, choose_layer, find_grid, name_of
from sightline.attribution.methods.registry import (
    Method,
    OfCase,
    OfRecord,
    find_method,
    method_name,
    takes_case,
)
from sightline.attribution.validation import Targets
from sightline.attribution.wrapped_model import Score, Subject, subject_of
from sightline.errors import SightlineError
from sightline.models.layers import find_layer

T = TypeVar("T")


def in_batches(
    subject: Subject,
    images: torch.Tensor,
    targets: Sequence[Targets | None],
    batch_size: int,
    visit: Callable[..., T],
) -> list[T]:
    """Return visit(images, *targets) of each batch in turn: at most `batch_size` images and their targets.

    Raises SightlineError for images, targets or a batch size that do not fit.
    """
    validation.check_images(images)
    validation.check_batch_size(batch_size)
    wanted = [validation.as_classes(each, len(images)) for each in targets]
    results = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        chosen = [each[part] if isinstance(each, torch.Tensor) else each for each in wanted]
        with at_rest(subject.model), torch.autocast(subject.device.type, enabled=False):
            results.append(visit(validation.as_input(subject.model, images[part]), *chosen))
    return results


def explain(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets | None = None,
    *,
    method: str | Method = "grad_cam",
    layer: Layer | Sequence[Layer] | None = None,
    combine: str | Combination = "mean",
    score: Score | None = None,
    grid: Grid | None = None,
    batch_size: int = 64,
) -> Explanation:
    """Map the evidence for each image's target class.

    images: float (B, C, H, W) or (B, C, D, H, W), in [0, 1] where normalisation is part of the model;
    they are moved to the model's device and dtype.
    targets: None (the predicted class), one class for all, one per image, or a function from logits
    (B, C) to classes (B,).
    method: a name in `METHODS`, or a function of either form that `attribution.methods.registry` describes.
    layer: a name or a module; several of them, joined by `combine`; or None for what `target_layer`
    finds (at the cost of one more forward pass, of one image). Methods that look at the image alone
    use none, and say "input".
    combine: a name in `COMBINATIONS`, or a function from maps (L, B, h, w) of L layers to (B, h, w).
    score: from whatever the model returns to logits (B, C), or to one number per image (B,).
    grid: from tokens as a layer puts them out to maps (B, K, h, w), where it is not found.
    batch_size: images in one pass.

    Raises SightlineError if an argument does not fit; the message says what does.
    """
    options = {"method": method, "score": score, "grid": grid, "batch_size": batch_size}
    if isinstance(layer, Sequence) and not isinstance(layer, str | nn.Module):
        join = find_combination(combine)
        return combined(list(explain_layers(model, images, targets, layers=layer, **options).values()), join)
    return _explain(model, images, targets, [layer], **options)[0]


def explain_layers(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets | None = None,
    *,
    layers: Sequence[Layer],
    method: str | Method = "grad_cam",
    score: Score | None = None,
    grid: Grid | None = None,
    batch_size: int = 64,
) -> dict[str, Explanation]:
    """Like `explain`, for several layers; by layer name.

    With a method of activations and gradients they share one forward and one backward pass.
    """
    if isinstance(layers, str | nn.Module) or not layers:
        raise SightlineError(f"layers is {layers!r:.60}; explain_layers needs a list of at least one layer")
    found = _explain(
        model, images, targets, layers, method=method, score=score, grid=grid, batch_size=batch_size
    )
    return {explanation.layer: explanation for explanation in found}


def _explain(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets | None,
    layers: Sequence[Layer | None],
    *,
    method: str | Method,
    score: Score | None,
    grid: Grid | None,
    batch_size: int,
) -> list[Explanation]:
    validation.check_images(images)  # before the model is asked anything
    subject = subject_of(model, score)
    names = [name_of(subject.model, layer) for layer in layers]
    function = find_method(method)

    def visit(some: torch.Tensor, chosen: Targets | None) -> list[Explanation]:
        nonlocal names  # what the first batch finds serves the others
        if takes_case(function):
            cases = [Case(subject, some, chosen, name, grid, batch_size) for name in names]
            found = [_by_case(case, function) for case in cases]
            names = [case.used or name for case, name in zip(cases, names, strict=True)]
            return found
        names = [name or choose_layer(subject, some) for name in names]
        return _by_record(subject, some, chosen, names, grid, cast(OfRecord, function))

    batches = in_batches(subject, images, [targets], batch_size, visit)
    return [join(parts) for parts in zip(*batches, strict=True)]


def _by_case(case: Case, method: OfCase) -> Explanation:
    maps = method(case)
    fits = isinstance(maps, torch.Tensor) and maps.ndim == case.images.ndim - 1 and maps.numel() > 0
    if not fits or len(maps) != len(case.images):
        _refuse(method, maps, (len(case.images), "h", "w", "d")[: case.images.ndim - 1])
    gradients = vars(case).get("gradients")
    return explanation_of(
        maps, gradients, case.targets, case.logits, case.images, method_name(method), case.used or "input"
    )


def _by_record(
    subject: Subject,
    images: torch.Tensor,
    targets: Targets | None,
    names: Sequence[str],
    grid: Grid | None,
    method: OfRecord,
) -> list[Explanation]:
    layers = {name: find_layer(subject.model, name) for name in names}
    logits, outputs = subject.record(images, layers)
    classes = validation.choose_classes(targets, logits.detach())
    gradients = gradients_of(logits, F.one_hot(classes, logits.shape[1]), outputs)
    explanations = []
    for name in names:
        own = grid or find_grid(subject.model, layers[name], outputs[name], images.shape[2:])
        activations = as_maps(subject, name, outputs[name].detach(), own, images)  # (B, K, h, w)
        slopes = as_maps(subject, name, gradients[name], own, images)  # (B, K, h, w)
        maps = method(activations, slopes)
        fits = (len(images), *activations.shape[2:])
        if not isinstance(maps, torch.Tensor) or maps.shape != fits:
            _refuse(method, maps, fits)
        explanations.append(explanation_of(maps, slopes, classes, logits, images, method_name(method), name))
    return explanations


def _refuse(method: Method, maps: object, fits: tuple) -> None:
    came = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
    shape = f"({', '.join(map(str, fits))})"
    raise SightlineError(
        f"method {method_name(method)} returned {came}; a method returns a tensor (B, h, w), here {shape}"
    )
