"""The whole job: train, predict, rank mistakes, explain, report; and the folder that it leaves.

    run = sightline.run("shapes-quick")
    run.report          # runs/shapes-quick-1/report.html
    run.predictions     # one row per test image

Every stage writes its files whole or not at all, and reads those of the stage before: each can be
done again on its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from sightline.data import DATASETS, Dataset, describe, preview_augmentation
from sightline.files import sweep, write_text
from sightline.models import choose_device, choose_precision, load_model, save_model
from sightline.predictions import Predictions, predict, write_predictions
from sightline.report import write_report
from sightline.runs.analysis import check_methods, explain_galleries, explained_layers, measure, sample_images
from sightline.runs.belief import measure_belief
from sightline.runs.folder import describe_environment, new_folder
from sightline.runs.record import Run, recipe_data, recipe_model
from sightline.training import (
    History,
    Progress,
    RangeTest,
    Recipe,
    describe_epoch,
    find_learning_rate,
    fit,
    load_recipe,
    recipe_toml,
)


class Reporter(Protocol):
    """Is told how a job goes."""

    def line(self, text: str) -> None:
        """Take a line of the log."""

    def step(self, progress: Progress, images: int) -> None:
        """Take note of a training step on `images` images."""


class Printer:
    """A reporter that prints lines and leaves steps out."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def step(self, progress: Progress, images: int) -> None:
        pass


def run(
    recipe: str | Path | Recipe = "shapes-quick",
    *,
    changes: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Run:
    """Train by a recipe, analyse the test split, write the report; return the run.

    recipe: a name of `RECIPES`, a TOML file, or a Recipe. changes: "section.key=value" on top of it.
    out: the run's folder, by default the next free `runs/NAME-N`. Raises SightlineError for whatever
    does not fit, before the folder is made if it can be known by then.
    """
    reporter = reporter or Printer()
    started = start_run(recipe, changes=changes, out=out, device=device)
    return finish_run(started, device=device, reporter=reporter)


def start_run(
    recipe: str | Path | Recipe,
    *,
    changes: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
) -> Run:
    """Check recipe, data and model, then make the folder with `recipe.toml` and `environment.json`."""
    place = choose_device(device)
    checked = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes)
    precision = choose_precision(checked.training.precision, place)
    resolved = checked.model_copy(
        update={
            "training": checked.training.model_copy(update={"precision": precision}),
            "data": checked.data.model_copy(update=_absolute(checked)),
        }
    )
    data = recipe_data(resolved)
    preview_augmentation(data, resolved.make_augmentation(data.mean.tolist()), [0])
    check_methods(resolved.analysis)
    explained_layers(recipe_model(resolved, data), data, resolved)
    folder = new_folder(resolved.name, None if out is None else Path(out))
    write_text(folder / "environment.json", json.dumps(describe_environment(str(place)), indent=2))
    write_text(folder / "recipe.toml", recipe_toml(resolved))
    return Run(folder, resolved)


def finish_run(run: Run, *, device: str = "auto", reporter: Reporter) -> Run:
    """Do what is left of a run: train from its checkpoint or from the start, analyse, report."""
    sweep(run.folder)
    data = recipe_data(run.recipe)
    reporter.line(f"{run.folder}: {_describe_data(data)}")
    train(run, data, device=device, reporter=reporter)
    analyze(run, data, device=device, reporter=reporter)
    report = write_report(run.folder)
    reporter.line(f"report: {report}")
    return run


def train(run: Run, data: Dataset, *, device: str = "auto", reporter: Reporter) -> History:
    """Train, going on from a checkpoint in the folder; write weights, model card, history, data card."""
    recipe = run.recipe
    options = recipe.training.model_dump(exclude={"patience", "seed"})
    model = recipe_model(recipe, data)
    write_text(run.folder / "data.json", json.dumps(describe(data), indent=2))
    if recipe.analysis.range_test and not (run.folder / "range_test.json").exists():
        found = range_test(recipe, data, device=device)
        found.save(run.folder)
        reporter.line("range test: " + describe_range_test(found))

    def on_epoch(history: History, epochs: int) -> None:
        history.save(run.folder)
        reporter.line(describe_epoch(history.epochs[-1], epochs))

    rate, momentum = recipe.make_schedule()
    history = fit(
        model,
        data,
        **options,
        patience=recipe.training.patience or None,
        seed=recipe.training.seed,
        optimizer=recipe.make_optimizer(),
        schedule=rate,
        momentum=momentum,
        augmentation=recipe.make_augmentation(data.mean.tolist()),
        device=device,
        checkpoint=run.folder / "checkpoint.pt",
        resume=True,
        on_epoch=on_epoch,
        on_step=reporter.step,
    )
    history.save(run.folder)
    save_model(
        run.folder, model, name=recipe.model.name, options=recipe.model.options, data=data, epoch=history.kept
    )
    return history


def analyze(run: Run, data: Dataset, *, device: str = "auto", reporter: Reporter) -> Predictions:
    """Predict the test split, rank and explain the mistakes; write predictions, metrics, explanations."""
    place = choose_device(device)
    model, card = load_model(run.folder)
    model.to(place, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    precision = choose_precision(run.recipe.training.precision, place)
    started = time.perf_counter()
    predictions = predict(model, data.test, class_names=data.class_names, precision=precision)
    seconds = {"predict": time.perf_counter() - started}
    write_predictions(run.folder / "predictions.parquet", predictions)
    started = time.perf_counter()
    layers = explained_layers(model, data, run.recipe)
    wanted, method = run.recipe.analysis, run.recipe.analysis.method
    if wanted.compare_images:
        found = measure_belief(run.folder, model, data, predictions, run.recipe, layer=layers[0])
        method = found["best"] if method == "auto" else method
    explain_galleries(run.folder, model, data, predictions, run.recipe, layers=layers, method=method)
    sample_images(run.folder, data, run.recipe)
    seconds["explain"] = time.perf_counter() - started
    metrics = measure(run.recipe, model, data, predictions, layer=layers[0], epoch=card["epoch"])
    metrics["seconds"] = {"train": float(run.history["seconds"].to_numpy().sum()), **seconds}
    write_text(run.folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False))
    wrong = metrics["mistakes"]
    reporter.line(
        f"test accuracy {100 * metrics['accuracy']:.2f} %: {wrong} mistakes in {len(predictions)} images"
    )
    return predictions


def range_test(recipe: Recipe, data: Dataset, *, device: str = "auto") -> RangeTest:
    """Run the learning-rate range test with the recipe's model, optimizer, augmentation and loss."""
    training = recipe.training
    return find_learning_rate(
        recipe_model(recipe, data),
        data,
        batch_size=training.batch_size,
        optimizer=recipe.make_optimizer(),
        augmentation=recipe.make_augmentation(data.mean.tolist()),
        label_smoothing=training.label_smoothing,
        l1=training.l1,
        precision=training.precision,
        device=device,
        seed=training.seed,
    )


def describe_range_test(found: RangeTest) -> str:
    """Return the suggestions as one line."""
    return ", ".join(f"{name} {rate:.3g}" for name, rate in found.suggestions.items())


def _absolute(recipe: Recipe) -> dict[str, str]:
    """Paths of the data section from the root of the disk: a run can be repeated from anywhere."""
    section = recipe.data
    places = {"dir": str(Path(section.dir).absolute())} if section.dir else {}
    if Path(section.name).exists() and section.name not in DATASETS:
        places["name"] = str(Path(section.name).absolute())
    return places


def _describe_data(data: Dataset) -> str:
    height, width = data.image_size
    skipped = f", {len(data.skipped)} files skipped" if data.skipped else ""
    return (
        f"{data.name}, {len(data.train)} training and {len(data.test)} test images "
        f"of {height}x{width} pixels, {data.num_classes} classes{skipped}"
    )
