"""The stage that asks whether the maps of this model can be believed, and keeps the answer.

Every method's maps against what was planted: the objects' masks, and the mark that fooled the model.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sightline.attribution import METHODS, explain, preflight
from sightline.attribution.methods import Method
from sightline.attribution.methods.gradients import (
    integrated_gradients,
    smooth_grad,
    smooth_grad_cam_plus_plus,
)
from sightline.attribution.methods.perturbation import rise
from sightline.data import Dataset, PlantedTruth
from sightline.errors import SightlineError
from sightline.faithfulness import (
    Comparison,
    compare_methods,
    deletion,
    energy_in_mask,
    grid_pointing_game,
    heat_in_masks,
    insertion,
    pointing_game,
    road,
)
from sightline.files import write_text
from sightline.predictions import Predictions
from sightline.runs.analysis import pictures
from sightline.training import Recipe

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


# Coarser than the defaults of these measures: it is the stage of a run, not a study.
_MEASURES = (partial(deletion, steps=16), partial(insertion, steps=16), partial(road, shares=(0.2, 0.5, 0.8)))
_ENDS = ("", "_low", "_high")  # of a measure's columns: mean and interval


def measure_belief(
    folder: Path,
    model: nn.Module,
    data: Dataset,
    predictions: Predictions,
    recipe: Recipe,
    *,
    layer: str,
) -> dict[str, Any]:
    """Compare the recipe's methods on test images drawn by seed; write and return `faithfulness.json`.

    With planted masks, the maps of every method there is are also held against objects and mark.
    """
    wanted, seed = recipe.analysis, recipe.training.seed
    drawn = np.random.default_rng(seed).permutation(len(data.test))[: max(2, wanted.compare_images)]
    images = pictures(data.test, np.sort(drawn))
    classes = predictions.predicted[np.sort(drawn)]
    comparison = compare_methods(
        model, images, classes, methods=wanted.compare, measures=_MEASURES, layer=layer, seed=seed
    )
    found = {
        "layer": layer,
        "images": comparison.n,
        **_tables(comparison),
        "grid": _grid_game(model, data, predictions, comparison.best, layer, seed),
        "preflight": str(preflight(model, images[:8], layer)).splitlines(),
    }
    if data.truth is not None:
        found["planted"] = hold_against_masks(model, data, predictions, data.truth, layer=layer)
    write_text(folder / "faithfulness.json", json.dumps(found, indent=2, allow_nan=False))
    return found


def _tables(comparison: Comparison) -> dict[str, Any]:
    measured = comparison.measurements[comparison.best]
    methods = [
        {
            "name": name,
            "verdict": comparison.verdicts[name],
            "ms_per_image": float(row["ms_per_image"]),
            "no_map": float(row["no_map"]),
            "values": {_plain(m): [float(row[m + end]) for end in _ENDS] for m in measured},
        }
        for name, row in comparison.table.to_dict("index").items()
    ]
    return {
        "best": comparison.best,
        "tied": list(comparison.tied),
        "coincide": comparison.coincide,
        "skipped": comparison.skipped,
        "measures": [
            {"name": _plain(name), "higher_is_better": one.higher_is_better, "fill": one.fill}
            for name, one in measured.items()
        ],
        "methods": methods,
        "controls": comparison.controls.assign(measure=comparison.controls["measure"].map(_plain)).to_dict(
            "records"
        ),
    }


def _plain(measure: str) -> str:
    """The measure's name without what `functools.partial` filled in."""
    return measure.partition(" (")[0]


def _grid_game(
    model: nn.Module, data: Dataset, predictions: Predictions, method: str, layer: str, seed: int
) -> dict[str, Any] | None:
    """The grid pointing game on the most confident images; None where this model or data cannot play it."""
    best = np.argsort(-predictions.confidence, kind="stable")[: min(len(predictions), 40 * data.num_classes)]
    images = pictures(data.test, best)
    options: dict[str, Any] = {"method": method, "layer": layer, "seed": seed, "confidence": 0.5}
    try:
        game = grid_pointing_game(model, images, predictions.labels[best], grids=25, **options)
    except SightlineError:
        return None
    low, high = game.interval(seed=seed)
    chance = float(np.mean(game.baseline)) if game.baseline is not None else 0.25
    return {"method": method, "mean": game.mean, "low": low, "high": high, "n": game.n, "chance": chance}
