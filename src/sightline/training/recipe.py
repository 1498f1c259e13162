"""Recipes: everything of a run in one TOML file, checked before anything starts.

The options of a schedule, an optimizer, an augmentation are the arguments of the function that has
the job, with the same names, defaults and ranges: they are read off its signature, once.

Options of a recipe that are the arguments of a function: read off its signature and checked by it.

"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_type_hints

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from sightline.data import Augmentation
from sightline.errors import SightlineError, nearest
from sightline.predictions import TTA
from sightline.training.bounds import BelowOne, Count, CountOrZero, NonNegative
from sightline.training.callbacks import WEIGHT_AVERAGES, Callback, EarlyStopping, Freeze, KeepBest
from sightline.training.mixing import MIXES, Mix
from sightline.training.optimizers import OPTIMIZERS, OptimizerFactory
from sightline.training.schedules import SCHEDULES, Schedule, cycled_momentum


class Section(BaseModel):
    """A table of a recipe: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def as_table(where: str, value: Any) -> dict[str, Any]:
    """Return `value`, or raise if it is not a table."""
    if not isinstance(value, dict):
        raise SightlineError(
            f"recipe: {where} is {value!r}; it needs a table such as {{ low = 0.85, high = 0.95 }}"
        )
    return value


def choose(section: str, table: Mapping[str, Any], registry: Mapping[str, Callable[..., Any]]) -> Any:
    """Return what the function that `table` names in `registry` makes of the table's other entries."""
    options = dict(table)
    name = options.pop("name", None)
    if name not in registry:
        raise SightlineError(f"recipe: {section}.name is {name!r}; {nearest(str(name), list(registry))}")
    function = registry[name]
    return function(**checked_options(f"{section} ({name})", options, function))


def checked_options(where: str, options: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Return `options` with the types of the function's arguments, or raise with the place and the reason."""
    called = function.__init__ if inspect.isclass(function) else function
    hints = get_type_hints(called, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    shape = pydantic.create_model(function.__name__, __base__=Section, **fields)
    try:
        made = shape.model_validate(dict(options))
    except pydantic.ValidationError as error:
        raise SightlineError(describe_problem(error, list(fields), where)) from None
    return {name: getattr(made, name) for name in options}


def describe_problem(error: pydantic.ValidationError, known: Sequence[str], where: str = "") -> str:
    """Return the first problem of `error` in one line; known: the names that would have done there."""
    first = error.errors(include_url=False)[0]
    place = ".".join([*([where] if where else []), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return f"recipe: {place} is not known; {nearest(str(first['loc'][-1]), list(known))}"
    if first["type"] == "missing":
        return f"recipe: {place} is missing; it has no default"
    reason = first["msg"][0].lower() + first["msg"][1:]
    return f"recipe: {place} is {first['input']!r}; {reason}"


FIND = "find"  # in place of the schedule's learning rate


class DataSection(Section):
    """Which images. name: a data set's name, a folder or an .npz file. limit: images per split, 0 for all.

    seed: of generated images, of a folder's split, of what a limit keeps; that of training is apart.
    stream: whether a folder's pictures stay in their files; "auto" for more than a quarter of the memory.
    fixes: a file of decisions from a report; images are relabelled and dropped by it.
    """

    name: str = "shapes"
    dir: str = ""
    image_size: CountOrZero = 0
    limit: CountOrZero = 0
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: CountOrZero = 0
    stream: Literal[True, False, "auto"] = "auto"
    fixes: str = ""


class ModelSection(Section):
    """Which network. options: keyword arguments of its function."""

    name: str = "resnet18"
    options: dict[str, Any] = Field(default={})


class TrainingSection(Section):
    """How long, how many at once, how exact, and what is kept.

    precision, memory_format: "auto" is chosen by measuring when a run begins, and kept by the run's recipe.
    freeze: epochs that a parameter or a layer trains, by its name, such as { "whitening.bias" = 3 }.
    """

    epochs: Count = 10
    batch_size: Count = 128
    label_smoothing: BelowOne = 0.0
    l1: NonNegative = 0.0
    freeze: dict[str, CountOrZero] = Field(default={})
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep: Literal["last", "best"] = "last"
    patience: CountOrZero = 0
    seed: CountOrZero = 0


class AnalysisSection(Section):
    """What the analysis shows. layer: "" is the deepest of at least 5x5; layers: further ones to explain.

    method: a name of `explain.METHODS`, or "auto" for the most faithful of those compared. compare: the
    methods to compare on `compare_images` test images, 0 for none. range_test: whether to run the
    learning-rate range test before training. audit: whether to audit the run. views: a name of
    `predictions.TTA`, of each test image, whose mean gives a second accuracy beside the plain one.
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
    audit: bool = True
    views: str = "none"


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
    augment: dict[str, Any] = Field(default={})
    optimizer: dict[str, Any] = Field(default={"name": "sgd"})
    schedule: dict[str, Any]
    average: dict[str, Any] = Field(default={"name": "none"})
    mix: dict[str, Any] = Field(default={"name": "none"})
    training: TrainingSection = TrainingSection()
    analysis: AnalysisSection = AnalysisSection()
    published: PublishedSection = PublishedSection()

    def make_optimizer(self) -> OptimizerFactory:
        """Return the optimizer factory of the section `optimizer`."""
        return choose("optimizer", self.optimizer, OPTIMIZERS)

    @property
    def rate_key(self) -> str:
        """The name of the schedule's learning rate: "max_lr" of those with a peak, "lr" of the others."""
        function = SCHEDULES.get(self.schedule.get("name", ""))
        return "max_lr" if function and "max_lr" in inspect.signature(function).parameters else "lr"

    @property
    def finds_rate(self) -> bool:
        """Whether the schedule's learning rate is "find": a run finds it by a range test before it trains."""
        return self.schedule.get(self.rate_key) == FIND

    def with_rate(self, lr: float) -> Recipe:
        """Return the recipe with `lr` as the schedule's learning rate."""
        return self.model_copy(update={"schedule": self.schedule | {self.rate_key: lr}})

    def make_schedule(self) -> tuple[Schedule, Schedule | None]:
        """Return the schedules of the learning rate and, if it is to be cycled, of the momentum."""
        if self.finds_rate:
            raise SightlineError(
                f'recipe: schedule.{self.rate_key} is "find"; a run finds it before it trains, in Python '
                "use recipe.with_rate(find_learning_rate(...).suggestion)"
            )
        options = dict(self.schedule)
        cycle = options.pop("cycle_momentum", None)
        rate = choose("schedule", options, SCHEDULES)
        if cycle is None:
            return rate, None
        if options["name"] != "one_cycle":
            raise SightlineError("recipe: schedule.cycle_momentum belongs to one_cycle; remove it")
        shape = {key: options[key] for key in ("peak", "anneal") if key in options}
        checked = checked_options(
            "schedule.cycle_momentum",
            {**as_table("schedule.cycle_momentum", cycle), **shape},
            cycled_momentum,
        )
        return rate, cycled_momentum(**checked)

    def make_callbacks(self, *, choosing: bool = True) -> list[Callback]:
        """Return what takes part in the training: weight averaging, freezing, keeping the best, stopping.

        choosing: whether what chooses by the validation split is among them.
        """
        training = self.training
        average = choose("average", self.average, WEIGHT_AVERAGES)
        made: list[Callback] = [] if average is None else [average]
        if training.freeze:
            made.append(Freeze(training.freeze))
        if choosing and training.keep == "best":
            made.append(KeepBest())
        if choosing and training.patience:
            made.append(EarlyStopping(training.patience))
        return made

    def make_mix(self) -> Mix | None:
        """Return the mix of the section `mix`, None for none."""
        return choose("mix", self.mix, MIXES)

    def make_augmentation(self, fill: Sequence[float]) -> Any:
        """Return an Augmentation, or an albumentations.Compose where the recipe lists `transforms`."""
        if "transforms" not in self.augment:
            return Augmentation(**checked_options("augment", self.augment, Augmentation))
        from sightline.data import build_compose

        extra = sorted(set(self.augment) - {"transforms"})
        if extra:
            raise SightlineError(
                f"recipe: augment has transforms and also {', '.join(extra)}; "
                "say crop, flip and cutout as transforms too"
            )
        return build_compose(self.augment["transforms"], fill=fill)


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
        raise SightlineError(describe_problem(error, list(fields))) from None
    recipe.make_optimizer()
    (recipe.with_rate(1.0) if recipe.finds_rate else recipe).make_schedule()
    recipe.make_callbacks()
    recipe.make_mix()
    if "transforms" not in recipe.augment:
        recipe.make_augmentation((0.0, 0.0, 0.0))
    if recipe.analysis.views not in TTA:
        near = nearest(recipe.analysis.views, list(TTA))
        raise SightlineError(f"recipe: analysis.views is {recipe.analysis.views!r}; {near}")
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
