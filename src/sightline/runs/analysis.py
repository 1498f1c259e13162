"""The analysis stage of a run: galleries with their maps, samples, metrics, each written to its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline import logs
from sightline.attribution import explain, explain_layers, preflight, target_layer
from sightline.attribution.methods import find_method
from sightline.audit import check_planted
from sightline.data import Dataset, Split, preview_augmentation
from sightline.errors import InputError, SightlineError
from sightline.files import write_atomic, write_json
from sightline.models import to_float
from sightline.predictions import (
    Dynamics,
    Predictions,
    accuracy,
    accuracy_per_class,
    confusion,
    predict,
    rank_mistakes,
    score_predictions,
)
from sightline.predictions.metrics import measure as measure_metric
from sightline.runs.artifacts import EXPLANATIONS, EXPLANATIONS_CARD, SAMPLES
from sightline.training import Recipe


def check_methods(recipe: Recipe) -> None:
    """Check the methods that the recipe names.

    Raises:
        InputError: A method is not known.
        UntrustedError: A method is a function that must not be imported.
    """
    wanted = recipe.analysis
    for name in (*wanted.compare, *([] if wanted.method == "auto" else [wanted.method])):
        try:
            find_method(name, trust=recipe.trust(name))
        except InputError as error:
            raise InputError(f"recipe: {error}") from error


def explained_layers(model: nn.Module, data: Dataset, recipe: Recipe) -> list[str]:
    """Return the layers that the recipe explains, the main one first; tried out on one image.

    Raises:
        InputError: The model does not have such a layer, or it has no map.
    """
    first = pictures(data.test, np.arange(1))
    main = recipe.analysis.layer or target_layer(model, first)
    layers = list(dict.fromkeys([main, *recipe.analysis.layers]))
    explain_layers(model, first, layers=layers)
    return layers


@logs.stage("explaining mistakes")
def explain_galleries(
    folder: Path,
    model: nn.Module,
    data: Dataset,
    predictions: Predictions,
    recipe: Recipe,
    *,
    layers: Sequence[str],
    method: str,
) -> None:
    """Write `explanations.npz` and `explanations.json`: maps of the costliest mistakes and of some
    correct predictions, for the predicted and the true class."""
    wanted = recipe.analysis
    generator = np.random.default_rng(recipe.training.seed)
    right = np.flatnonzero(predictions.correct)
    galleries = {
        "mistakes": rank_mistakes(predictions, limit=wanted.mistakes)["index"].to_numpy(int),
        "correct": np.sort(generator.permutation(right)[: wanted.correct]),
    }
    arrays: dict[str, Any] = {}
    shown = list(layers)
    for name, index in galleries.items():
        arrays |= {f"{name}/index": index, f"{name}/images": data.test.images[index]}
        if not len(index):
            continue
        for target, classes in (("predicted", predictions.predicted), ("label", predictions.labels)):
            images = pictures(data.test, index)
            found = explain_layers(model, images, classes[index], layers=layers, method=method)
            arrays |= {f"{name}/{layer}/{target}": one.maps for layer, one in found.items()}
            shown = list(found)  # of a method that looks at the image alone: "input"
    write_atomic(folder / EXPLANATIONS, lambda file: np.savez_compressed(file, **arrays))
    title = "Grad-CAM" if method == "grad_cam" else method
    card = {"method": title, "name": method, "main_layer": shown[0], "layers": shown}
    if shown[0] == layers[0]:
        card["layer_reason"] = preflight(
            model, pictures(data.test, np.arange(1)), wanted.layer or None
        ).layer_reason
    write_json(folder / EXPLANATIONS_CARD, card)


def sample_images(folder: Path, data: Dataset, recipe: Recipe) -> None:
    """Write `samples.npz`: training images, the same augmented, and one image augmented many times."""
    count = min(recipe.analysis.samples, len(data.train))
    if not count:
        return
    chosen = np.random.default_rng(recipe.training.seed).permutation(len(data.train))[:count]
    transform, seed = recipe.make_augmentation(data.mean.tolist()), recipe.training.seed
    one = np.full(count, chosen[0])
    many_times = preview_augmentation(data, transform, one, seed=seed)
    many_times[0] = data.train.images[chosen[0]]
    arrays: dict[str, Any] = {
        "images": data.train.images[chosen],
        "labels": data.train.labels[chosen],
        "augmented": preview_augmentation(data, transform, chosen, seed=seed),
        "augmented_one": many_times,
    }
    write_atomic(folder / SAMPLES, lambda file: np.savez_compressed(file, **arrays))


def measure(
    recipe: Recipe,
    model: nn.Module | None,
    data: Dataset,
    predictions: Predictions,
    *,
    layer: str,
    epoch: int,
    dynamics: Dynamics | None = None,
) -> dict[str, Any]:
    """Return what `metrics.json` holds, but for the seconds. dynamics: of training, where they were kept."""
    per_class = accuracy_per_class(confusion(predictions.labels, predictions.predicted, data.num_classes))
    watched = recipe.training.metric.replace("_", " ").replace("f1", "F1")
    best = f"best validation {watched} (epoch {epoch})"
    kept = best if recipe.training.keep == "best" else f"last epoch ({epoch})"
    if recipe.training.method == "probe":
        kept = f"linear probe, its penalty by {recipe.probe.folds} folds"
    if recipe.training.method == "none":
        what = f"predictions that were given, {recipe.inspect.predictions}"
        kept = "trained elsewhere" if recipe.model.name else what
    metrics: dict[str, Any] = {
        "accuracy": accuracy(predictions),
        "loss": float(predictions.loss.mean()),
        "images": len(predictions),
        "mistakes": int((~predictions.correct).sum()),
        "accuracy_per_class": [None if np.isnan(share) else float(share) for share in per_class],
        "selection": kept,
        "published": recipe.published.model_dump(exclude_none=True),
        "metrics": _named_metrics(recipe, predictions),
        "scores": dataclasses.asdict(score_predictions(predictions)),
    }
    if data.truth is not None and model is not None:
        train = predict(model, data.train, precision=recipe.training.precision)
        heat = np.zeros((len(data.test), 1, 1))
        if data.truth.test_masks is not None or data.truth.shortcut_test.any():
            images = pictures(data.test, np.arange(len(data.test)))
            heat = explain(model, images, predictions.predicted, layer=layer).heatmaps()
        margins = None if dynamics is None else dynamics.margin
        planted = check_planted(data.truth, train, predictions, heat, margins)
        metrics["planted"] = [dataclasses.asdict(finding) for finding in planted]
    return metrics


def _named_metrics(recipe: Recipe, predictions: Predictions) -> dict[str, float]:
    """The recipe's own metrics of the test split, by their names."""
    found = {name: measure_metric(predictions, one) for name, one in recipe.make_metrics().items()}
    for name, value in found.items():
        if not np.isfinite(value):
            raise InputError(
                f"metric {name!r} is {value} for these predictions; it has to be a finite number"
            )
    return found


def try_metrics(recipe: Recipe, data: Dataset) -> None:
    """Call the recipe's metrics on made predictions, so that one that cannot work is known before training.

    Raises:
        InputError: A metric raises, or returns something else than one number, for two images of each class.
    """
    classes = data.num_classes
    labels = np.repeat(np.arange(classes), 2)
    logits = np.random.default_rng(0).normal(size=(len(labels), classes)) + np.eye(classes)[labels]
    made = Predictions(logits.astype(np.float32), labels, data.class_names)
    for name, metric in recipe.make_metrics().items():
        try:
            measure_metric(made, metric)
        except SightlineError:
            raise
        except Exception as error:
            raise InputError(
                f"metric {name!r} failed on made predictions of 2 images of each class "
                f"({type(error).__name__}: {error}); correct its function, or leave it out of metrics"
            ) from error


def pictures(split: Split, index: np.ndarray) -> torch.Tensor:
    """Return the images at `index` as `explain` takes them."""
    return to_float(split.images[index])
