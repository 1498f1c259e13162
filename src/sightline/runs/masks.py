"""Every method's maps against what was planted: the objects' masks, and the mark that fooled the model."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import nn

from sightline.data import Dataset, PlantedTruth
from sightline.errors import SightlineError
from sightline.explain import METHODS, explain
from sightline.explain.input_gradients import integrated_gradients
from sightline.explain.methods import Method
from sightline.explain.perturbation import rise
from sightline.explain.smooth import smooth_grad, smooth_grad_cam_plus_plus
from sightline.faithfulness import energy_in_mask, heat_in_masks, pointing_game
from sightline.predictions import Predictions
from sightline.runs.analysis import pictures

# Methods of many passes take fewer than by default: it is the stage of a run, not a study.
_BUDGETS: dict[str, partial] = {
    "rise": partial(rise, masks=200),
    "smooth_grad": partial(smooth_grad, samples=10),
    "smooth_grad_cam_plus_plus": partial(smooth_grad_cam_plus_plus, samples=8),
    "integrated_gradients": partial(integrated_gradients, steps=16),
}


def hold_against_masks(
    model: nn.Module,
    data: Dataset,
    predictions: Predictions,
    truth: PlantedTruth,
    *,
    layer: str,
    most: int = 24,
) -> dict[str, Any]:
    """Return pointing game and energy in the objects' masks, and the share of heat on the mark, by method.

    On up to `most` unmarked test images that were predicted correctly, and as many marked ones that were
    taken for the mark's class: the first in data order. "skipped": the methods that cannot serve this
    model, with the reason. "even": what heat spread evenly would reach.
    """
    seen = truth.test_masks.any(axis=(1, 2))
    right = np.flatnonzero(predictions.correct & ~truth.shortcut_test & seen)[:most]
    fooled = truth.shortcut_test & (predictions.predicted == truth.shortcut_class) & ~predictions.correct
    marked = np.flatnonzero(fooled)[:most]
    top, left, bottom, right_edge = truth.shortcut_box
    box = np.zeros(truth.test_masks.shape[1:], bool)
    box[top:bottom, left:right_edge] = True
    masks = truth.test_masks[right]
    rows, skipped = [], {}
    for name in METHODS:
        method = _BUDGETS.get(name, METHODS[name])
        try:
            on_objects, on_marked = (
                _heat(model, data, predictions, i, method, layer) for i in (right, marked)
            )
        except SightlineError as error:
            skipped[name] = str(error)
            continue
        rows.append(
            {
                "name": _titled(name),
                "pointing": pointing_game(on_objects, masks).mean,
                "energy": energy_in_mask(on_objects, masks).mean,
                "on_mark": float(heat_in_masks(on_marked, np.broadcast_to(box, on_marked.shape)).mean())
                if len(marked)
                else None,
            }
        )
    rows.sort(key=lambda row: -row["energy"])
    share = float(masks.mean())
    even = {"name": "spread evenly", "pointing": share, "energy": share, "on_mark": float(box.mean())}
    return {"methods": rows, "even": even, "objects": len(right), "fooled": len(marked), "skipped": skipped}


def _titled(name: str) -> str:
    """The method's name with the budget that it was given."""
    budget = _BUDGETS[name].keywords if name in _BUDGETS else {}
    return name + "".join(f", {value} {option}" for option, value in budget.items())


def _heat(
    model: nn.Module,
    data: Dataset,
    predictions: Predictions,
    index: np.ndarray,
    method: Method,
    layer: str,
) -> np.ndarray:
    """The heat maps of the test images at `index` for what was predicted, (M, H, W)."""
    if not len(index):
        return np.zeros((0, *data.image_size))
    images = pictures(data.test, index)
    return explain(model, images, predictions.predicted[index], method=method, layer=layer).heatmaps()
