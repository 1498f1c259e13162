"""A run that is there: its folder, its recipe, and what can be read from them.

Where runs live: `runs/NAME/`, one folder each, and `runs/latest`, a link to the newest.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import sys
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

import sightline
from sightline.audit import Audit, apply_decisions, read_audit, read_decisions
from sightline.data import Dataset, load_data
from sightline.errors import SightlineError
from sightline.models import create_model, load_model
from sightline.predictions import Dynamics, Predictions, load_dynamics, read_predictions
from sightline.training import Execution, Recipe, load_recipe

RUNS = Path("runs")


def new_folder(name: str, out: Path | None = None, *, runs: Path = RUNS) -> Path:
    """Make and return the folder of a new run: `out`, or the next free `runs/NAME-N`.

    Raises SightlineError if `out` holds anything, or cannot be made.
    """
    try:
        if out is None:
            return _next(runs, name)
        if out.is_dir() and any(out.iterdir()):
            raise SightlineError(
                f"{out} already holds {'a run' if (out / 'recipe.toml').exists() else 'other files'}; "
                "choose another --out, or go on with --resume"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SightlineError(
            f"cannot make {error.filename}: {error.strerror}; choose another --out"
        ) from None
    return out


def _next(runs: Path, name: str) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    taken = [path.name.removeprefix(f"{name}-") for path in runs.glob(f"{name}-*")]
    number = 1 + max((int(tail) for tail in taken if tail.isdecimal()), default=0)
    while True:  # another process may take the number between the look and the making
        with contextlib.suppress(FileExistsError):
            folder = runs / f"{name}-{number}"
            folder.mkdir()
            _point_latest(folder)
            return folder
        number += 1


def _point_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    beside = folder.parent / f".latest.{os.getpid()}"
    with contextlib.suppress(OSError):  # a system without links has no `latest`; nothing depends on it
        beside.symlink_to(folder.name)
        beside.replace(link)


def existing_folder(path: Path) -> Path:
    """Return the folder of a run that is there.

    Raises SightlineError if there is none, naming the runs beside it.
    """
    folder = path.resolve() if path.is_symlink() else path
    if (folder / "recipe.toml").is_file():
        return folder
    beside = sorted(p.parent.name for p in path.parent.glob("*/recipe.toml") if not p.parent.is_symlink())
    known = f"runs there: {', '.join(beside)}" if beside else "'sightline run' makes one"
    raise SightlineError(f"{path} is not the folder of a run; {known}")


def list_runs(runs: Path = RUNS) -> list[Path]:
    """Return the folders of the runs in `runs`, oldest first."""
    found = [p.parent for p in runs.glob("*/recipe.toml") if not p.parent.is_symlink()]
    return sorted(found, key=lambda folder: (folder / "recipe.toml").stat().st_mtime)


def describe_environment(device: str) -> dict[str, Any]:
    """Return what a run depends on beyond its recipe: versions, hardware, command, time (UTC)."""
    import torch

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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def summarize_run(folder: Path) -> dict[str, Any]:
    """Return a row of the table of runs: run, recipe, data, accuracy, seconds (None while unfinished)."""
    recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    metrics: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        "run": str(folder),
        "recipe": recipe.get("name", "?"),
        "data": recipe.get("data", {}).get("name", "?"),
        "accuracy": metrics.get("accuracy"),
        "seconds": metrics.get("seconds", {}).get("train"),
    }


@dataclass(frozen=True)
class Run:
    """A run's folder and its recipe; results are read from the folder when they are asked for."""

    folder: Path
    recipe: Recipe

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.folder / "report.html"

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Predictions on the test split, in data order."""
        return read_predictions(self.folder / "predictions.parquet")

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """Accuracy, loss and what else `metrics.json` holds."""
        path = self.folder / "metrics.json"
        if not path.exists():
            raise SightlineError(f"{path} is not there; 'sightline analyze {self.folder}' writes it")
        return json.loads(path.read_text(encoding="utf-8"))

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """The table of epochs."""
        path = self.folder / "history.csv"
        if not path.exists():
            raise SightlineError(
                f"{path} is not there; finish it with 'sightline run --resume {self.folder}'"
            )
        return pd.read_csv(path)

    @functools.cached_property
    def dynamics(self) -> Dynamics | None:
        """Margins and probabilities of the training images over the epochs; None for a run that kept none."""
        path = self.folder / "dynamics.npz"
        return load_dynamics(path) if path.exists() else None

    @functools.cached_property
    def audit(self) -> Audit:
        """What the audit found."""
        return read_audit(self.folder)

    def model(self) -> nn.Module:
        """Open the trained model, in evaluation mode, on the CPU."""
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
    return Run(path, load_recipe(path / "recipe.toml", trust=trust, complete=False))


def recipe_data(recipe: Recipe) -> Dataset:
    """Load the data set that the recipe names, with the decisions of `data.fixes` done."""
    section = recipe.data
    data = load_data(
        section.name,
        data_dir=section.dir or None,
        image_size=section.image_size or None,
        limit=section.limit or None,
        seed=section.seed,
        test_fraction=section.test_fraction,
        stream=section.stream,
        trust=recipe.trust(section.name),
    )
    return apply_decisions(data, read_decisions(Path(section.fixes))) if section.fixes else data


def recipe_model(recipe: Recipe, data: Dataset) -> nn.Module:
    """Make the untrained model that the recipe names."""
    return create_model(recipe.model_function, data, seed=recipe.training.seed, **recipe.model.options)


def fit_options(recipe: Recipe, data: Dataset, *, choosing: bool = True) -> dict[str, Any]:
    """Return the arguments of `fit` that the recipe states, but for model and data.

    choosing: whether a validation split is held out, and what chooses by it takes part.
    """
    training = recipe.training
    schedule, momentum = recipe.make_schedule()
    return {
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "optimizer": recipe.make_optimizer(),
        "schedule": schedule,
        "momentum": momentum,
        "augmentation": recipe.make_augmentation(data.mean.tolist()),
        "mix": recipe.make_mix(),
        "objective": recipe.make_objective(),
        "validation": training.validation if choosing else 0.0,
        "callbacks": recipe.make_callbacks(choosing=choosing),
        "execution": Execution(training.precision, training.memory_format),
        "seed": training.seed,
    }
