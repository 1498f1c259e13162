"""The learning rate of a recipe: found by a range test, settled in a run, written into a recipe's file."""

from __future__ import annotations

import copy
import dataclasses
import logging
import tomllib
from collections.abc import Collection
from pathlib import Path

import tomlkit

from sightline import distributed
from sightline.data import Dataset
from sightline.errors import InputError
from sightline.files import write_text
from sightline.models import create_model
from sightline.runs.artifacts import RANGE_TEST, RECIPE
from sightline.runs.run_folder import Run
from sightline.training import RECIPES, Execution, RangeTest, Recipe, find_learning_rate, recipe_toml
from sightline.training.recipe_io import parse_recipe
from sightline.training.trainer import hold_out

log = logging.getLogger(__name__)

SWEEPS = 3  # of a test that decides


def range_test(
    recipe: Recipe,
    data: Dataset,
    *,
    sweeps: int = SWEEPS,
    trials: bool = True,
    device: str = "auto",
) -> RangeTest:
    """Run the range test with the recipe's model, optimizer, augmentation, loss and precision.

    Each sweep has a seed of its own, counted from the recipe's, for weights and order. trials: whether
    short trainings along the recipe's schedule follow each sweep; they decide, and cost about five times
    as much. What the recipe holds out to validate on is left out here too.
    """
    training = recipe.training
    kept, _ = hold_out(data.train, training.validation, training.seed)  # (n,) indices

    return find_learning_rate(
        lambda seed: create_model(recipe.model_function, data, seed=seed, **recipe.model.options),
        dataclasses.replace(data, train=data.train.take(kept)) if training.validation else data,
        batch_size=training.batch_size,
        optimizer=recipe.make_optimizer(),
        augmentation=recipe.make_augmentation(data.mean.tolist()),
        mix=recipe.make_mix(),
        objective=recipe.make_objective(),
        execution=Execution(training.precision, training.memory_format),
        device=device,
        schedule=(lambda lr: recipe.with_lr(lr).make_schedule()[0]) if trials else None,
        epochs=training.epochs,
        seeds=range(training.seed, training.seed + sweeps),
        on_sweep=lambda seed, steps: log.info("range test: sweep with seed %d, %d steps", seed, steps),
    )


def settle_lr(run: Run, data: Dataset, *, device: str = "auto") -> Run:
    """Run the range test if the recipe wants one and the folder has none; return the run with its lr.

    Where the recipe says "find", the number found takes its place in the folder's `recipe.toml`: a run
    that is resumed does not search again. A test that only goes into the report has a single sweep.
    """
    recipe = run.recipe
    tested = distributed.agreed((run.folder / RANGE_TEST).exists())
    if not recipe.finds_lr and (tested or not recipe.analysis.range_test):
        return run
    if recipe.finds_lr:
        found = range_test(recipe, data, device=device)
    else:
        found = range_test(recipe, data, sweeps=1, trials=False, device=device)
    settled = recipe.with_lr(found.suggestion) if recipe.finds_lr else recipe
    if distributed.leads():
        found.save(run.folder)
        log.info("range test: %s", describe_range_test(found))
        if recipe.finds_lr:
            write_text(run.folder / RECIPE, recipe_toml(settled))
            log.info("schedule.%s = %g, found by the range test", recipe.lr_key, found.suggestion)
    return dataclasses.replace(run, recipe=settled)


def describe_range_test(found: RangeTest) -> str:
    """Return the suggestions as one line, the recommended one first.

    >>> import numpy as np
    >>> lr, losses = np.geomspace(1e-3, 1, 40), np.linspace(2, 1, 40)[None]
    >>> describe_range_test(RangeTest(lr, losses, losses))
    'slide 0.0289, recommended; steepest 0.00289, valley 0.0242, minimum/10 0.0412'
    """
    names = sorted(found.suggestions, key=lambda name: name != found.recommended)
    parts = [f"{name} {found.suggestions[name]:.3g}" for name in names]
    if len(found.seeds) > 1:
        parts = [
            f"{part} ({found.ranges[name][0]:.3g} to {found.ranges[name][1]:.3g})"
            for name, part in zip(names, parts, strict=True)
        ]
    over = f"; medians of {len(found.seeds)} sweeps" if len(found.seeds) > 1 else ""
    return f"{parts[0]}, recommended; {', '.join(parts[1:])}{over}"


def recipe_file(recipe: str | Path, folder: Path | None = None) -> tuple[Path, str]:
    """Return the file that a learning rate for `recipe` goes into, and the text it starts from.

    A recipe's own file is changed in place. A shipped recipe becomes `NAME.toml` in `folder`, by default
    the current one.

    Raises InputError if that file is there already.
    """
    if str(recipe) not in RECIPES:
        path = Path(recipe)
        return path, path.read_bytes().decode()  # with its own line ends
    path = (folder or Path()) / f"{recipe}.toml"
    if path.exists():
        raise InputError(
            f"{path} is there already; to change it, name it in place of {recipe}, or move it away"
        )
    return path, RECIPES[str(recipe)]


def apply_lr(path: Path, text: str, lr: float, *, trust: Collection[str] = ()) -> str:
    """Write `text`, a recipe as TOML, to `path` with `lr` in its schedule; return a line on what changed.

    Comments, order and everything else stay as they are.

    Raises InputError if that cannot be had.
    """
    document, before = tomlkit.parse(text), tomllib.loads(text)
    key = parse_recipe(text, trust=trust, complete=False).lr_key
    document["schedule"][key] = lr  # pyright: ignore[reportIndexIssue]
    wanted = copy.deepcopy(before)
    wanted["schedule"][key] = lr
    changed = tomlkit.dumps(document)
    if tomllib.loads(changed) != wanted:
        raise InputError(f"{path} cannot be changed safely; write schedule.{key} = {lr:g} into it yourself")
    was = f"was {before['schedule'][key]}" if path.exists() else "a new file"
    write_text(path, changed)
    return f"{path}: schedule.{key} = {lr:g} ({was})"
