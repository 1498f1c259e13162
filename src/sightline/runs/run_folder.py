"""A run that is there: its folder, its recipe, and what can be read from them.

Where runs live: `runs/NAME/`, one folder each, and `runs/latest`, a link to the newest.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import glob
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

import sightline
from sightline import distributed, logs
from sightline.audit import Audit, apply_decisions, read_audit, read_decisions
from sightline.data import Dataset, load_data
from sightline.data.hugging_face import PREFIX as HUB
from sightline.data.load import is_of_files, kind_of
from sightline.errors import (
    DamagedFileError,
    InputError,
    NotFoundError,
    SightlineError,
    UntrustedError,
    WriteError,
)
from sightline.files import LOCK, check_regular, hold, read_json, write_json
from sightline.models import create_model, load_model
from sightline.models.backbones import backbone_input, is_backbone
from sightline.predictions import Dynamics, Predictions, load_dynamics, read_predictions
from sightline.runs.artifacts import DYNAMICS, ENVIRONMENT, HISTORY, METRICS, PREDICTIONS, RECIPE, REPORT
from sightline.runs.folders import RUNS, existing_folder
from sightline.signatures import accepts
from sightline.training import Execution, Probe, Recipe, load_recipe, probe


@contextlib.contextmanager
def new_folder(name: str, out: Path | None = None, *, runs: Path = RUNS) -> Iterator[Path]:
    """Make the folder of a new run, `out` or the next free `runs/NAME-N`, and hold it while the block runs.

    If the block raises, the folder is as absent or as empty as it was. One of several processes that ask for
    the same `out` gets it.

    Raises:
        InputError: `out` holds anything.
        BusyError: Another process is making a run in it.
        WriteError: It cannot be made.
    """
    wanted = runs if out is None else out
    made = [folder for folder in (wanted, *wanted.parents) if not folder.exists()]
    try:
        if out is None:
            folder = _next(runs, name)
            made.insert(0, folder)
        else:
            folder = out
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                made = []
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise WriteError(f"cannot make {error.filename}: {error.strerror}; choose another --out") from None
    try:
        with hold(folder):
            _check_empty(folder)
            try:
                yield folder
            except BaseException:
                for path in folder.iterdir():
                    if path.name != LOCK:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                raise
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    if out is None and (folder / RECIPE).exists():
        _point_latest(folder)


def _check_empty(folder: Path) -> None:
    if any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(
            f"{folder} already holds {'a run' if (folder / RECIPE).exists() else 'other files'}; "
            "choose another --out, or go on with --resume"
        )


def _next(runs: Path, name: str) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    taken = [path.name.removeprefix(f"{name}-") for path in runs.glob(f"{glob.escape(name)}-*")]
    number = 1 + max((int(tail) for tail in taken if tail.isdecimal()), default=0)
    while True:  # another process may take the number between the look and the making
        with contextlib.suppress(FileExistsError):
            folder = runs / f"{name}-{number}"
            folder.mkdir()
            return folder
        number += 1


def _point_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    beside = folder.parent / f".latest.{os.getpid()}"
    with contextlib.suppress(OSError):  # a system without links has no `latest`; nothing depends on it
        beside.symlink_to(folder.name)
        beside.replace(link)


def describe_environment(device: str) -> dict[str, Any]:
    """Return what a run depends on beyond its recipe: versions, hardware, command, time (UTC)."""
    packages = ("torch", "numpy", "pandas", "albumentations")
    versions = {"python": platform.python_version(), "sightline": sightline.__version__}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    hardware = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"started": started, "command": command, "versions": versions, "hardware": hardware}


def read_environment(folder: Path) -> dict[str, Any]:
    """Return what `describe_environment` said when the run began."""
    return read_json(folder / ENVIRONMENT, otherwise="start the run anew, or copy the file back")


def other_threads(environment: Mapping[str, Any], device: torch.device) -> str | None:
    """Return a warning if this CPU adds up with another number of threads than at the start of the run."""
    hardware = environment.get("hardware")
    then = hardware.get("threads") if isinstance(hardware, dict) else None
    now = torch.get_num_threads()
    if device.type != "cpu" or then is None or then == now:
        return None
    return (
        f"the run began with {then} CPU threads and continues with {now}: the last bits of its weights will "
        f"differ from those of a run without a break; OMP_NUM_THREADS={then} avoids it"
    )


@contextlib.contextmanager
def held_by_leader(folder: Path) -> Iterator[None]:
    """Hold the folder in the process that writes into it, and fail in all of them if it is held elsewhere."""
    with contextlib.ExitStack() as stack:
        distributed.leader_does(lambda: stack.enter_context(hold(folder)))
        yield


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_seconds(run: Run, stage: str, seconds: float) -> None:
    """Write how long a stage took into the run's `metrics.json`, where there is one."""
    path = run.folder / METRICS
    if not path.exists():
        return
    metrics = read_json(path, otherwise=f"'sightline analyze {run.folder}' writes it")
    known = metrics.get("seconds")
    metrics["seconds"] = (known if isinstance(known, dict) else {}) | {stage: seconds}
    metrics.pop("schema", None)
    write_json(path, metrics)


def summarize_run(folder: Path) -> dict[str, Any]:
    """Return a row of the table of runs: run, recipe, data, metrics, seconds, damaged.

    accuracy, balanced_accuracy, macro_f1 and seconds are None while the run is unfinished, the second and
    the third also where an older version wrote it; damaged is None, or why a file cannot be read.
    """
    further = ("balanced_accuracy", "macro_f1")
    row = dict.fromkeys(("recipe", "data", "accuracy", *further, "seconds", "damaged"))
    try:
        opened = load_run(folder)
        row |= {"recipe": opened.recipe.name, "data": opened.recipe.data.name}
        if (folder / METRICS).exists():
            accuracy, seconds = opened.metrics.get("accuracy"), opened.metrics.get("seconds")
            train = seconds.get("train") if isinstance(seconds, dict) else None
            if not all(isinstance(number, int | float) for number in (accuracy, train)):
                raise DamagedFileError(f"{folder / METRICS} has no accuracy or no seconds of training")
            row |= {"accuracy": accuracy, "seconds": train}
            row |= {name: _score(opened.metrics, name) for name in further}
    except SightlineError as error:
        row["damaged"] = " ".join(str(error).split())
    return {"run": str(folder), **row}


def _score(metrics: dict[str, Any], name: str) -> float | None:
    """Return a metric of `metrics.json`; None where it is not defined, or the file is of an older version."""
    for key in ("scores", "overall", name):
        metrics = metrics.get(key, {}) if isinstance(metrics, dict) else {}
    value = metrics.get("value") if isinstance(metrics, dict) else None
    return value if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Run:
    """A run's folder and its recipe; results are read from the folder when they are asked for."""

    folder: Path
    recipe: Recipe

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.folder / REPORT

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Predictions on the test split, in data order."""
        return read_predictions(self.folder / PREDICTIONS)

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """Accuracy, loss and what else `metrics.json` holds."""
        return read_json(self.folder / METRICS, otherwise=f"'sightline analyze {self.folder}' writes it")

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """The table of epochs."""
        path, finish = self.folder / HISTORY, f"finish it with 'sightline run --resume {self.folder}'"
        try:
            check_regular(path)
            table = pd.read_csv(path)
            table["seconds"].to_numpy(float)
        except FileNotFoundError:
            raise NotFoundError(f"{path} is missing; {finish}") from None
        except (OSError, ValueError, LookupError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DamagedFileError(f"{path} is no table of epochs ({reason}); {finish}") from error
        return table

    @functools.cached_property
    def dynamics(self) -> Dynamics | None:
        """Margins and probabilities of the training images over the epochs; None for a run that kept none."""
        path = self.folder / DYNAMICS
        return load_dynamics(path) if path.exists() else None

    @functools.cached_property
    def audit(self) -> Audit:
        """What the audit found."""
        return read_audit(self.folder)

    @property
    def seconds_of_training(self) -> float:
        """0 for what was trained elsewhere."""
        none = self.recipe.training.method == "none"
        return 0.0 if none else float(self.history["seconds"].to_numpy().sum())

    def model(self) -> nn.Module:
        """Open the trained model, in evaluation mode, on the CPU."""
        if not self.recipe.model.name:
            raise NotFoundError(f"{self.folder} was made of predictions that were given, and has no model")
        return load_model(self.folder, trust=self.recipe.trusted_modules)[0]

    def data(self) -> Dataset:
        """Load the data set again."""
        return recipe_data(self.recipe)


def load_run(folder: str | Path, *, trust: Collection[str] = ()) -> Run:
    """Open the folder of a run.

    Args:
        folder: The folder.
        trust: Modules that may be imported because the run's files name functions in them. Reading and
            comparing what a run has found needs none; opening its model and its data does, if they are not
            the package's own.

    Raises:
        NotFoundError: There is no run.
    """
    path = existing_folder(Path(folder))
    try:
        return Run(path, load_recipe(path / RECIPE, trust=trust, complete=False))
    except (NotFoundError, DamagedFileError, UntrustedError):
        raise
    except SightlineError as error:
        raise DamagedFileError(f"{path / RECIPE} is no recipe of this version: {error}") from error


def absolute(recipe: Recipe) -> Recipe:
    """Return the recipe with its paths from the root of the disk: a run can be repeated from anywhere."""
    section, model = recipe.data, recipe.model
    absolute = {"dir": str(Path(section.dir).absolute())} if section.dir else {}
    if section.fixes:
        absolute["fixes"] = str(Path(section.fixes).absolute())
    kind, place = kind_of(section.name), section.name.removeprefix(HUB)
    if kind == "hugging_face" and section.name.startswith(HUB):
        if Path(place).exists():
            absolute["name"] = f"{HUB}{Path(place).absolute()}"
    elif kind == "shards" or (kind != "function" and Path(section.name).exists()):
        absolute["name"] = str(Path(section.name).absolute())
    named = {"weights": str(Path(model.weights).absolute())} if model.weights else {}
    folder = Path(model.name.removeprefix("hf/"))
    if model.name.startswith("hf/") and folder.is_dir():
        named["name"] = f"hf/{folder.absolute()}"
    updated = {"data": section.model_copy(update=absolute), "model": model.model_copy(update=named)}
    return recipe.model_copy(update=updated)


def as_backbone_wants(recipe: Recipe) -> Recipe:
    """The recipe with a backbone's size and interpolation, for pictures in files and no size of their own."""
    section, model = recipe.data, recipe.model
    name = model.name or recipe.inspect.backbone
    files = section.pictures and is_of_files(section.name)
    if section.image_size or not is_backbone(name) or not files:
        return recipe
    spec = backbone_input(name, model.options)
    height, width = spec.size
    size = height if height == width else (height, width)
    kind = "bilinear" if spec.interpolation == "bilinear" else "bicubic"
    wanted = {"image_size": size, "interpolation": kind}
    return recipe.model_copy(update={"data": section.model_copy(update=wanted)})


@logs.stage("loading the data")
def recipe_data(recipe: Recipe) -> Dataset:
    """Load the data set that the recipe names, with the decisions of `data.fixes` done."""
    section = recipe.data
    data = load_data(
        section.name,
        data_dir=section.dir or None,
        image_size=section.image_size or None,
        resize=section.resize,
        interpolation=section.interpolation,
        limit=section.limit or None,
        seed=section.seed,
        test_fraction=section.test_fraction,
        stream=section.stream,
        path_column=section.path_column,
        label_column=section.label_column,
        split_column=section.split_column,
        group=section.group,
        keep_together=section.keep_together,
        pictures=section.pictures,
        class_names=section.class_names,
        trust=recipe.trust(section.name),
    )
    return apply_decisions(data, read_decisions(Path(section.fixes))) if section.fixes else data


def recipe_model(recipe: Recipe, data: Dataset) -> nn.Module:
    """Make the untrained model that the recipe names."""
    return new_model(recipe, data, seed=recipe.training.seed)


def new_model(recipe: Recipe, data: Dataset, *, seed: int) -> nn.Module:
    """Make the model that the recipe names; what of it starts at random is drawn by `seed`."""
    model, as_it_is = recipe.model, recipe.training.method == "none"
    statistics = (model.mean, model.std) if model.mean else None
    if as_it_is and not model.mean and not accepts(recipe.model_function, "normalize"):
        statistics = (0.0,) * 3, (1.0,) * 3  # what its own training did is not known: images in [0, 1]
    return create_model(
        model.name,
        data,
        seed=seed,
        weights=model.weights or None,
        pretrained=model.pretrained,
        head=as_it_is,
        statistics=statistics,
        trust=recipe.trust(model.name),
        **model.options,
    )


def fit_probe(recipe: Recipe, model: nn.Module, data: Dataset, *, device: str) -> Probe:
    """Fit the last layer of the model, in place, as the recipe says."""
    wanted = recipe.probe
    return probe(
        model,
        data,
        folds=wanted.folds,
        class_weights=wanted.class_weights,
        cache="auto" if wanted.cache else None,
        precision="float32" if recipe.training.precision == "auto" else recipe.training.precision,
        device=device,
        seed=recipe.training.seed,
    )


def fit_options(recipe: Recipe, data: Dataset, *, choosing: bool = True) -> dict[str, Any]:
    """Return the arguments of `fit` that the recipe states, but for model and data.

    choosing: whether a validation split is held out, and what chooses by it takes part.
    """
    training = recipe.training
    schedule, momentum = recipe.make_schedule()
    return {
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "parts": training.parts,
        "sampler": training.sampler,
        "optimizer": recipe.make_optimizer(),
        "schedule": schedule,
        "momentum": momentum,
        "augmentation": recipe.make_augmentation(data.mean.tolist()),
        "mix": recipe.make_mix(),
        "objective": recipe.make_objective(data),
        "validation": training.validation if choosing else 0.0,
        "callbacks": recipe.make_callbacks(choosing=choosing),
        "execution": Execution(training.precision, training.memory_format, compiled=training.compile),
        "seed": training.seed,
    }
