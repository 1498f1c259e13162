"""Recipes as files: those of the package, a user's own, with changes applied, and written out again."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from sightline.errors import SightlineError, nearest
from sightline.training.recipe import Recipe, check_recipe


def _shipped() -> dict[str, str]:
    folder = resources.files("sightline.training").joinpath("recipes")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


RECIPES: dict[str, str] = _shipped()
"""The recipes of the package: from name to TOML text."""


def load_recipe(recipe: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Return a recipe by name (see :data:`RECIPES`) or from a TOML file, with changes applied.

    changes: `"section.key=value"`, the value as TOML writes it; a word needs no quotes. A new `name`
    of an optimizer or schedule drops the options of the old one.

    >>> load_recipe("resnet18-cutout16", ["training.epochs=1", "model.name=resnet34"]).model.name
    'resnet34'
    """
    if str(recipe) in RECIPES:
        text, origin = RECIPES[str(recipe)], str(recipe)
    else:
        text, origin = _read(Path(recipe)), str(recipe)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SightlineError(f"{origin} is not TOML: {error}") from None
    for change in changes:
        _apply(table, change)
    return check_recipe(table)


def _read(path: Path) -> str:
    if path.suffix != ".toml":
        raise SightlineError(
            f"recipe {str(path)!r} is not known; {nearest(str(path), list(RECIPES))}; or give a .toml file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SightlineError(f"recipe {path} cannot be read: {reason}") from None


def _apply(table: dict[str, Any], change: str) -> None:
    place, equals, text = change.partition("=")
    *sections, key = place.strip().split(".")
    if not equals or not key:
        raise SightlineError(f"--set {change!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if place.strip() == "data.name" and table.get("data", {}).get("name") != value:
        table.pop("published", None)  # what a source reached on other data says nothing here
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise SightlineError(f"--set {change!r}: {section} is a value, not a section")
    if (
        key == "name"
        and sections in (["optimizer"], ["schedule"], ["average"], ["mix"])
        and table.get("name") != value
    ):
        table.clear()
    table[key] = value


def recipe_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, complete, with every value that validation filled in.

    >>> check_recipe(tomllib.loads(recipe_toml(load_recipe("shapes-quick")))) == load_recipe("shapes-quick")
    True
    """
    return tomli_w.dumps(recipe.model_dump(exclude_none=True))
