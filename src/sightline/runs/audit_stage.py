"""The audit of a run: the passes over its data that an audit needs, the audit, and the pictures for its page.

    audit = sightline.audit_run("runs/latest")
    audit.table("fixes")

With folds, the labels of each part of the training images are judged by a fit that has not seen it: by a
probe on the features of a frozen network, or by models that are trained by a recipe.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline import logs
from sightline.attribution import METHODS, explain
from sightline.attribution.methods import takes_context
from sightline.audit import Audit, Evidence, make_audit, measure_robustness, write_audit
from sightline.audit.result import SplitName
from sightline.data import Dataset, Split
from sightline.data.splits import fold_indices
from sightline.errors import DamagedFileError, InputError, MissingExtraError, NotFoundError
from sightline.faithfulness.result import read_faithfulness
from sightline.files import hold, write_atomic
from sightline.models import choose_device, choose_precision, to_float
from sightline.models.backbones import LITE0
from sightline.predictions import Predictions, predict, predict_corrupted, predict_tta, read_predictions
from sightline.predictions.features import frozen_features, head_inputs
from sightline.runs.artifacts import EXPLANATIONS_CARD, GALLERY, OUT_OF_FOLD
from sightline.runs.explain_files import run_card
from sightline.runs.given_evidence import given_evidence, read_given_features, with_frozen
from sightline.runs.run_folder import Run, fit_options, fit_probe, keep_seconds, load_run, recipe_model
from sightline.training import Recipe, describe_epoch, fit, fold_probabilities, load_recipe

log = logging.getLogger(__name__)

_AT_ONCE = 1000  # images that are explained, or made small, together
_CORRUPTED = 300  # images of the test split that are corrupted, each in every way; of large ones a third
_LARGE = 96 * 96  # pixels
_SMALLEST, _LARGEST = 64, 112  # pixels a side at most, of thumbnails of many and of few pictures
_ALL_PIXELS = 12_000_000  # that a split's thumbnails may have before they are the small ones
_LISTED = 1000  # training images by label quality that have a picture, flagged or not


def audit_run(
    run: Run | str | Path,
    *,
    folds: int = 0,
    folds_recipe: str | Path | Recipe | None = None,
    backbone: str = LITE0,
    calibrate: bool = False,
    others: Sequence[Run | str | Path] = (),
    device: str = "auto",
    verbose: bool = True,
) -> Audit:
    """Audit a finished run and keep the findings in its folder.

    Args:
        run: The run or its folder.
        folds: Deal the training split out in so many parts, and judge the labels of each by a fit that has
            not seen it; 0 for none.
        folds_recipe: A name, a file or a recipe that a model for each part is trained by, on the run's data.
            By default each is judged by a probe on the features of `backbone`, which takes seconds, or, where
            that is not installed, by models that are trained by the run's own recipe.
        backbone: The network whose features are probed, as `create_model` takes it.
        calibrate: Ask a second witness, a probe on the features of `backbone` (or, where that is not
            installed, on the network's own), and plant wrong labels among those of the run to state the
            precision and recall of each list on this data.
        others: Finished runs on the same data, of other seeds say: where they and this one differ, an image
            is ambiguous.
        device: "auto", "cpu", "cuda" and so on.
        verbose: Show the log on stdout if nothing else listens to it.

    Raises:
        NotFoundError: A folder is not that of a finished run.
        InputError: One of `others` was tested on other images, or `folds` does not fit the data.
    """
    opened = run if isinstance(run, Run) else load_run(run)
    with logs.shown(verbose), hold(opened.folder):
        answers = other_answers(opened, others) if others else None
        how = {"folds": folds, "folds_recipe": folds_recipe, "backbone": backbone, "others": answers}
        how["calibrate"] = calibrate
        return keep_audit(opened, opened.data(), **how, device=device)


def other_answers(run: Run, others: Sequence[Run | str | Path]) -> np.ndarray:
    """Return the probabilities (R, N, C) of other runs for the test images of `run`.

    Raises:
        InputError: One of them was tested on other images.
    """
    mine, answers = run.predictions, []
    for one in others:
        other = one if isinstance(one, Run) else load_run(one)
        found = other.predictions
        if found.class_names != mine.class_names or not np.array_equal(found.labels, mine.labels):
            raise InputError(
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
    folds_recipe: str | Path | Recipe | None = None,
    backbone: str = LITE0,
    calibrate: bool = False,
    others: np.ndarray | None = None,
    device: str = "auto",
    model: nn.Module | None = None,
) -> Audit:
    """Audit a run on its `data`; write what was found, and the pictures for its page, into its folder.

    model: Of a run of given predictions, the network that they are of, where that is at hand.
    """
    started, chosen = time.perf_counter(), choose_device(device)
    own = run.recipe.inspect.backbone
    frozen = frozen_features(data, backbone=own, device=device) if own and data.has_pictures else None
    unseen = None
    if folds:
        unseen = _by_folds(run, data, folds, folds_recipe, backbone, device)
    elif (run.folder / OUT_OF_FOLD).exists():  # a probe has left it, or it was given
        unseen = _left_by_probe(run, data)
    elif run.recipe.training.method == "none":
        unseen = _by_features(run, data, frozen)
    if model is None and run.recipe.model.name:
        model = run.model()
    if model is None:
        evidence, true_maps = given_evidence(run, data), None
    else:
        model.eval().to(chosen, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        evidence, true_maps = gather(run, model, data, device=chosen)
    evidence = with_frozen(evidence, frozen, unseen=unseen, others=others)
    if calibrate:
        evidence = _with_second_witness(evidence, data, backbone, device)
    found = make_audit(evidence)
    write_audit(run.folder, found)
    if data.has_pictures:
        write_gallery(run.folder, found, data, maps=(evidence.maps, true_maps))
    keep_seconds(run, "audit", time.perf_counter() - started)
    causes = [f"{one.cause} {one.count}" for one in found.error_budget.causes if one.count]
    log.info("audit: %s; %d fixes", ", ".join(causes) or "no mistakes", len(found.fixes))
    return found


def _with_second_witness(evidence: Evidence, data: Dataset, backbone: str, device: str) -> Evidence:
    """The evidence with frozen features, where they can be had, and with labels to be planted."""
    if evidence.frozen is not None:
        return dataclasses.replace(evidence, plant=True)
    try:
        test, train = frozen_features(data, backbone=backbone, device=device)
    except MissingExtraError as error:
        log.info(
            "calibrate: without a second witness of the test labels, as there is no %s (%s)", backbone, error
        )
        return dataclasses.replace(evidence, plant=True)
    return dataclasses.replace(evidence, frozen=test, train_frozen=train, plant=True)


def _by_folds(
    run: Run, data: Dataset, folds: int, recipe: str | Path | Recipe | None, backbone: str, device: str
) -> np.ndarray:
    """Probabilities (N_train, C) of each training image by a fit that has not seen it."""
    if not len(data.train):
        raise InputError(f"folds are of training images, and {data.name!r} has none")
    if recipe is None and not data.has_pictures:
        found = _by_features(run, data, None, folds)
        if found is None:
            raise InputError(f"{data.name!r} has no pictures, and no features that folds could be judged by")
        return found
    if recipe is None:
        try:
            frozen = frozen_features(data, backbone=backbone, device=device)
        except MissingExtraError as error:
            if run.recipe.training.method == "none":
                raise
            log.info("folds: by models of the run's own recipe, as there is no %s (%s)", backbone, error)
        else:
            log.info("folds: a probe on the frozen features of %s", backbone)
            seed, groups = run.recipe.training.seed, data.train.groups
            options = {"classes": data.num_classes, "folds": folds, "groups": groups, "seed": seed}
            return fold_probabilities(frozen[1], data.train.labels, **options)
    return out_of_fold(recipe_of_folds(run.recipe, recipe), data, folds=folds, device=device)


def _by_features(
    run: Run, data: Dataset, frozen: tuple[np.ndarray, np.ndarray] | None, folds: int | None = None
) -> np.ndarray | None:
    """The same by a probe on features that have not learned from the labels; None where there are none."""
    given = read_given_features(run)[1]
    features = given if given is not None and not run.recipe.model.name else frozen and frozen[1]
    if features is None or len(np.unique(data.train.labels)) < 2:
        return None
    options = {"classes": data.num_classes, "groups": data.train.groups, "seed": run.recipe.training.seed}
    return fold_probabilities(features, data.train.labels, **options, folds=folds or run.recipe.probe.folds)


def _left_by_probe(run: Run, data: Dataset) -> np.ndarray:
    """Probabilities (N, C) of the training images, by fits that have not seen them.

    Raises:
        DamagedFileError: They are of other images than the run's data has now.
    """
    found = read_predictions(run.folder / OUT_OF_FOLD)
    if not np.array_equal(found.labels, data.train.labels) or found.class_names != data.class_names:
        raise DamagedFileError(
            f"{run.folder / OUT_OF_FOLD} is of other training images than the data has now; train again"
        )
    return found.probabilities


def recipe_of_folds(own: Recipe, wanted: str | Path | Recipe | None) -> Recipe:
    """Return the recipe that models of folds are trained by, on the data of the run's own recipe."""
    if wanted is None:
        return own
    recipe = wanted if isinstance(wanted, Recipe) else load_recipe(wanted)
    return recipe.model_copy(update={"data": own.data})


def out_of_fold(recipe: Recipe, data: Dataset, *, folds: int, device: str = "auto") -> np.ndarray:
    """Return the probabilities of each training image by a model that was trained without it, (N, C).

    The training split is dealt out in `folds` parts of like classes, no group in two; one model is trained
    without each.

    Args:
        recipe: What the models are trained by; its data section does not count.
        data: Whose training split is dealt out.
        folds: How many parts.
        device: "auto", "cpu", "cuda" and so on.

    Raises:
        InputError: Fewer than 2 folds, or more than the rarest class has images.
    """
    labels, groups = data.train.labels, data.train.groups
    parts = fold_indices(labels, folds, seed=recipe.training.seed, groups=groups)
    log.info("%d models by the recipe %s (%s), each without one fold", folds, recipe.name, recipe.model.name)
    probabilities = np.full((len(labels), data.num_classes), np.nan)
    for number, (rest, held) in enumerate(parts, 1):
        log.info("fold %d of %d: %d images to train on, %d to judge", number, folds, len(rest), len(held))
        part = dataclasses.replace(data, train=data.train.take(rest), test=data.train.take(held), truth=None)
        probabilities[held] = _probabilities(recipe, part, device)
    return probabilities


def _probabilities(recipe: Recipe, data: Dataset, device: str) -> np.ndarray:
    """Train by the recipe on one part and return the probabilities of the other, which is `data.test`."""
    model = recipe_model(recipe, data)
    if recipe.training.method == "probe":
        return fit_probe(recipe, model, data, device=device).predictions.probabilities
    # The part that is judged must have no say in which epoch is kept: there is no choosing here.
    options = fit_options(recipe, data, choosing=False)
    history = fit(model, data, **options, device=device, verbose=False)
    log.info(describe_epoch(history.epochs[-1], recipe.training.epochs))
    precision = choose_precision(recipe.training.precision, next(model.parameters()).device)
    return predict(model, data.test, class_names=data.class_names, precision=precision).probabilities


def gather(
    run: Run,
    model: nn.Module,
    data: Dataset,
    *,
    device: torch.device,
) -> tuple[Evidence, np.ndarray]:
    """Return the evidence of a run, and the raw maps (N, h, w) of the test images for their true classes.

    These are the passes over its data that an audit needs, in the run's precision.
    """
    precision, seed = choose_precision(run.recipe.training.precision, device), run.recipe.training.seed
    named = {"class_names": data.class_names, "precision": precision}
    with head_inputs(model) as read, logs.stage("audit: test images"):
        augmented = predict_tta(model, data.test, tta="mirror", **named)
    # Of each batch the image itself comes first: the features are those of it.
    features = _joined(read[:: len(augmented.tables)])
    with head_inputs(model) as read, logs.stage("audit: training images"):
        train = predict(model, data.train, **named) if len(data.train) else None
    height, width = data.image_size
    sample = _CORRUPTED if height * width <= _LARGE else _CORRUPTED // 3
    with logs.stage("audit: robustness"):
        corrupted = predict_corrupted(partial(predict, model, **named), data.test, sample=sample, seed=seed)
    method, believed = _map_method(run)
    predicted_maps, true_maps = _maps(run, model, data, augmented.plain, method)
    evidence = Evidence(
        data,
        augmented.plain,
        train=train,
        features=features,
        train_features=_joined(read),
        tta=augmented.probabilities,
        maps=predicted_maps,
        believed=believed,
        dynamics=run.dynamics,
        robustness=measure_robustness(corrupted.clean, corrupted.corrupted),
        seed=seed,
    )
    return evidence, true_maps


def _joined(read: list[tuple[nn.Linear, torch.Tensor]]) -> np.ndarray | None:
    """Features of all batches, (N, D); None for a model without a last linear layer."""
    return np.concatenate([features.numpy() for _, features in read]) if read else None


def _map_method(run: Run) -> tuple[str, bool]:
    """The method of the maps of all test images, and whether there is no doubt about it.

    It is the run's own if a pass forward and back is all that it takes, else the most faithful of those that
    were compared, else Grad-CAM.
    """
    quick = {name for name, function in METHODS.items() if not takes_context(function)}
    method = run_card(run.folder, EXPLANATIONS_CARD).get("name", "grad_cam")
    try:
        found = read_faithfulness(run.folder)
    except NotFoundError:
        return method if method in quick else "grad_cam", True
    if method not in quick:
        method = next((one.name for one in found.methods if one.name in quick), "grad_cam")
    return method, not found.is_doubted(method)


@logs.stage("audit: explaining every test image")
def _maps(
    run: Run, model: nn.Module, data: Dataset, predictions: Predictions, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Raw maps of every test image for the predicted and the true class, (N, h, w) each."""
    card = run_card(run.folder, EXPLANATIONS_CARD)
    explained = partial(_explained, model, data.test, method=method, layer=card.get("main_layer"))
    everything, wrong = np.arange(len(predictions)), np.flatnonzero(~predictions.correct)
    predicted = explained(everything, predictions.predicted)
    true = predicted.copy()
    if len(wrong):
        true[wrong] = explained(wrong, predictions.labels)
    return predicted, true


def _explained(
    model: nn.Module, split: Split, index: np.ndarray, classes: np.ndarray, *, method: str, layer: str | None
) -> np.ndarray:
    parts = []
    with logs.stage("maps", total=len(index)) as progress:
        for start in range(0, len(index), _AT_ONCE):
            some = index[start : start + _AT_ONCE]
            images = to_float(split.images[some])
            parts.append(explain(model, images, classes[some], method=method, layer=layer).maps)
            progress.advance(len(some))
    return np.concatenate(parts)


@logs.stage("audit: keeping pictures for the page")
def write_gallery(
    folder: Path,
    audit: Audit,
    data: Dataset,
    *,
    maps: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> None:
    """Write `gallery.npz`, the pictures and maps that the page shows, whole or not at all.

    thumbnails: (N, h, w, 3) uint8 of the test images. train_rows: (R,) the training images that the audit
    names, ascending; train_thumbnails: (R, h, w, 3) of them. maps_predicted, maps_true: (N, h, w) float16,
    raw and signed, where there are `maps` for the predicted and the true class.
    """
    rows = pictured_rows(audit)
    arrays: dict[str, Any] = {
        "thumbnails": np.concatenate(
            [thumbnails(block, _side(len(data.test))) for block in data.test.blocks(_AT_ONCE)]
        ),
        "train_rows": rows,
        "train_thumbnails": thumbnails(data.train.images[rows], _side(len(rows))),
    }
    for name, values in zip(("maps_predicted", "maps_true"), maps, strict=True):
        if values is not None:
            arrays[name] = values.astype(np.float16)
    write_atomic(folder / GALLERY, lambda file: np.savez(file, **arrays))


def pictured_rows(audit: Audit) -> np.ndarray:
    """Return the training images that the audit names, ascending: copies, neighbors, the worst labels."""
    quality = audit.train["label_quality"].to_numpy()
    named = [audit.test["near_duplicate"].to_numpy(int), np.argsort(quality, kind="stable")[:_LISTED]]
    if audit.neighbors is not None:
        named.append(audit.neighbors.indices.ravel())
    for pair in () if audit.duplicates is None else audit.duplicates.pairs:
        ends = ((pair.a_split, pair.a), (pair.b_split, pair.b))
        named.append(np.array([index for split, index in ends if split is SplitName.TRAIN], int))
    rows = np.unique(np.concatenate(named))
    return rows[rows >= 0]


def _side(count: int) -> int:
    """The largest side of `count` thumbnails: a photograph shows something at 112 pixels, little at 64."""
    return min(_LARGEST, max(_SMALLEST, int((_ALL_PIXELS / max(count, 1)) ** 0.5)))


def thumbnails(images: np.ndarray, limit: int = _SMALLEST) -> np.ndarray:
    """Return uint8 images (N, H, W, 3) with no side above `limit` pixels, of each block its mean."""
    height, width = images.shape[1:3]
    if max(height, width) <= limit:
        return images
    step = -(-max(height, width) // limit)
    cut = images[:, : height // step * step, : width // step * step]
    blocks = cut.reshape(len(cut), height // step, step, width // step, step, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)
