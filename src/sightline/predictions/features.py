"""Features: what the last linear layer reads, taken in the one pass that predicts anyway.

    predictions, features = predict_features(model, data.test, class_names=data.class_names)

Two images with alike features look alike to the model, whatever their pixels say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from sightline.data import Split
from sightline.errors import InputError
from sightline.models.layers import layer_name
from sightline.predictions.inference import predict
from sightline.predictions.table import Predictions


def predict_features(
    model: nn.Module,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = 500,
    precision: str = "float32",
) -> tuple[Predictions, np.ndarray]:
    """Return what `predict` returns, and the features of every image, (N, D) float32.

    The features are the input of the linear layer that runs last: it is found as the model runs, so its
    name, its depth and the order in which layers were declared do not matter. Arguments as of `predict`.

    Raises:
        InputError: As `predict` does, or the last linear layer is missing, does not read one vector per
            image, or does not put out one number per class.
    """
    with head_inputs(model) as batches:
        predictions = predict(
            model, split, class_names=class_names, batch_size=batch_size, precision=precision
        )
    for layer, features in batches:
        if layer.out_features != len(predictions.class_names) or features.ndim != 2:
            raise InputError(
                f"the last linear layer {layer_name(model, layer)!r} takes {tuple(features.shape)} and has "
                f"{layer.out_features} outputs; features need one that takes (B, D) and has "
                f"{len(predictions.class_names)}, one per class"
            )
    if sum(len(features) for _, features in batches) != len(split):
        raise InputError(
            f"no linear layer ran in {type(model).__name__}; features are the input of a last nn.Linear: "
            "end the model with one, and compile it only afterwards"
        )
    return predictions, np.concatenate([features.numpy() for _, features in batches])


@contextlib.contextmanager
def head_inputs(model: nn.Module) -> Iterator[list[tuple[nn.Linear, torch.Tensor]]]:
    """Yield a list to which each forward pass inside the context adds (layer, its input, (B, D) float32).

    The layer is the linear one that ran last in that pass. The hooks are gone afterwards, also by an
    exception.
    """
    found: list[tuple[nn.Linear, torch.Tensor]] = []
    latest: list[tuple[nn.Linear, torch.Tensor]] = []

    def note(layer: nn.Module, inputs: tuple) -> None:
        if isinstance(layer, nn.Linear):
            latest[:] = [(layer, inputs[0])]

    def keep(*_: object) -> None:
        # A copy: the input may be a view that would keep a whole map of activations alive.
        found.extend((layer, seen.detach().to("cpu", torch.float32, copy=True)) for layer, seen in latest)
        latest.clear()

    handles = []
    try:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                handles.append(module.register_forward_pre_hook(note))
        handles.append(model.register_forward_hook(keep))
        yield found
    finally:
        for handle in handles:
            handle.remove()
