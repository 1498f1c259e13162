"""Predictions of training images by models that have not seen them."""

from __future__ import annotations

import dataclasses

import numpy as np

from sightline.data import Dataset
from sightline.errors import SightlineError
from sightline.predictions import predict
from sightline.runs.record import fit_options, recipe_model
from sightline.runs.reporting import Reporter
from sightline.training import History, Recipe, describe_epoch, fit, load_recipe

_QUICK = "cifar10-quick"


def quick_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of the folds: the run's own if its network is the fast one, else the quick one."""
    if recipe.model.name == "speednet":
        return recipe
    quick = load_recipe(_QUICK)
    return quick.model_copy(update={"data": recipe.data})


def out_of_fold(
    recipe: Recipe, data: Dataset, *, folds: int, device: str = "auto", reporter: Reporter
) -> np.ndarray:
    """Return the probabilities of each training image by a model that was trained without it, (N, C).

    The training split is dealt out in `folds` parts of like classes; one model is trained without each, by
    `quick_recipe`. Raises SightlineError for fewer than 2 folds, or more than the rarest class has images.
    """
    from sklearn.model_selection import StratifiedKFold

    labels, counts = data.train.labels, np.bincount(data.train.labels)
    rarest = int(counts[counts > 0].min())
    if not 2 <= folds <= rarest:
        raise SightlineError(f"{folds} folds; the rarest class has {rarest} images, so 2 to {rarest} fit")
    chosen = quick_recipe(recipe)
    parts = StratifiedKFold(folds, shuffle=True, random_state=recipe.training.seed).split(labels, labels)
    probabilities = np.full((len(labels), data.num_classes), np.nan)
    for number, (rest, held) in enumerate(parts, 1):
        reporter.line(f"fold {number} of {folds}: {len(rest)} images to train on, {len(held)} to judge")
        part = dataclasses.replace(data, train=data.train.take(rest), test=data.train.take(held), truth=None)
        probabilities[held] = _probabilities(chosen, part, device, reporter)
    return probabilities


def _probabilities(recipe: Recipe, data: Dataset, device: str, reporter: Reporter) -> np.ndarray:
    """Train by the recipe on one part and return the probabilities of the other, which is `data.test`."""

    def on_epoch(history: History, epochs: int) -> None:
        if len(history.epochs) == epochs:
            reporter.line(describe_epoch(history.epochs[-1], epochs))

    model = recipe_model(recipe, data)
    # The part that is judged must have no say in which epoch is kept: there is no choosing here.
    options = fit_options(recipe, data) | {"validation": 0.0, "keep": "last", "patience": None}
    fit(model, data, **options, device=device, on_epoch=on_epoch)
    precision = recipe.training.precision
    return predict(model, data.test, class_names=data.class_names, precision=precision).probabilities
