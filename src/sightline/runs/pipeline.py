"""The whole job: train, predict, rank mistakes, explain, report; and the folder that it leaves.

    run = sightline.run("shapes-quick")
    run.report          # runs/shapes-quick-1/report.html
    run.predictions     # one row per test image

Every stage writes its files whole or not at all, and reads those of the stage before: each can be
done again on its own.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline import distributed, logs
from sightline.data import Dataset, describe, preview_augmentation
from sightline.errors import InputError, MissingExtraError, UntrustedError
from sightline.files import sweep, write_json, write_text
from sightline.models import choose_device, choose_precision, load_model, save_model
from sightline.predictions import Predictions, TtaPredictions, accuracy, write_predictions
from sightline.predictions.inference import predict_tta_shared
from sightline.report import write_report
from sightline.runs.analysis import (
    check_methods,
    explain_galleries,
    explained_layers,
    measure,
    sample_images,
    try_metrics,
)
from sightline.runs.artifacts import (
    CHECKPOINT,
    DATA_CARD,
    ENVIRONMENT,
    FIXES,
    METRICS,
    OUT_OF_FOLD,
    PREDICTIONS,
    RECIPE,
)
from sightline.runs.audit_stage import keep_audit
from sightline.runs.faithfulness_stage import measure_faithfulness
from sightline.runs.find_lr import settle_lr
from sightline.runs.run_folder import (
    Run,
    absolute,
    as_backbone_wants,
    describe_environment,
    fit_options,
    fit_probe,
    held_by_leader,
    keep_seconds,
    new_folder,
    other_threads,
    read_environment,
    recipe_data,
    recipe_model,
)
from sightline.training import (
    Callback,
    Checkpoint,
    Execution,
    Freeze,
    History,
    LogEpochs,
    Recipe,
    Trainer,
    describe_epoch,
    fit,
    load_recipe,
    measure_execution,
    recipe_toml,
)
from sightline.training.execution import check_compiler
from sightline.training.linear_probe import probe_head
from sightline.training.train_step import check_outputs

log = logging.getLogger(__name__)


def run(
    recipe: str | Path | Recipe = "shapes-quick",
    *,
    changes: Sequence[str] = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
    verbose: bool = True,
) -> Run:
    """Train by a recipe, analyse the test split, write the report; return the run.

    Where `torch.distributed` is initialised, every process of the group calls this: they train and predict
    together, and process 0 alone explains, writes and reports.

    Args:
        recipe: A name of `RECIPES`, a TOML file, or a Recipe.
        changes: "section.key=value" on top of it.
        trust: Modules that may be imported because the recipe's file names functions in them.
        out: The run's folder, by default the next free `runs/NAME-N`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        callbacks: Take part in the training, after those that the recipe asks for.
        verbose: Show the log on stdout if nothing else listens to it.

    Raises:
        SightlineError: Something does not fit; before the folder is made if it can be known by then.
    """
    with logs.shown(verbose):
        started = start_run(recipe, changes=changes, trust=trust, out=out, device=device)
        return finish_run(started, device=device, callbacks=callbacks)


def start_run(
    recipe: str | Path | Recipe,
    *,
    changes: Sequence[str] = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
) -> Run:
    """Check recipe, data and model, then make the folder with `recipe.toml` and `environment.json`."""
    return distributed.leader_does(lambda: _start(_checked(recipe, changes, trust), out, device))


def _checked(recipe: str | Path | Recipe, changes: Sequence[str], trust: Sequence[str]) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes, trust=trust)


def _start(recipe: Recipe, out: str | Path | None, device: str) -> Run:
    torch_device = choose_device(device)
    resolved = as_backbone_wants(absolute(recipe.with_present_engine()))
    if not resolved.model.name:
        raise InputError("the recipe is of predictions that were given: 'sightline inspect' takes them")
    data = recipe_data(resolved)
    _check_size(resolved, data)
    if resolved.training.method != "none":
        preview_augmentation(data, resolved.make_augmentation(data.mean.tolist()), [0])
    check_methods(resolved)
    try_metrics(resolved, data)
    resolved.make_objective(data)
    model = recipe_model(resolved, data)
    check_outputs(model, data, torch.device("cpu"))
    explained_layers(model, data, resolved)
    if resolved.training.compile:
        check_compiler()
    if "probe" in (resolved.training.method, resolved.training.head):
        probe_head(model, data)
    Freeze(resolved.training.freeze).check(model)
    execution = _execution(resolved, model, data, torch_device)
    chosen = {"precision": execution.precision, "memory_format": execution.memory_format}
    training = resolved.training.model_copy(update=chosen)
    resolved = resolved.model_copy(update={"training": training})
    measured = {"processes": distributed.size(), "execution": execution.describe()}
    environment = describe_environment(str(torch_device)) | measured
    with new_folder(resolved.name, None if out is None else Path(out)) as folder:
        resolved = with_own_fixes(resolved, folder)
        write_json(folder / ENVIRONMENT, environment)
        write_text(folder / RECIPE, recipe_toml(resolved))  # last: it makes the folder that of a run
    return Run(folder, resolved)


def _check_size(recipe: Recipe, data: Dataset) -> None:
    """Raise InputError for data that training, or what follows it, would not take."""
    if recipe.training.method != "none":
        data.check_trainable()
    count, analysis = len(data.test), recipe.analysis
    if count < 2 and (analysis.audit or analysis.compare_images):
        raise InputError(
            f"data set {data.name!r} has {count} test image, and the audit and the comparison of methods "
            "need 2 or more; add some, or set analysis.audit=false and analysis.compare_images=0"
        )
    if data.num_classes < 2:
        raise InputError(f"data set {data.name!r} has {data.num_classes} class; a model needs 2 or more")


def with_own_fixes(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with a copy of its decisions in the run's folder, which then stands for itself."""
    if not recipe.data.fixes:
        return recipe
    own = (folder / FIXES).absolute()
    write_text(own, Path(recipe.data.fixes).read_text(encoding="utf-8"))
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"fixes": str(own)})})


def finish_run(
    run: Run, *, device: str = "auto", callbacks: Sequence[Callback] = (), model: nn.Module | None = None
) -> Run:
    """Do what is left of a run: train from its checkpoint or from the start, analyse, audit, report.

    model: Of a run of given predictions, the network that they are of, where that is at hand.
    """
    with held_by_leader(run.folder):
        data = distributed.machine_first(lambda: recipe_data(run.recipe))
        if distributed.leads():
            sweep(run.folder)
            log.info("%s: %s", run.folder, _describe_data(data))
            for line in data.notes:
                log.warning("data: %s", line)
        run = settle_lr(run, data, device=device)
        _train(run, data, device=device, callbacks=callbacks)
        _analyze_held(run, data, device, model)
        if run.recipe.analysis.audit:
            distributed.leader_does(lambda: keep_audit(run, data, device=device, model=model))
        distributed.leader_does(lambda: log.info("report: %s", report_run(run)))
    return run


@logs.stage("writing the page")
def report_run(
    run: Run, path: Path | None = None, *, sections: Sequence[str] = (), images: int | None = None
) -> Path:
    """Write the page of a run, with the sections that its recipe names, and return its path.

    A section of the recipe whose module is not trusted, or is not installed here, is left out, and the log
    says so: to read a run needs no trust.

    Args:
        run: A finished run.
        path: The HTML file, the run's own page by default.
        sections: Further sections, as `write_report` takes them.
        images: As of `write_report`.
    """
    makers: list[Any] = []
    for name in run.recipe.analysis.sections:
        try:
            makers.append(run.recipe.make_section(name))
        except InputError as error:
            log.warning("the section %s is left out: %s", name, error)
        except UntrustedError:
            module = name.partition(":")[0]
            log.warning("the section %s is left out: its module is not trusted (--trust %s)", name, module)
    started = time.perf_counter()
    page = write_report(run.folder, path, sections=[*makers, *sections], images=images)
    keep_seconds(run, "page", time.perf_counter() - started)
    return page


def train(run: Run, data: Dataset, *, device: str = "auto", callbacks: Sequence[Callback] = ()) -> History:
    """Train, going on from a checkpoint in the folder; write weights, model card, history, data card."""
    with held_by_leader(run.folder):
        return _train(settle_lr(run, data, device=device), data, device=device, callbacks=callbacks)


class _SaveHistory(Callback):
    """Writes the history at the end of each epoch, for whoever looks into the folder meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_epoch_end(self, trainer: Trainer) -> None:
        if distributed.leads():
            trainer.history.save(self.folder)


def _train(run: Run, data: Dataset, *, device: str, callbacks: Sequence[Callback]) -> History:
    recipe, training = run.recipe, run.recipe.training
    if recipe.lacks_engine:  # the run began with it; another would end at other weights
        raise MissingExtraError(
            f"{run.folder} is augmented by albumentations; pip install 'sightline-vision[albumentations]'"
        )
    if training.method == "none":
        return distributed.leader_does(lambda: _keep_as_it_is(run, data))
    model = recipe_model(recipe, data)
    if distributed.leads():  # the folder may be on its machine alone
        environment = read_environment(run.folder)
        write_json(run.folder / DATA_CARD, describe(data))
        log.info("training in %s", environment.get("execution", training.precision))
        if (run.folder / CHECKPOINT).exists() and (line := other_threads(environment, choose_device(device))):
            log.warning(line)
    if training.method == "probe":
        return distributed.leader_does(lambda: _keep_probe(run, model, data, device))
    if training.head == "probe" and not (run.folder / CHECKPOINT).exists():
        distributed.leader_does(lambda: _keep_head(run, model, data, device))
    options = fit_options(recipe, data)
    checkpoint = Checkpoint(run.folder / CHECKPOINT, resume=True)
    options["callbacks"] += [*callbacks, _SaveHistory(run.folder), LogEpochs(), checkpoint]
    history = fit(model, data, **options, device=device, verbose=False)
    distributed.leader_does(lambda: _keep(run, model, data, history))
    return history


def _keep_as_it_is(run: Run, data: Dataset) -> History:
    write_json(run.folder / DATA_CARD, describe(data))
    named = run.recipe.model
    if named.name:
        model = recipe_model(run.recipe, data)
        save_model(run.folder, model, name=named.name, options=named.options, data=data, epoch=0)
    return History(epochs=[], steps=[], kept=0)


def _keep_head(run: Run, model: nn.Module, data: Dataset, device: str) -> None:
    """Fit the last layer to the frozen features; keep what it believes of images that it has not seen.

    The other processes take the weights of process 0 when their training begins.
    """
    found = fit_probe(run.recipe, model, data, device=device)
    write_predictions(run.folder / OUT_OF_FOLD, found.out_of_fold)
    share = 100 * found.predictions.correct.mean()
    log.info("the training starts from this head, which is right on %.2f %% of the test images", share)


def _keep_probe(run: Run, model: nn.Module, data: Dataset, device: str) -> History:
    found = fit_probe(run.recipe, model, data, device=device)
    write_predictions(run.folder / OUT_OF_FOLD, found.out_of_fold)
    _keep(run, model, data, found.history)
    log.info(describe_epoch(found.history.epochs[0], 1))
    return found.history


def _keep(run: Run, model: nn.Module, data: Dataset, history: History) -> None:
    history.save(run.folder)
    named = run.recipe.model
    save_model(run.folder, model, name=named.name, options=named.options, data=data, epoch=history.kept)


def analyze(run: Run, data: Dataset, *, device: str = "auto") -> Predictions:
    """Predict the test split, rank and explain the mistakes; write predictions, metrics, explanations."""
    with held_by_leader(run.folder):
        return _analyze_held(run, data, device, None)


def _analyze_held(run: Run, data: Dataset, device: str, given: nn.Module | None) -> Predictions:
    if not run.recipe.model.name and given is None:
        return _analyze_predictions(run, data)
    check_methods(run.recipe)
    torch_device = choose_device(device)
    # A damaged history is noticed before anything is written.
    distributed.leader_does(lambda: run.seconds_of_training)
    if given is None:
        trusted = run.recipe.trusted_modules
        model, card = distributed.leader_does(lambda: load_model(run.folder, trust=trusted))
    else:
        model, card = given.eval(), {"epoch": 0}
    model.to(torch_device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    precision = distributed.agreed(choose_precision(run.recipe.training.precision, torch_device))
    started = time.perf_counter()
    augmented = predict_tta_shared(
        model, data.test, tta=run.recipe.tta_function, class_names=data.class_names, precision=precision
    )
    seconds = {"predict": time.perf_counter() - started}
    distributed.leader_does(lambda: _analyze(run, data, model, augmented, card["epoch"], seconds))
    return augmented.plain


def _analyze_predictions(run: Run, data: Dataset) -> Predictions:
    """Measure what predictions alone allow."""
    metrics = measure(run.recipe, None, data, run.predictions, layer="", epoch=0)
    write_json(run.folder / METRICS, metrics | {"seconds": {"train": 0.0}})
    _say(metrics, len(run.predictions))
    return run.predictions


def _say(metrics: dict[str, Any], images: int, more: str = "") -> None:
    share = f"{100 * metrics['accuracy']:.2f} %{more}"
    log.info("test accuracy %s: %d mistakes in %d images", share, metrics["mistakes"], images)


def _analyze(
    run: Run,
    data: Dataset,
    model: nn.Module,
    augmented: TtaPredictions,
    epoch: int,
    seconds: dict[str, float],
) -> None:
    """Do what follows the predictions: one process's work, as it looks at tens of images."""
    predictions, tta = augmented.plain, run.recipe.analysis.tta
    write_predictions(run.folder / PREDICTIONS, predictions)
    started = time.perf_counter()
    layers = explained_layers(model, data, run.recipe)
    wanted, method = run.recipe.analysis, run.recipe.analysis.method
    if wanted.compare_images:
        found = measure_faithfulness(run.folder, model, data, predictions, run.recipe, layer=layers[0])
        method = found.best if method == "auto" else method
    elif method == "auto":
        method = "grad_cam"  # nothing was compared that could win
    explain_galleries(run.folder, model, data, predictions, run.recipe, layers=layers, method=method)
    sample_images(run.folder, data, run.recipe)
    seconds["explain"] = time.perf_counter() - started
    metrics = measure(
        run.recipe, model, data, predictions, layer=layers[0], epoch=epoch, dynamics=run.dynamics
    )
    if tta != "none":
        metrics |= {"accuracy_with_tta": accuracy(augmented.mean), "tta": tta}
    metrics["seconds"] = {"train": run.seconds_of_training, **seconds}
    write_json(run.folder / METRICS, metrics)
    more = ""
    if tta != "none":
        more = f" ({100 * metrics['accuracy_with_tta']:.2f} % with test-time augmentation: {tta})"
    _say(metrics, len(predictions), more)


def _execution(recipe: Recipe, model: nn.Module, data: Dataset, torch_device: torch.device) -> Execution:
    """What the recipe says; what it leaves to "auto" is measured if that can pay, once for the whole run."""
    training = recipe.training
    if training.method == "probe":  # one pass forward: nothing to measure that would pay
        return Execution("float32" if training.precision == "auto" else training.precision, "channels_last")
    if training.precision != "auto":
        layout = "channels_last" if training.memory_format == "auto" else training.memory_format
        return Execution(training.precision, layout)
    return measure_execution(
        model,
        data,
        batch_size=training.batch_size,
        steps=training.epochs * math.ceil(len(data.train) / training.batch_size),
        optimizer=recipe.make_optimizer(),
        memory_format=training.memory_format,
        device=str(torch_device),
    )


def _describe_data(data: Dataset) -> str:
    height, width = data.image_size
    skipped = f", {len(data.skipped)} files skipped" if data.skipped else ""
    size = f"of {height}x{width} pixels" if data.has_pictures else "without pictures"
    return (
        f"{data.name}, {len(data.train)} training and {len(data.test)} test images {size}, "
        f"{data.num_classes} classes{skipped}"
    )
