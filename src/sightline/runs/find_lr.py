"""The learning rate of a recipe: found by a range test, settled in a run, written into a recipe's file."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import tomllib
from collections.abc import Collection
from pathlib import Path

import tomlkit

from sightline import distributed, logs
from sightline.data import Dataset
from sightline.errors import InputError
from sightline.files import write_text
from sightline.models.backbones import is_backbone
from sightline.runs.artifacts import RANGE_TEST, RECIPE
from sightline.runs.run_folder import Run, new_model
from sightline.training import RECIPES, Execution, RangeTest, Recipe, find_learning_rate, recipe_toml
from sightline.training.recipe_io import parse_recipe
from sightline.training.trainer import hold_out

log = logging.getLogger(__name__)

SHARE, MOST = 20, 150  # a search takes at most a twentieth of the training's steps, and never more than 150
OF_A_SWEEP = 50  # steps: shorter ones overstated the edge by up to four times


def allowed_steps(whole: int) -> int:
    """Return how many steps a search may take before a training of `whole` steps."""
    return min(MOST, whole // SHARE)


def range_test(recipe: Recipe, data: Dataset, *, steps: int | None = None, device: str = "auto") -> RangeTest:
    """Suggest a learning rate for the recipe's model, optimizer, augmentation, loss and precision.

    What the recipe holds out to validate on is left out here too.

    Args:
        steps: Of the whole search, all sweeps together; by default 5 % of those of the training, and 150 at
            most. Up to three sweeps share them, each with a seed of its own for weights and order, counted
            from the recipe's. Fewer than 50 steps are no search: then the suggestion is the default of the
            network and the optimizer, and the reason says so.
    """
    training = recipe.training
    kept, _ = hold_out(data.train, training.validation, training.seed)  # (n,) indices
    whole = training.epochs * math.ceil(len(kept) / training.batch_size)
    allowed = allowed_steps(whole) if steps is None else steps
    sweeps = min(3, max(1, allowed // OF_A_SWEEP))
    each = allowed // sweeps if allowed >= OF_A_SWEEP else 0
    mine = len(range(distributed.rank(), sweeps, distributed.size()))
    with logs.stage("learning-rate search", total=each * mine) as progress:
        found = find_learning_rate(
            lambda seed: new_model(recipe, data, seed=seed),
            dataclasses.replace(data, train=data.train.take(kept)) if training.validation else data,
            batch_size=training.batch_size,
            optimizer=recipe.make_optimizer(),
            augmentation=recipe.make_augmentation(data.mean.tolist()),
            mix=recipe.make_mix(),
            objective=recipe.make_objective(data),
            execution=Execution(training.precision, training.memory_format),
            device=device,
            steps=each,
            seeds=range(training.seed, training.seed + sweeps),
            pretrained=bool(recipe.model.weights)
            or (recipe.model.pretrained and is_backbone(recipe.model.name)),
            on_step=progress.advance,
        )
    if each:
        return found
    few = f"{100 // SHARE} % of its {whole} steps" if steps is None else f"{steps} steps"
    return dataclasses.replace(found, skipped=f"{few} are too few for a sweep, which takes {OF_A_SWEEP}")


def settle_lr(run: Run, data: Dataset, *, device: str = "auto") -> Run:
    """Search the learning rate if the recipe wants it and the folder has none; return the run with its lr.

    Where the recipe says "find", the number found takes its place in the folder's `recipe.toml`: a run
    that is resumed does not search again. Where it has a number and says `analysis.range_test`, the search
    goes into the report alone.
    """
    recipe = run.recipe
    tested = distributed.agreed((run.folder / RANGE_TEST).exists())
    if not recipe.finds_lr and (tested or not recipe.analysis.range_test):
        return run
    found = range_test(recipe, data, device=device)
    settled = recipe.with_lr(found.suggestion) if recipe.finds_lr else recipe
    if distributed.leads():
        used = settled.schedule.get(settled.lr_key)
        found.save(run.folder, used=used)
        if recipe.finds_lr:
            write_text(run.folder / RECIPE, recipe_toml(settled))
            log.info("schedule.%s = %s", recipe.lr_key, describe_range_test(found))
        else:
            log.info("learning rate %s; the recipe's own is used, %s", describe_range_test(found), used)
    return dataclasses.replace(run, recipe=settled)


def describe_range_test(found: RangeTest) -> str:
    """Return the suggestion, its range and the reason as one line.

    >>> import numpy as np
    >>> lr, losses = np.geomspace(1e-3, 1, 40), np.linspace(2, 1, 40)[None]
    >>> describe_range_test(RangeTest(lr, losses, losses))
    '0.25 (range 0.0029 to 1): a quarter of 1, where the loss is lowest'
    """
    low, high = found.range
    return f"{found.suggestion:g} (range {low:g} to {high:g}): {found.reason}"


def describe_rules(found: RangeTest) -> str:
    """Return what the four classic rules say, as one line; "" without a sweep.

    >>> import numpy as np
    >>> lr, losses = np.geomspace(1e-3, 1, 40), np.linspace(2, 1, 40)[None]
    >>> describe_rules(RangeTest(lr, losses, losses))
    'classic rules: steepest 0.00289, valley 0.0242, slide 0.0289, minimum/10 0.0412'
    """
    if not len(found.loss):
        return ""
    parts = [
        f"{name} {middle:.3g}" + (f" ({low:.3g} to {high:.3g})" if len(found.loss) > 1 else "")
        for name, (middle, low, high) in found.rules.items()
    ]
    return f"classic rules: {', '.join(parts)}"


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
