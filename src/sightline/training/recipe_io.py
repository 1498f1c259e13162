"""Recipes as files: those of the package, a user's own, with changes applied, and written out again."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter

from sightline.errors import DamagedFileError, InputError, NotFoundError, nearest
from sightline.extensions import is_trusted
from sightline.files import check_regular
from sightline.training.recipe import Recipe, check_recipe, foreign_names

log = logging.getLogger(__name__)

SCHEMA = 1  # of a recipe that a run has written; those of version 0.1 have none
RENAMED = {
    "average": "weight_averaging",
    "analysis.views": "analysis.tta",
    "augment.hole_size": "augment.cutout_size",
    "augment.hole_p": "augment.cutout_p",
    "augment.hole_fill": "augment.cutout_fill",
}
"""Keys of recipes of version 0.1, and what they are called now."""


def _recipes_folder() -> Traversable:
    return resources.files("sightline.training").joinpath("recipes")


def _shipped() -> dict[str, str]:
    files = sorted((f for f in _recipes_folder().iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


RECIPES: dict[str, str] = _shipped()
"""The recipes of the package: from name to TOML text."""


@dataclass(frozen=True)
class Figures:
    """What a recipe of the package was measured to reach, one value for each run of it.

    Attributes:
        seeds: Of the runs.
        test: Plain test accuracies in percent. This and the other lists are in ascending order, not by seed,
            and miss what was not kept.
        test_with_tta: Test accuracies with test-time augmentation, in percent.
        tta: Name of that augmentation.
        train: Accuracies on the augmented training images of the last epoch, in percent.
        minutes: Of training, with the evaluation after each epoch.
        date: Of the latest run, as YYYY-MM-DD.
        machine: A letter that `benchmarks/RESULTS.md` explains.
    """

    seeds: tuple[int, ...]
    test: tuple[float, ...]
    test_with_tta: tuple[float, ...]
    tta: str
    train: tuple[float, ...]
    minutes: tuple[float, ...]
    date: str
    machine: str


def load_figures() -> dict[str, Figures]:
    """Return what was measured, by recipe; a recipe that was not measured is not among them.

    >>> load_figures()["cifar10-quick"].test
    (90.46, 90.99, 91.01)
    """
    table = json.loads(_recipes_folder().joinpath("figures.json").read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Figures]).validate_python(table["recipes"])


def load_recipe(
    recipe: str | Path,
    changes: Sequence[str] = (),
    *,
    trust: Collection[str] = (),
    complete: bool = True,
) -> Recipe:
    """Return a recipe by name (see :data:`RECIPES`) or from a TOML file, with changes applied.

    Keys of version 0.1 are read as what they are called now, with a warning in the log.

    Args:
        recipe: A name, or the path of a file.
        changes: `"section.key=value"`, the value as TOML writes it; a word needs no quotes. A new `name`
            of an optimizer or schedule drops the options of the old one. Functions that they name are
            trusted.
        trust: Modules that may be imported because the file names a function in them; their submodules too.
        complete: Whether all that the recipe names has to be here; if not, what is missing, or not trusted,
            is left for whoever uses it.

    Raises:
        NotFoundError, DamagedFileError: The file is missing, or is not a recipe.
        InputError: A key, a name or a value does not fit.
        UntrustedError: The file names a function in a module that is not trusted.

    >>> load_recipe("resnet18-cutout16", ["training.epochs=1", "model.name=resnet34"]).model.name
    'resnet34'
    """
    text = RECIPES.get(str(recipe)) or _read(Path(recipe))
    return parse_recipe(text, changes, origin=str(recipe), trust=trust, complete=complete)


def parse_recipe(
    text: str,
    changes: Sequence[str] = (),
    *,
    origin: str = "the recipe",
    trust: Collection[str] = (),
    complete: bool = True,
) -> Recipe:
    """Return the recipe of a TOML text; the other arguments are those of :func:`load_recipe`."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DamagedFileError(f"{origin} is not TOML: {error}") from None
    _migrate(table, origin)
    untrusted = {name for name in foreign_names(table) if not is_trusted(name.partition(":")[0], trust)}
    for change in changes:
        untrusted -= foreign_names(_apply(table, change))
    return check_recipe(table, untrusted=untrusted, complete=complete)


def _read(path: Path) -> str:
    if path.suffix != ".toml":
        raise InputError(
            f"recipe {str(path)!r} is not known; {nearest(str(path), list(RECIPES))}; or give a .toml file"
        )
    try:
        check_regular(path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"recipe {path} cannot be read: No such file or directory") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path that no system can have
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "not UTF-8 text"
        raise DamagedFileError(f"recipe {path} cannot be read: {reason}") from None


def _migrate(table: dict[str, Any], origin: str) -> None:
    """Bring a table of an older version to the keys of today, in place."""
    schema = table.pop("schema", None)
    if schema == SCHEMA:
        return
    if schema is not None:
        raise DamagedFileError(
            f"{origin} has schema {schema!r}, and this version reads up to {SCHEMA}; "
            "open it with a newer version of sightline"
        )
    found = []
    for old, new in RENAMED.items():
        holder, key = _holder(table, old)
        if key in holder and new.rpartition(".")[2] not in holder:
            holder[new.rpartition(".")[2]] = holder.pop(key)
            found.append(f"{old} is now {new}")
    if found:
        log.warning("%s has keys of version 0.1: %s", origin, ", ".join(found))


def _holder(table: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    section, _, key = path.rpartition(".")
    holder = table.get(section, {}) if section else table
    return (holder if isinstance(holder, dict) else {}), key


def _apply(table: dict[str, Any], change: str) -> Any:
    """Change the table in place; return the value that was set."""
    path, equals, text = change.partition("=")
    *sections, key = _todays(path.strip()).split(".")
    if not equals or not key:
        raise InputError(f"--set {change!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if path.strip() == "data.name" and table.get("data", {}).get("name") != value:
        table.pop("published", None)  # what a source reached on other data says nothing here
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {change!r}: {section} is a value, not a section")
    if (
        key == "name"
        and sections in (["optimizer"], ["schedule"], ["weight_averaging"], ["mix"])
        and table.get("name") != value
    ):
        table.clear()
    if key == "name" and sections in (["model"], ["data"]) and table.get("name") != value:
        table.pop("options", None)
    table[key] = value
    return value


def _todays(path: str) -> str:
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            log.warning("--set %s: %s is now %s", path, old, new)
            return new + path.removeprefix(old)
    return path


def recipe_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, complete, with every value that validation filled in.

    >>> parse_recipe(recipe_toml(load_recipe("shapes-quick"))) == load_recipe("shapes-quick")
    True
    """
    return tomli_w.dumps({"schema": SCHEMA, **recipe.model_dump(exclude_none=True)})
