"""Recipes: everything of a run in one TOML file, checked before anything starts.

The options of a schedule, an optimizer, an augmentation are the arguments of the function that has
the job, with the same names, defaults and ranges: they are read off its signature, once.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from sightline.data import Augmentation
from sightline.errors import SightlineError, nearest
from sightline.training.bounds import BelowOne, Count, CountOrZero, NonNegative
from sightline.training.optimizer import OPTIMIZERS, OptimizerFactory
from sightline.training.schedule import SCHEDULES, Schedule, cycled_momentum


class Section(BaseModel):
    """A table of a recipe: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataSection(Section):
    """Which images. name: a data set's name, a folder or an .npz file. limit: images per split, 0 for all.

    seed: of generated images, of a folder's split, of what a limit keeps; that of training is apart.
    """

    name: str = "shapes"
    dir: str = ""
    image_size: CountOrZero = 0
    limit: CountOrZero = 0
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: CountOrZero = 0


class ModelSection(Section):
    """Which network. options: keyword arguments of its function."""

    name: str = "resnet18"
    options: dict[str, Any] = {}


class TrainingSection(Section):
    """How long, how many at once, how exact, and what is kept."""

    epochs: Count = 10
    batch_size: Count = 128
    label_smoothing: BelowOne = 0.0
    l1: NonNegative = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep: Literal["last", "best"] = "last"
    patience: CountOrZero = 0
    seed: CountOrZero = 0


class AnalysisSection(Section):
    """What the analysis shows. layer: "" is the deepest of at least 5x5; layers: further ones to explain.

    method: a name of `explain.METHODS`, or "auto" for the most faithful of those compared. compare: the
    methods to compare on `compare_images` test images, 0 for none. range_test: whether to run the
    learning-rate range test before training.
    """

    mistakes: CountOrZero = 20
    correct: CountOrZero = 10
    samples: CountOrZero = 20
    layer: str = ""
    layers: tuple[str, ...] = ()
    method: str = "grad_cam"
    compare: tuple[str, ...] = ("grad_cam", "hires_cam", "layer_cam", "eigen_cam", "ablation_cam")
    compare_images: CountOrZero = 32
    range_test: bool = False


class PublishedSection(Section):
    """What the source of the recipe reported, in percent, and what this recipe does differently."""

    train: Annotated[float, Field(ge=0, le=100)] | None = None
    test: Annotated[float, Field(ge=0, le=100)] | None = None
    note: str = ""


class Recipe(Section):
    """A whole recipe. Choices with options of their own hold `name` and the options of that function."""

    name: str
    description: str = ""
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    augment: dict[str, Any] = {}
    optimizer: dict[str, Any] = {"name": "sgd"}
    schedule: dict[str, Any]
    training: TrainingSection = TrainingSection()
    analysis: AnalysisSection = AnalysisSection()
    published: PublishedSection = PublishedSection()

    def make_optimizer(self) -> OptimizerFactory:
        """Return the optimizer factory of the section `optimizer`."""
        return _choose("optimizer", self.optimizer, OPTIMIZERS)

    def make_schedule(self) -> tuple[Schedule, Schedule | None]:
        """Return the schedules of the learning rate and, if it is to be cycled, of the momentum."""
        options = dict(self.schedule)
        cycle = options.pop("cycle_momentum", None)
        rate = _choose("schedule", options, SCHEDULES)
        if cycle is None:
            return rate, None
        if options["name"] != "one_cycle":
            raise SightlineError("recipe: schedule.cycle_momentum belongs to one_cycle; remove it")
        shape = {key: options[key] for key in ("peak", "anneal") if key in options}
        checked = _checked(
            "schedule.cycle_momentum", {**_table("schedule.cycle_momentum", cycle), **shape}, cycled_momentum
        )
        return rate, cycled_momentum(**checked)

    def make_augmentation(self, fill: Sequence[float]) -> Any:
        """Return an Augmentation, or an albumentations.Compose where the recipe lists `transforms`."""
        if "transforms" not in self.augment:
            return Augmentation(**_checked("augment", self.augment, Augmentation))
        from sightline.data import build_compose

        extra = sorted(set(self.augment) - {"transforms"})
        if extra:
            raise SightlineError(
                f"recipe: augment has transforms and also {', '.join(extra)}; "
                "say crop, flip and hole as transforms too"
            )
        return build_compose(self.augment["transforms"], fill=fill)


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SightlineError(
            f"recipe: {where} is {value!r}; it needs a table such as {{ low = 0.85, high = 0.95 }}"
        )
    return value


def _choose(section: str, table: Mapping[str, Any], registry: Mapping[str, Callable[..., Any]]) -> Any:
    options = dict(table)
    name = options.pop("name", None)
    if name not in registry:
        raise SightlineError(f"recipe: {section}.name is {name!r}; {nearest(str(name), list(registry))}")
    function = registry[name]
    return function(**_checked(f"{section} ({name})", options, function))


def _checked(where: str, options: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Return `options` with the types of the function's arguments, or raise with the place and the reason."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    shape = pydantic.create_model(function.__name__, __base__=Section, **fields)
    try:
        made = shape.model_validate(dict(options))
    except pydantic.ValidationError as error:
        raise SightlineError(_message(error, list(fields), where)) from None
    return {name: getattr(made, name) for name in options}


def _message(error: pydantic.ValidationError, known: Sequence[str], where: str = "") -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join([*([where] if where else []), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return f"recipe: {place} is not known; {nearest(str(first['loc'][-1]), list(known))}"
    if first["type"] == "missing":
        return f"recipe: {place} is missing; it has no default"
    reason = first["msg"][0].lower() + first["msg"][1:]
    return f"recipe: {place} is {first['input']!r}; {reason}"


def check_recipe(table: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a nested table.

    Raises SightlineError for an unknown key, a wrong type, a value out of range, options that do not
    belong to the chosen function, and combinations that cannot work.
    """
    try:
        recipe = Recipe.model_validate(_without_tuples(table))
    except pydantic.ValidationError as error:
        loc = error.errors(include_url=False)[0]["loc"]
        section = Recipe.model_fields.get(str(loc[0])) if len(loc) > 1 else None
        fields = getattr(section.annotation, "model_fields", {}) if section else Recipe.model_fields
        raise SightlineError(_message(error, list(fields))) from None
    recipe.make_optimizer()
    recipe.make_schedule()
    if "transforms" not in recipe.augment:
        recipe.make_augmentation((0.0, 0.0, 0.0))
    training = recipe.training
    if training.validation == 0 and (training.keep == "best" or training.patience):
        raise SightlineError(
            f"recipe: training.keep is {training.keep!r} and training.patience {training.patience}; "
            "both choose by a validation split, so set training.validation to a share such as 0.1"
        )
    return recipe


def _without_tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    # Strict validation wants tuples for `layers` and `compare`, and TOML has only lists.
    copied = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    analysis = copied.get("analysis")
    if isinstance(analysis, dict):
        lists = {key: tuple(value) for key, value in analysis.items() if isinstance(value, list)}
        copied["analysis"] = analysis | lists
    return copied


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
    if key == "name" and sections in (["optimizer"], ["schedule"]) and table.get("name") != value:
        table.clear()
    table[key] = value


def recipe_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, complete, with every value that validation filled in.

    >>> check_recipe(tomllib.loads(recipe_toml(load_recipe("shapes-quick")))) == load_recipe("shapes-quick")
    True
    """
    return tomli_w.dumps(recipe.model_dump(exclude_none=True))
