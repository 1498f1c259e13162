"""A run that is there: its folder, its recipe, and what can be read from them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from sightline.audit import Audit, apply_decisions, read_audit, read_decisions
from sightline.data import Dataset, load_data
from sightline.errors import SightlineError
from sightline.models import create_model, load_model
from sightline.predictions import Dynamics, Predictions, load_dynamics, read_predictions
from sightline.runs.folder import existing_folder
from sightline.training import Recipe, load_recipe


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
        return load_model(self.folder)[0]

    def data(self) -> Dataset:
        """Load the data set again."""
        return recipe_data(self.recipe)


def load_run(folder: str | Path) -> Run:
    """Open the folder of a run.

    Raises SightlineError if there is no run.
    """
    path = existing_folder(Path(folder))
    return Run(path, load_recipe(path / "recipe.toml"))


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
    )
    return apply_decisions(data, read_decisions(Path(section.fixes))) if section.fixes else data


def recipe_model(recipe: Recipe, data: Dataset) -> nn.Module:
    """Make the untrained model that the recipe names."""
    return create_model(recipe.model.name, data, seed=recipe.training.seed, **recipe.model.options)


def fit_options(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """Return the arguments of `fit` that the recipe states, but for model and data."""
    rate, momentum = recipe.make_schedule()
    return {
        **recipe.training.model_dump(),
        "patience": recipe.training.patience or None,
        "optimizer": recipe.make_optimizer(),
        "schedule": rate,
        "momentum": momentum,
        "average": recipe.make_average(),
        "mix": recipe.make_mix(),
        "augmentation": recipe.make_augmentation(data.mean.tolist()),
    }
