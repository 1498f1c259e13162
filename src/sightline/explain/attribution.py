"""Where a classifier found its evidence: `explain` for one layer, `explain_layers` for several at once.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> explanation = explain(model, torch.rand(2, 3, 10, 10))
    >>> explanation.layer, explanation.maps.shape, explanation.heatmaps().shape
    ('1', (2, 8, 8), (2, 10, 10))

Any `nn.Module` that returns logits (B, C) will do. The cost is one forward pass, and a backward
pass from the logits to the earliest layer; the model is left bit for bit as it was found.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.explain import arguments
from sightline.explain.arguments import Targets
from sightline.explain.explanation import NO_POSITIVE_EVIDENCE, NOT_FINITE, OK, ZERO_GRADIENT, Explanation
from sightline.explain.hooks import gradients_of, recorded
from sightline.explain.layer_choice import spatial_layers, target_layer
from sightline.explain.methods import Method
from sightline.models.layers import find_layer, layer_name


def explain(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets | None = None,
    *,
    method: str | Method = "grad_cam",
    layer: str | nn.Module | None = None,
    batch_size: int = 64,
) -> Explanation:
    """Map the evidence for each image's target class at one layer of the model.

    images: float (B, C, H, W), in [0, 1] where normalisation is part of the model; they are moved
    to the model's device and dtype. targets: None (the predicted class), one class for all, or one
    per image. method: a name in `METHODS`, or a function `(activations, gradients) -> maps` from
    two (B, K, h, w) to (B, h, w). layer: a name, a module, or None for what `target_layer` finds
    (at the cost of one more forward pass, of one image).

    Raises SightlineError if an argument does not fit; the message says what does.
    """
    if layer is None:
        layer = target_layer(model, images)
    name = layer if isinstance(layer, str) else layer_name(model, layer)
    return explain_layers(model, images, targets, layers=[name], method=method, batch_size=batch_size)[name]


def explain_layers(
    model: nn.Module,
    images: torch.Tensor,
    targets: Targets | None = None,
    *,
    layers: Sequence[str],
    method: str | Method = "grad_cam",
    batch_size: int = 64,
) -> dict[str, Explanation]:
    """Like `explain`, for several layers that share one forward and one backward pass; by layer name."""
    arguments.check_images(images)
    arguments.check_model(model)
    if isinstance(layers, str) or not layers:
        raise SightlineError(f"layers is {layers!r}; explain_layers needs a list of at least one name")
    if batch_size < 1:
        raise SightlineError(f"batch_size is {batch_size}; it needs at least 1")
    modules = {name: find_layer(model, name) for name in layers}
    classes = arguments.as_classes(targets, len(images))
    function = arguments.find_method(method)
    batches = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        chosen = None if classes is None else classes[part]
        batches.append(_explain_batch(model, images[part], chosen, modules, function))
    return {name: _join([batch[name] for batch in batches]) for name in modules}


def _explain_batch(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor | None,
    layers: Mapping[str, nn.Module],
    method: Method,
) -> dict[str, Explanation]:
    with recorded(model, layers) as outputs:
        logits = model(arguments.as_input(model, images))
        arguments.check_logits(logits, len(images))
        arguments.check_ran(layers, outputs)
        classes = logits.argmax(dim=1) if targets is None else targets.to(logits.device, copy=True)
        arguments.check_classes(classes, logits.shape[1])
        # The gradients of the sum are those of each image's own logit: no image depends on another.
        gradients = gradients_of(logits.gather(1, classes[:, None]).sum(), outputs)
    _check_grids(model, images, outputs)
    explanations = {}
    with torch.autocast(logits.device.type, enabled=False):
        for name in layers:
            activations, slopes = _wide(outputs[name]), _wide(gradients[name])  # (B, K, h, w)
            maps = _apply(method, activations, slopes)  # (B, h, w)
            explanations[name] = Explanation(
                maps=maps.detach().cpu().numpy(),
                targets=classes.cpu().numpy(),
                logits=_wide(logits).cpu().numpy(),
                status=_status(maps, slopes),
                method=_name(method),
                layer=name,
                image_size=(images.shape[2], images.shape[3]),
            )
    return explanations


def _check_grids(model: nn.Module, images: torch.Tensor, outputs: Mapping[str, torch.Tensor]) -> None:
    for name, output in outputs.items():
        if output.ndim != 4 or output.shape[2:].numel() == 1:
            known = ", ".join(spatial_layers(model, images)) or "none"
            raise SightlineError(
                f"layer {name!r} returns {tuple(output.shape)}, no map (B, K, h, w) of more than one cell; "
                f"layers with a map: {known}"
            )


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return half precision as float32; float32 and float64 stay."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _apply(method: Method, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    maps = method(activations, gradients)
    fits = (len(activations), *activations.shape[2:])
    if not isinstance(maps, torch.Tensor) or tuple(maps.shape) != fits:
        came = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
        raise SightlineError(
            f"method {_name(method)} returned {came}; a method returns a tensor (B, h, w), here {fits}"
        )
    return maps


def _name(method: Method) -> str:
    return getattr(method, "__name__", type(method).__name__)


def _status(maps: torch.Tensor, gradients: torch.Tensor) -> tuple[str, ...]:
    words = np.full(len(maps), OK, dtype=object)
    words[_true((maps <= 0).all(dim=(1, 2)))] = NO_POSITIVE_EVIDENCE
    words[_true((gradients == 0).all(dim=(1, 2, 3)))] = ZERO_GRADIENT
    words[_true(~maps.isfinite().all(dim=(1, 2)))] = NOT_FINITE  # last: it overrules the others
    return tuple(words)


def _true(per_image: torch.Tensor) -> np.ndarray:
    return per_image.cpu().numpy()


def _join(parts: Sequence[Explanation]) -> Explanation:
    return dataclasses.replace(
        parts[0],
        maps=np.concatenate([part.maps for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        status=tuple(itertools.chain.from_iterable(part.status for part in parts)),
    )
