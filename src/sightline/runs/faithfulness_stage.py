"""The stage that asks how faithful the maps of this model are, and writes `faithfulness.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sightline import logs
from sightline.attribution import METHODS, explain, preflight
from sightline.attribution.methods import Method
from sightline.data import Dataset, PlantedTruth
from sightline.errors import SightlineError
from sightline.faithfulness import (
    MethodComparison,
    compare_methods,
    energy_in_mask,
    grid_pointing_game,
    heat_in_masks,
    pointing_game,
)
from sightline.faithfulness.comparison import FAST_METHODS
from sightline.faithfulness.result import (
    BaselineScore,
    FaithfulnessResult,
    GridGame,
    MeasureInfo,
    MethodScore,
    Planted,
    PlantedScore,
    write_faithfulness,
)
from sightline.predictions import Predictions
from sightline.runs.analysis import pictures
from sightline.training import Recipe


@logs.stage("comparing explanation methods")
def measure_faithfulness(
    folder: Path,
    model: nn.Module,
    data: Dataset,
    predictions: Predictions,
    recipe: Recipe,
    *,
    layer: str,
) -> FaithfulnessResult:
    """Compare the recipe's methods on test images drawn by seed; write `faithfulness.json`.

    With planted masks, the maps of every method of the package are compared with objects and mark, too.

    Args:
        folder: Of the run.
        model: The trained model.
        data: Of the run.
        predictions: Of the test split.
        recipe: Of the run.
        layer: To explain at.
    """
    wanted, seed = recipe.analysis, recipe.training.seed
    drawn = np.random.default_rng(seed).permutation(len(data.test))[: max(2, wanted.compare_images)]
    images = pictures(data.test, np.sort(drawn))
    classes = predictions.predicted[np.sort(drawn)]
    comparison = compare_methods(
        model, images, classes, methods=wanted.compare, layer=layer, budget="fast", seed=seed
    )  # a stage of a run is no study
    planted = None
    if data.truth is not None:
        planted = compare_with_masks(model, data, predictions, data.truth, layer=layer)
    measured = comparison.measurements[comparison.best]
    result = FaithfulnessResult(
        layer=layer,
        images=comparison.n,
        best=comparison.best,
        tied=comparison.tied,
        coincide=comparison.coincide,
        skipped=comparison.skipped,
        measures=tuple(MeasureInfo(name, one.higher_is_better, one.fill) for name, one in measured.items()),
        methods=_methods(comparison),
        baselines=_baselines(comparison),
        grid=_grid_game(model, data, predictions, comparison.best, layer, seed),
        preflight=tuple(str(preflight(model, images[:8], layer)).splitlines()),
        planted=planted,
    )
    write_faithfulness(folder, result)
    return result


def _methods(comparison: MethodComparison) -> tuple[MethodScore, ...]:
    measures = list(comparison.measurements[comparison.best])
    return tuple(
        MethodScore(
            name=name,
            verdict=comparison.verdicts[name],
            ms_per_image=float(row["ms_per_image"]),
            no_map=float(row["no_map"]),
            values={m: (float(row[m]), float(row[f"{m}_low"]), float(row[f"{m}_high"])) for m in measures},
        )
        for name, row in comparison.table.to_dict("index").items()
    )


def _baselines(comparison: MethodComparison) -> tuple[BaselineScore, ...]:
    rows: list[Any] = comparison.baselines.to_dict("records")
    return tuple(BaselineScore(**row) for row in rows)


def _grid_game(
    model: nn.Module, data: Dataset, predictions: Predictions, method: str, layer: str, seed: int
) -> GridGame | None:
    """The grid pointing game on the most confident images; None if this model or data cannot play it."""
    best = np.argsort(-predictions.confidence, kind="stable")[: min(len(predictions), 40 * data.num_classes)]
    images = pictures(data.test, best)
    options: dict[str, Any] = {"method": method, "layer": layer, "seed": seed, "confidence": 0.5}
    try:
        game = grid_pointing_game(model, images, predictions.labels[best], grids=25, **options)
    except SightlineError:
        return None
    low, high = game.interval(seed=seed)
    chance = 0.25 if game.chance is None else float(np.mean(game.chance))
    if not np.isfinite([low, high]).all():  # a single grid has no interval
        return None
    return GridGame(method, game.mean, low, high, game.n, chance)


def compare_with_masks(
    model: nn.Module,
    data: Dataset,
    predictions: Predictions,
    truth: PlantedTruth,
    *,
    layer: str,
    limit: int = 24,
) -> Planted | None:
    """Compare the maps of every method with what was planted: the objects' masks, and the shortcut's mark.

    Args:
        model: The trained model.
        data: With the planted faults.
        predictions: Of the test split.
        truth: What was planted.
        layer: To explain at.
        limit: Unmarked test images that were predicted correctly, and marked ones that were taken for the
            mark's class, at most; the first in data order.

    Returns:
        None if the model gets no unmarked image right.
    """
    if truth.test_masks is None:
        return None
    seen = truth.test_masks.any(axis=(1, 2))
    right = np.flatnonzero(predictions.correct & ~truth.shortcut_test & seen)[:limit]
    if not len(right):
        return None
    fooled = truth.shortcut_test & (predictions.predicted == truth.shortcut_class) & ~predictions.correct
    marked = np.flatnonzero(fooled)[:limit]
    top, left, bottom, right_edge = truth.shortcut_box
    box = np.zeros(truth.test_masks.shape[1:], bool)
    box[top:bottom, left:right_edge] = True
    masks = truth.test_masks[right]
    rows, skipped = [], {}
    for name in METHODS:
        method = FAST_METHODS.get(name, METHODS[name])
        try:
            on_objects, on_marked = (
                _heat(model, data, predictions, i, method, layer) for i in (right, marked)
            )
        except SightlineError as error:
            skipped[name] = str(error)
            continue
        on_mark = heat_in_masks(on_marked, np.broadcast_to(box, on_marked.shape))
        rows.append(
            PlantedScore(
                name=_titled(name),
                pointing=pointing_game(on_objects, masks).mean,
                energy=energy_in_mask(on_objects, masks).mean,
                on_mark=float(on_mark.mean()) if len(marked) else None,
            )
        )
    rows.sort(key=lambda row: -row.energy)
    share = float(masks.mean())
    even = PlantedScore("spread evenly", pointing=share, energy=share, on_mark=float(box.mean()))
    return Planted(tuple(rows), even, objects=len(right), fooled=len(marked), skipped=skipped)


def _titled(name: str) -> str:
    """The method's name with the budget that it was given."""
    budget = FAST_METHODS[name].keywords if name in FAST_METHODS else {}
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
