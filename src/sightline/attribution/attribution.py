"""Where a classifier found its evidence: `explain` for one layer, `explain_layers` for several at once.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> explanation = explain(model, torch.rand(2, 3, 10, 10))
    >>> explanation.layer, explanation.maps.shape, explanation.heatmaps().shape
    ('1', (2, 8, 8), (2, 10, 10))

Any `nn.Module` that returns logits (B, C) will do, and with `score` any other. The cost of a method of
activations and gradients is one forward pass, and a backward pass from the logits to the earliest
layer; the model is left bit for bit as it was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from sightline.attribution import validation
from sightline.attribution.context import AttributionContext
from sightline.attribution.explanation import (
    Combination,
    Explanation,
    combined,
    find_combination,
    join,
    make_explanation,
)
from sightline.attribution.hooks import at_rest, gradients_of
from sightline.attribution.layer_choice import REQUESTED, grid_for, layer_choice
from sightline.attribution.layers import Grid, Layer, as_maps, name_of
from sightline.attribution.methods import (
    ContextMethod,
    LayerMethod,
    Method,
    find_method,
    function_name,
    takes_context,
)
from sightline.attribution.validation import Targets
from sightline.attribution.wrapped_model import Score, WrappedModel, wrap_model
from sightline.errors import InputError, InputTypeError
from sightline.models.layers import find_layer

T = TypeVar("T")


def in_batches(
    wrapped: WrappedModel,
    images: torch.Tensor,
    targets: Sequence[Targets | None],
    batch_size: int,
    visit: Callable[..., T],
) -> list[T]:
    """Return `visit(wrapped, images, *targets)` of each batch in turn.

    The images of a batch are where the model is and in its dtype, the model is at rest, and autocast is off.

    Args:
        wrapped: The model.
        images: (B, C, H, W).
        targets: What is cut into batches alongside them; functions and None are passed on.
        batch_size: Images in one batch, at most.
        visit: Is called once per batch, with the model as it is of this batch.

    Raises:
        InputError: Images, targets or the batch size do not fit.
    """
    validation.check_images(images)
    validation.check_batch_size(batch_size)
    classes = [validation.as_classes(each, len(images)) for each in targets]
    results = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        chosen = [each[part] if isinstance(each, torch.Tensor) else each for each in classes]
        with at_rest(wrapped.model), torch.autocast(wrapped.device.type, enabled=False):
            own = dataclasses.replace(wrapped, first=start)
            results.append(visit(own, validation.as_input(wrapped.model, images[part]), *chosen))
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

    Args:
        model: Any module; it is left bit for bit as it was found.
        images: Float (B, C, H, W) or (B, C, D, H, W), in [0, 1] if normalisation is part of the model; they
            are moved to the model's device and dtype.
        targets: None (the predicted class), one class for all, one per image, or a function from logits
            (B, C) to classes (B,).
        method: A name in `METHODS`, of a plugin, or "package.module:function"; or a function of either form
            that `attribution.methods` describes.
        layer: A name or a module; several of them, joined by `combine`; or None for what `target_layer`
            finds (at the cost of a few more passes of one image, the first time). Methods that look at the
            image alone use none, and report "input".
        combine: A name in `COMBINATIONS`, or a function from maps (L, B, h, w) of L layers to (B, h, w).
        score: From whatever the model returns to logits (B, C), or to one number per image (B,). With a
            second argument it gets the index of each row's image as well: `score(output, index)`.
        grid: From tokens as a layer returns them to maps (B, K, h, w), if it is not recognised.
        batch_size: Images in one pass.

    Returns:
        Signed maps at the resolution of the layer, each with a status.

    Raises:
        InputError: An argument does not fit; the message says what does. Of a wrong type: InputTypeError.
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
    """Map the evidence at several layers; return the explanations by layer name.

    With a method of activations and gradients they share one forward and one backward pass.

    Args:
        model: As for `explain`, and so are the arguments that are not listed here.
        images: Float (B, C, H, W).
        targets: The class to explain.
        layers: Names or modules, at least one.
    """
    if isinstance(layers, str | nn.Module) or not layers:
        raise InputTypeError(f"layers is {layers!r:.60}; explain_layers needs a list of at least one layer")
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
    wrapped = wrap_model(model, score)
    names = [name_of(wrapped.model, layer) for layer in layers]
    function = find_method(method)

    def visit(wrapped: WrappedModel, some: torch.Tensor, chosen: Targets | None) -> list[Explanation]:
        nonlocal names  # what the first batch finds serves the others
        if takes_context(function):
            contexts = [AttributionContext(wrapped, some, chosen, name, grid, batch_size) for name in names]
            found = [_by_context(context, function) for context in contexts]
            names = [context.used_layer or name for context, name in zip(contexts, names, strict=True)]
            return found
        choice = None if all(names) else layer_choice(wrapped, some)
        reasons = [REQUESTED if name or choice is None else choice.reason for name in names]
        names = [name or (choice.layer if choice else None) for name in names]
        found = _by_layers(wrapped, some, chosen, cast(list[str], names), grid, cast(LayerMethod, function))
        return [
            dataclasses.replace(one, layer_reason=reason) for one, reason in zip(found, reasons, strict=True)
        ]

    batches = in_batches(wrapped, images, [targets], batch_size, visit)
    return [join(parts) for parts in zip(*batches, strict=True)]


def _by_context(context: AttributionContext, method: ContextMethod) -> Explanation:
    maps = method(context)
    fits = isinstance(maps, torch.Tensor) and maps.ndim == context.images.ndim - 1 and maps.numel() > 0
    if not fits or len(maps) != len(context.images):
        _refuse(method, maps, (len(context.images), "h", "w", "d")[: context.images.ndim - 1])
    gradients = vars(context).get("gradients")
    return make_explanation(
        maps,
        gradients,
        context.targets,
        context.logits,
        context.images,
        function_name(method),
        context.used_layer or "input",
        context.layer_reason,
    )


def _by_layers(
    wrapped: WrappedModel,
    images: torch.Tensor,
    targets: Targets | None,
    names: Sequence[str],
    grid: Grid | None,
    method: LayerMethod,
) -> list[Explanation]:
    layers = {name: find_layer(wrapped.model, name) for name in names}
    logits, outputs = wrapped.record(images, layers)
    classes = validation.choose_classes(targets, logits.detach())
    gradients = gradients_of(logits, F.one_hot(classes, logits.shape[1]), outputs)
    explanations = []
    for name in names:
        own = grid or grid_for(wrapped, name, outputs[name].detach(), images)
        activations = as_maps(wrapped, name, outputs[name].detach(), own, images)  # (B, K, h, w)
        slopes = as_maps(wrapped, name, gradients[name], own, images)  # (B, K, h, w)
        maps = method(activations, slopes)
        fits = (len(images), *activations.shape[2:])
        if not isinstance(maps, torch.Tensor) or maps.shape != fits:
            _refuse(method, maps, fits)
        explanations.append(
            make_explanation(maps, slopes, classes, logits, images, function_name(method), name)
        )
    return explanations


def _refuse(method: Method, maps: object, fits: tuple) -> NoReturn:
    came = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
    shape = f"({', '.join(map(str, fits))})"
    raise InputError(
        f"method {function_name(method)} returned {came}; a method returns a tensor (B, h, w), here {shape}"
    )
