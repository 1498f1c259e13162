"""The stage that asks whether the maps of this model can be believed, and keeps the answer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sightline.data import Dataset
from sightline.errors import SightlineError
from sightline.explain import preflight
from sightline.faithfulness import (
    Comparison,
    compare_methods,
    deletion,
    grid_pointing_game,
    insertion,
    road,
)
from sightline.files import write_text
from sightline.predictions import Predictions
from sightline.runs.analysis import pictures
from sightline.runs.masks import hold_against_masks
from sightline.training import Recipe

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
