"""One pass of a model over a split, for everybody: the training loop, the analysis, a notebook."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sightline.data import Split
from sightline.errors import SightlineError, nearest
from sightline.models import autocast, device_of, evaluating, to_float
from sightline.predictions.table import Predictions
from sightline.predictions.views import VIEWS, ViewPredictions, Views, none


def predict(
    model: nn.Module,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = 500,
    precision: str = "float32",
) -> Predictions:
    """Return the logits of every image of `split`, in its order, on the device the model is on.

    The model runs in evaluation mode without gradients, and is left in the modes it was in.
    class_names: defaults to "0", "1", ... precision: "float32", "bfloat16" or "float16" (autocast);
    logits are float32 in any case.

    Raises SightlineError if the model does not return (B, C) logits with one column per class, or
    returns a value that is not finite.
    """
    return predict_views(
        model, split, views=none, class_names=class_names, batch_size=batch_size, precision=precision
    ).plain


def predict_views(
    model: nn.Module,
    split: Split,
    *,
    views: str | Views = "mirror",
    class_names: Sequence[str] | None = None,
    batch_size: int = 500,
    precision: str = "float32",
) -> ViewPredictions:
    """Return the predictions of every image of `split` in each of its views, among them the plain ones.

    views: a name of :data:`VIEWS`, or a function like those. All else as in :func:`predict`; a pass
    over the split per view.

    Raises SightlineError as `predict` does, or for views that are not known.
    """
    if isinstance(views, str) and views not in VIEWS:
        raise SightlineError(f"views {views!r} are not known; {nearest(views, list(VIEWS))}")
    function = VIEWS[views] if isinstance(views, str) else views
    device = device_of(model)
    weights: list[float] = []
    blocks: list[torch.Tensor] = []
    with torch.inference_mode(), evaluating(model):
        for block in split.blocks(batch_size):
            images = torch.from_numpy(block)  # (B, H, W, 3) uint8
            pairs = list(function(to_float(images.to(device))))
            with autocast(device, precision):
                logits = [_checked(model(view), len(images)).float() for _, view in pairs]  # V times (B, C)
            weights = [weight for weight, _ in pairs]
            blocks.append(torch.stack(logits))
    logits = torch.cat(blocks, dim=1).cpu().numpy()  # (V, N, C)
    tables = [_table(view, split, class_names) for view in logits]
    return ViewPredictions(np.array(weights), tuple(tables))


def _table(logits: np.ndarray, split: Split, class_names: Sequence[str] | None) -> Predictions:
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(logits.shape[1])))
    if logits.shape[1] != len(names):
        raise SightlineError(
            f"the model has {logits.shape[1]} outputs and the data {len(names)} classes; "
            f"create the model with num_classes={len(names)}"
        )
    if split.labels.max() >= len(names):
        raise SightlineError(f"label {split.labels.max()} has no output: the model has {len(names)}")
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise SightlineError(
            f"the model's logits are not finite for {bad} of {len(split)} images; "
            "its weights are damaged or training diverged: lower the learning rate"
        )
    return Predictions(logits, split.labels, names)


def _checked(logits: object, count: int) -> torch.Tensor:
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != count:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise SightlineError(f"the model returned {got}; predict needs a tensor of logits ({count}, C)")
    return logits
