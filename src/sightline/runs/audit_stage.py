"""The audit of a run: the passes that it needs, then what `make_audit` says of them.

audit = sightline.audit_run("runs/latest")
audit.fixes

Predictions of training images by models that have not seen them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sightline.attribution import METHODS, explain
from sightline.attribution.methods.registry import takes_case
from sightline.audit import Audit, Evidence, make_audit, robustness_table, write_audit
from sightline.data import Dataset, Split
from sightline.errors import SightlineError
from sightline.models import choose_device, choose_precision, to_float
from sightline.predictions import Predictions, predict, predict_corrupted, predict_views
from sightline.predictions.features import head_inputs
from sightline.runs.explain_files import run_card
from sightline.runs.progress import Printer, Reporter
from sightline.runs.run_folder import Run, fit_options, load_run, recipe_model
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


_AT_ONCE = 1000  # images that are explained together
_CORRUPTED = 300  # images of the test split that are corrupted, each in every way


def audit_run(
    run: Run | str | Path,
    *,
    folds: int = 0,
    beside: Sequence[Run | str | Path] = (),
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Audit:
    """Audit a finished run and keep the findings in its folder.

    folds: train so many models more, each without one part of the training split, and judge the training
    labels by their predictions of the part that they have not seen; 0 for none. beside: finished runs on
    the same data, other seeds say: where they and this one differ, an image is ambiguous. Raises
    SightlineError if a folder is not that of a finished run, or a run beside was tested on other images.
    """
    opened = run if isinstance(run, Run) else load_run(run)
    others = answers_beside(opened, beside) if beside else None
    return keep_audit(
        opened, opened.data(), folds=folds, others=others, device=device, reporter=reporter or Printer()
    )


def answers_beside(run: Run, beside: Sequence[Run | str | Path]) -> np.ndarray:
    """Return the probabilities (R, N, C) of other runs for the test images of `run`.

    Raises SightlineError if one of them was tested on other images.
    """
    mine, answers = run.predictions, []
    for one in beside:
        other = one if isinstance(one, Run) else load_run(one)
        found = other.predictions
        if found.class_names != mine.class_names or not np.array_equal(found.labels, mine.labels):
            raise SightlineError(
                f"{other.folder} was tested on other images, labels or classes than {run.folder}; name runs "
                "on the same data"
            )
        answers.append(found.probabilities)
    return np.stack(answers)


def keep_audit(
    run: Run,
    data: Dataset,
    *,
    folds: int = 0,
    others: np.ndarray | None = None,
    device: str = "auto",
    reporter: Reporter,
) -> Audit:
    """Audit a run on its `data` and write what was found into its folder."""
    place = choose_device(device)
    model = run.model().to(place, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    unseen = None
    if folds:
        unseen = out_of_fold(run.recipe, data, folds=folds, device=device, reporter=reporter)
    found = make_audit(gather(run, model, data, place=place, unseen=unseen, others=others))
    write_audit(run.folder, found)
    causes = [f"{row['count']} {row['cause']}" for row in found.facts["budget"]["causes"] if row["count"]]
    reporter.line(f"audit: {', '.join(causes) or 'no mistakes'}; {len(found.facts['fixes'])} fixes")
    return found


def gather(
    run: Run,
    model: nn.Module,
    data: Dataset,
    *,
    place: torch.device,
    unseen: np.ndarray | None = None,
    others: np.ndarray | None = None,
) -> Evidence:
    """Return the evidence of a run: the passes over its data that an audit needs, in the run's precision."""
    precision = choose_precision(run.recipe.training.precision, place)
    named = {"class_names": data.class_names, "precision": precision}
    with head_inputs(model) as read:
        viewed = predict_views(model, data.test, views="mirror", **named)
    features = _joined(
        read[:: len(viewed.views)]
    )  # those of the plain view, which is the first of each batch
    with head_inputs(model) as read:
        train = predict(model, data.train, **named)
    shaken = predict_corrupted(
        partial(predict, model, **named), data.test, sample=_CORRUPTED, seed=run.recipe.training.seed
    )
    seen, true = _maps(run, model, data, viewed.plain)
    return Evidence(
        data,
        viewed.plain,
        train=train,
        features=features,
        train_features=_joined(read),
        views=viewed.probabilities,
        others=others,
        maps_predicted=seen,
        maps_true=true,
        dynamics=run.dynamics,
        out_of_fold=unseen,
        robustness=robustness_table(shaken.clean, shaken.corrupted),
        seed=run.recipe.training.seed,
    )


def _joined(read: list[tuple[nn.Linear, torch.Tensor]]) -> np.ndarray | None:
    """Features of all batches, (N, D); None for a model without a last linear layer."""
    return np.concatenate([features.numpy() for _, features in read]) if read else None


def _maps(
    run: Run, model: nn.Module, data: Dataset, predictions: Predictions
) -> tuple[np.ndarray, np.ndarray]:
    """Raw maps of every test image for the predicted and the true class, (N, h, w) each.

    By the run's method if a pass forward and back is all that it takes, else by Grad-CAM.
    """
    card = run_card(run.folder, "explanations.json")
    method = card.get("name", "grad_cam")
    if method not in METHODS or takes_case(METHODS[method]):
        method = "grad_cam"
    explained = partial(_explained, model, data.test, method=method, layer=card.get("main_layer"))
    everything, wrong = np.arange(len(predictions)), np.flatnonzero(~predictions.correct)
    seen = explained(everything, predictions.predicted)
    true = seen.copy()
    if len(wrong):
        true[wrong] = explained(wrong, predictions.labels)
    return seen, true


def _explained(
    model: nn.Module, split: Split, index: np.ndarray, classes: np.ndarray, *, method: str, layer: str | None
) -> np.ndarray:
    parts = [
        explain(model, to_float(split.images[some]), classes[some], method=method, layer=layer).maps
        for some in (index[start : start + _AT_ONCE] for start in range(0, len(index), _AT_ONCE))
    ]
    return np.concatenate(parts)
