"""Predictions made by all processes of a job together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from sightline.data import Split
from sightline.data.splits import part_of
from sightline.models import processes
from sightline.predictions.inference import predict_views
from sightline.predictions.table import Predictions
from sightline.predictions.views import ViewPredictions


def predict_shared(
    model: nn.Module, split: Split, *, class_names: Sequence[str], precision: str = "float32"
) -> Predictions:
    """Return what :func:`predict` returns, each process having done its part of the rows.

    Every process of the group has to call it, with the same weights, and gets the whole table, in data
    order; without a group it is `predict`. Raises what `predict` raises, in all processes.
    """
    return predict_views_shared(
        model, split, views="none", class_names=class_names, precision=precision
    ).plain


def predict_views_shared(
    model: nn.Module, split: Split, *, views: str, class_names: Sequence[str], precision: str = "float32"
) -> ViewPredictions:
    """Return what :func:`predict_views` returns, each process having done its part of the rows."""

    def of(rows: Split) -> ViewPredictions:
        return predict_views(model, rows, views=views, class_names=class_names, precision=precision)

    if processes.size() == 1:
        return of(split)
    rows = np.arange(len(split))[part_of(len(split), processes.rank(), processes.size())]
    parts = processes.all_do(lambda: _logits(of(split.take(rows))) if len(rows) else None)
    found = [part for part in parts if part is not None]
    logits = np.concatenate([part for _, part in found], axis=1)  # (V, N, C)
    tables = tuple(Predictions(view, split.labels, tuple(class_names)) for view in logits)
    return ViewPredictions(found[0][0], tables)


def _logits(viewed: ViewPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Weights (V,) and logits (V, n, C)."""
    return viewed.weights, np.stack([view.logits for view in viewed.views])
