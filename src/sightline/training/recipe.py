"""Recipes: everything of a run in one TOML file, checked before anything starts.

The options of a schedule, an optimizer, an augmentation, a model are the arguments of the function that has
the job, with the same names, defaults and ranges: they are read off its signature, once. Where a recipe holds
a name, `package.module:function` works too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, Field, PrivateAttr
from torch import nn

from sightline.data import DATASETS, Augmentation, Dataset, PhotoAugmentation
from sightline.data.augment import has_albumentations
from sightline.data.image_files import Interpolation, Resize
from sightline.data.load import kind_of
from sightline.errors import InputError, InputTypeError, UntrustedError, nearest
from sightline.extensions import plugins, resolve
from sightline.models import MODELS
from sightline.models.backbones import LITE0, backbone_function, is_backbone
from sightline.models.registry import check_options, find_model
from sightline.predictions import METRICS, TTA, Predictions
from sightline.signatures import (
    BelowOne,
    Count,
    CountOrZero,
    NonNegative,
    Section,
    Seed,
    Share,
    checked_options,
    describe_problem,
    takes,
)
from sightline.training.callbacks import (
    CALLBACKS,
    WEIGHT_AVERAGES,
    Callback,
    EarlyStopping,
    FineTune,
    Freeze,
    KeepBest,
)
from sightline.training.optimizers import OPTIMIZERS, OptimizerFactory
from sightline.training.schedules import SCHEDULES, Schedule, cycled_momentum
from sightline.training.train_step import MIXES, Mix, Objective, balanced_weights, log_prior

log = logging.getLogger(__name__)

FIND = "find"  # in place of the schedule's learning rate
AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "crop_flip_cutout": Augmentation,
    "photo": PhotoAugmentation,
}
"""Augmentations by name: functions that return an Augmentation or an albumentations.Compose."""

_FOREIGN = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")  # package.module:function

T = TypeVar("T")


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a path or a name cannot hold the character NUL")
    return text


def _folder_name(name: str) -> str:
    if not name.strip() or len(name.encode()) > 100 or any(c in name for c in "/\\\0\n") or name[0] == ".":
        raise ValueError("a folder has to be called so: no slash, no dot in front, up to 100 bytes")
    return name


Text = Annotated[str, AfterValidator(_without_nul)]
RunName = Annotated[str, AfterValidator(_folder_name)]


class DataSection(Section):
    """Which images.

    name: a data set's name, a folder, a manifest, tar files, hf/NAME, an .npz file or a function. dir:
        where a named data set's files are.
    image_size: side that a folder's pictures are brought to, or [height, width]; 0 for what fits them.
    resize: "crop" cuts off what hangs over, "pad" fills up with grey, "stretch" distorts. interpolation: of
    scaling. limit: images per split, 0 for all. seed: of generated images, of a folder's split, of what a
    limit keeps; that of training is apart. stream: whether a folder's pictures stay in their files; "auto"
    for more than a quarter of the memory. fixes: a file of decisions from a report; images are relabelled and
    dropped by it. path_column, label_column, split_column, group: what the columns of a manifest are called.
    keep_together: "near-duplicates" are kept in one split. pictures: false for a manifest's labels alone.
    class_names: the order of a model's outputs, where it is not that of the data.
    """

    name: Text = "shapes"
    dir: Text = ""
    image_size: CountOrZero | tuple[Count, Count] = 0
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"
    limit: CountOrZero = 0
    test_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    seed: Seed = 0
    stream: Literal[True, False, "auto"] = "auto"
    fixes: Text = ""
    path_column: Text = "path"
    label_column: Text = "label"
    split_column: Text = "split"
    group: Text = ""
    keep_together: Literal["", "near-duplicates"] = ""
    pictures: bool = True
    class_names: tuple[Text, ...] = ()


class ModelSection(Section):
    """Which network.

    weights: a file to start from. pretrained: whether a backbone (efficientnet_lite0, timm/NAME,
    torchvision/NAME, hf/NAME) starts from its library's weights, where there is no file. options: keyword
    arguments of its function. mean, std: per channel, that its images are normalised by; of the data by
    default. A run of predictions that were computed elsewhere has no model, and the name "".
    """

    name: Text = "resnet18"
    weights: Text = ""
    pretrained: bool = True
    options: dict[str, Any] = Field(default={})
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class TrainingSection(Section):
    """How long, how many at once, how exact, and what is kept.

    method: "gradient" trains all, step by step; "probe" fits the last layer alone, by logistic regression on
    frozen features, as the section `probe` says, and of this section it heeds precision and seed; "none" is
    of `sightline inspect`, which takes the model as it is, or its predictions, as `inspect` says.
    head: what the last layer starts from: "new" is drawn at random, "probe" is fitted to the frozen features
    first. head_epochs: epochs that train the last layer alone. frozen: share of the blocks, from the first,
    that stay as they are. parts: in how many a batch goes through the
    network, one after the other, where the memory is small; the gradient is that of the whole batch.
    precision, memory_format: "auto" is chosen by measuring when a run begins, and kept by the run's recipe.
    compile: steps run code that `torch.compile` makes, which takes about a minute first and a C++ compiler.
    freeze: epochs that a parameter or a layer trains, by its name, such as { "whitening.bias" = 3 }.
    metric: of the validation split, by which `keep` and `patience` choose. class_weights: "balanced", or a
    table of factors by class name, 1 for what it lacks. logit_adjustment: tau of Menon et al. 2021, 0 for
    none. sampler: "balanced" draws each class as often, with replacement. One of these three corrects for
    unequal classes.
    """

    method: Literal["gradient", "probe", "none"] = "gradient"
    head: Literal["new", "probe"] = "new"
    head_epochs: CountOrZero = 0
    frozen: Share = 0.0
    epochs: Count = 10
    batch_size: Count = 128
    parts: Count = 1
    label_smoothing: BelowOne = 0.0
    l1: NonNegative = 0.0
    freeze: dict[str, CountOrZero] = Field(default={})
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    compile: bool = False
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep: Literal["last", "best"] = "last"
    patience: CountOrZero = 0
    metric: Literal["loss", "accuracy", "balanced_accuracy", "macro_f1"] = "loss"
    class_weights: Literal["none", "balanced"] | dict[str, NonNegative] = "none"
    logit_adjustment: NonNegative = 0.0
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    seed: Seed = 0


class ProbeSection(Section):
    """How `training.method = "probe"` fits the last layer.

    folds: parts of the training split that are held out in turn, to choose the strength of the penalty and
    to judge labels. class_weights: "balanced" counts each class the same. cache: keep features on disk.
    """

    folds: Annotated[int, Field(ge=2, le=100)] = 5
    class_weights: Literal["none", "balanced"] = "none"
    cache: bool = True


class InspectSection(Section):
    """What was computed elsewhere, where `training.method` is "none"; the run's folder has its own copies.

    predictions, features: where they came from. backbone: the network whose features stand in where none
    were given, and by which labels of the training split are judged; "" for none.
    """

    predictions: Text = ""
    features: Text = ""
    backbone: Text = ""


class AnalysisSection(Section):
    """What the analysis shows. layer: "" is the deepest of at least 5x5; layers: further ones to explain.

    method: a name of `attribution.METHODS`, or "auto" for the most faithful of those compared. compare: the
    methods to compare on `compare_images` test images, 0 for none. range_test: whether to search the
    learning rate before training, for the page alone where the schedule has a number. audit: whether to audit
    the run. tta: test-time augmentation, a name of `predictions.TTA`, whose mean gives a second accuracy next
    to the plain one. sections: functions that add sections to the page, each from its data to a
    `report.Section`.
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
    tta: Text = "none"
    sections: tuple[str, ...] = ()


class PublishedSection(Section):
    """What the source of the recipe reported, in percent, and what this recipe does differently."""

    train: Annotated[float, Field(ge=0, le=100)] | None = None
    test: Annotated[float, Field(ge=0, le=100)] | None = None
    note: str = ""


class Recipe(Section):
    """A whole recipe. Choices with options of their own hold `name` and the options of that function.

    metrics: names of `predictions.METRICS` or functions (Predictions) -> float, kept by the run. callbacks:
    tables with the name of a function that returns a `Callback`, and its options.
    """

    name: RunName
    description: str = ""
    metrics: tuple[Text, ...] = ()
    callbacks: tuple[dict[str, Any], ...] = ()
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    augment: dict[str, Any] = Field(default={})
    optimizer: dict[str, Any] = Field(default={"name": "sgd"})
    schedule: dict[str, Any]
    weight_averaging: dict[str, Any] = Field(default={"name": "none"})
    mix: dict[str, Any] = Field(default={"name": "none"})
    training: TrainingSection = TrainingSection()
    probe: ProbeSection = ProbeSection()
    inspect: InspectSection = InspectSection()
    analysis: AnalysisSection = AnalysisSection()
    published: PublishedSection = PublishedSection()
    _untrusted: frozenset[str] = PrivateAttr(default=frozenset())

    def trust(self, name: str) -> tuple[str, ...] | None:
        """Return `trust` as :func:`sightline.extensions.resolve` takes it, for a name of this recipe.

        None, which allows all, unless the name came from a file and nobody has said that it may be imported.
        """
        return () if name in self._untrusted else None

    @property
    def trusted_modules(self) -> list[str]:
        """The modules that functions of this recipe may be imported from."""
        return sorted({name.partition(":")[0] for name in foreign_names(self.model_dump())} - self._unsafe)

    @property
    def _unsafe(self) -> set[str]:
        return {name.partition(":")[0] for name in self._untrusted}

    def make_optimizer(self) -> OptimizerFactory:
        """Return the optimizer factory of the section `optimizer`."""
        return self._made("optimizer", self.optimizer, OPTIMIZERS)

    @property
    def lr_key(self) -> str:
        """The name of the schedule's learning rate: "max_lr" of those with a peak, "lr" of the others."""
        try:
            function = self._function("schedule", self.schedule.get("name"), SCHEDULES)
        except (InputError, UntrustedError):  # raised where the schedule is made
            return "lr"
        return "max_lr" if takes(function, "max_lr") else "lr"

    @property
    def finds_lr(self) -> bool:
        """Whether the schedule's learning rate is "find": a run finds it by a range test before it trains."""
        return self.schedule.get(self.lr_key) == FIND

    def with_lr(self, lr: float) -> Recipe:
        """Return the recipe with `lr` as the schedule's learning rate."""
        return self.model_copy(update={"schedule": self.schedule | {self.lr_key: lr}})

    def make_schedule(self) -> tuple[Schedule, Schedule | None]:
        """Return the schedules of the learning rate and, if it is to be cycled, of the momentum."""
        if self.finds_lr:
            raise InputError(
                f'recipe: schedule.{self.lr_key} is "find"; a run finds it before it trains, in Python '
                "use recipe.with_lr(find_learning_rate(...).suggestion)"
            )
        options = dict(self.schedule)
        cycle = options.pop("cycle_momentum", None)
        lr = self._made("schedule", options, SCHEDULES)
        if cycle is None:
            return lr, None
        if options["name"] != "one_cycle":
            raise InputError("recipe: schedule.cycle_momentum belongs to one_cycle; remove it")
        if not isinstance(cycle, dict):
            raise InputError(
                f"recipe: schedule.cycle_momentum is {cycle!r}; "
                "it needs a table such as { low = 0.85, high = 0.95 }"
            )
        shape = {key: options[key] for key in ("peak", "anneal") if key in options}
        where = "recipe: schedule.cycle_momentum"
        return lr, cycled_momentum(**checked_options(where, {**cycle, **shape}, cycled_momentum))

    def make_callbacks(self, *, choosing: bool = True) -> list[Callback]:
        """Return what takes part in the training: averaging, freezing, choosing, and the recipe's callbacks.

        choosing: whether what chooses by the validation split is among them.
        """
        training = self.training
        average = self._made("weight_averaging", self.weight_averaging, WEIGHT_AVERAGES)
        made: list[Callback] = [] if average is None else [average]
        if training.head_epochs or training.frozen:
            made.append(FineTune(head_epochs=training.head_epochs, frozen=training.frozen))
        if training.freeze:
            made.append(Freeze(training.freeze))
        if choosing and training.keep == "best":
            made.append(KeepBest(metric=training.metric))
        if choosing and training.patience:
            made.append(EarlyStopping(training.patience, metric=training.metric))
        made += [self._made("callback", table, CALLBACKS) for table in self.callbacks]
        for one in made:
            if not isinstance(one, Callback):
                raise InputTypeError(
                    f"recipe: a callback is a {type(one).__name__}; its function has to return an object "
                    "whose class extends sightline.training.Callback"
                )
        return made

    def make_objective(self, data: Dataset) -> Objective:
        """Return what the training minimises on `data`, whose training split says how many a class has."""
        training, labels, classes = self.training, data.train.labels, data.num_classes
        weights, tau = training.class_weights, training.logit_adjustment
        used = [f"class_weights={weights!r}"] * (weights != "none") + [f"logit_adjustment={tau}"] * (tau > 0)
        used += ['sampler="balanced"'] * (training.sampler == "balanced")
        if len(used) > 1:
            raise InputError(
                f"recipe: training has {' and '.join(used)}, each of which corrects for unequal classes by "
                "itself; keep one of them"
            )
        given: tuple[float, ...] = ()
        if isinstance(weights, dict):
            for name in weights:
                if name not in data.class_names:
                    near = nearest(name, list(data.class_names))
                    raise InputError(f"recipe: training.class_weights: no class is called {name!r}; {near}")
            given = tuple(weights.get(name, 1.0) for name in data.class_names)
        return Objective(
            label_smoothing=training.label_smoothing,
            l1=training.l1,
            class_weights=balanced_weights(labels, classes) if weights == "balanced" else given,
            adjustment=log_prior(labels, classes, tau=tau) if tau else (),
        )

    def make_mix(self) -> Mix | None:
        """Return the mix of the section `mix`, None for none."""
        return self._made("mix", self.mix, MIXES)

    def make_augmentation(self, fill: Sequence[float]) -> Any:
        """Return an Augmentation, or an albumentations.Compose where the recipe lists `transforms`.

        fill: three values in [0, 1], the mean of the training split.
        """
        if "transforms" not in self.augment:
            return self.with_present_engine()._made_augmentation(fill)
        from sightline.data import build_compose

        extra = sorted(set(self.augment) - {"transforms"})
        if extra:
            raise InputError(
                f"recipe: augment has transforms and also {', '.join(extra)}; "
                "say crop, flip and cutout as transforms too"
            )
        return build_compose(self.augment["transforms"], fill=fill)

    def _made_augmentation(self, fill: Sequence[float]) -> Any:
        table = {"name": "crop_flip_cutout", **self.augment}
        return self._made("augment", table, AUGMENTATIONS, kind="augmentation", fill=fill)

    @property
    def lacks_engine(self) -> bool:
        """Whether the recipe's crop, flip and cutout ask for albumentations, which is not installed."""
        return self.augment.get("engine") == "albumentations" and not has_albumentations()

    def with_present_engine(self) -> Recipe:
        """Return the recipe with the built-in engine where its augmentation asks for one that is not here."""
        if not self.lacks_engine:
            return self
        log.warning(
            "albumentations is not installed: the built-in engine stands in, with the same distribution of "
            "crops, flips and cutouts"
        )
        return self.model_copy(update={"augment": self.augment | {"engine": "builtin"}})

    def make_metrics(self) -> dict[str, Callable[[Predictions], float]]:
        """Return the functions of `metrics` by their names; of package.module:function the last part."""
        return {
            name.rpartition(":")[2]: self._function("metric", name, METRICS, key=f"metrics[{number}]")
            for number, name in enumerate(self.metrics)
        }

    def make_sections(self) -> list[Callable[..., Any]]:
        """Return the functions of `analysis.sections`, which add sections to the page."""
        return [self.make_section(name) for name in self.analysis.sections]

    def make_section(self, name: str) -> Callable[..., Any]:
        """Return the function of one section; a name that is not trusted or not known raises."""
        return self._function("section", name, {}, key="analysis.sections")

    @property
    def model_function(self) -> Callable[..., nn.Module]:
        """The function of the section `model`."""
        if is_backbone(self.model.name):
            return find_model(self.model.name)
        return self._function("model", self.model.name, {**MODELS, LITE0: backbone_function(LITE0)})

    @property
    def tta_function(self) -> Any:
        """The function of `analysis.tta`."""
        return self._function("tta", self.analysis.tta, TTA, key="analysis.tta")

    def _made(
        self,
        section: str,
        table: Mapping[str, Any],
        registry: Mapping[str, Callable[..., Any]],
        *,
        kind: str = "",
        **given: Any,
    ) -> Any:
        """Return what the function that `table` names makes of its other entries, and of `given`."""
        options = dict(table)
        name = options.pop("name", None)
        function = self._function(kind or section, name, registry, key=f"{section}.name")
        where = f"recipe: {section}" if section == "augment" else f"recipe: {section} ({name})"
        checked = checked_options(where, options, function, given=given)
        return function(**{key: value for key, value in given.items() if takes(function, key)}, **checked)

    def _function(self, kind: str, name: Any, registry: Mapping[str, T], *, key: str = "") -> T:
        if not isinstance(name, str):
            known = ", ".join(registry) or "package.module:function"
            raise InputError(f"recipe: {key or kind + '.name'} is {name!r}; it needs a name: {known}")
        try:
            function = resolve(kind, name, registry, trust=self.trust(name))
        except UntrustedError:
            raise
        except InputError as error:
            raise _UnknownName(f"recipe: {key or kind + '.name'}: {error}") from error.__cause__
        if not callable(function):
            raise InputTypeError(f"recipe: {kind} {name!r} is a {type(function).__name__}, not a function")
        return function


class _UnknownName(InputError):
    """A name that nothing here bears; another machine, or an extension that is missing now, may know it."""


def foreign_names(value: Any) -> set[str]:
    """Return every text of the form package.module:function in a nested table."""
    if isinstance(value, str):
        return {value} if _FOREIGN.fullmatch(value) else set()
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return set().union(*map(foreign_names, parts))


def check_recipe(
    table: Mapping[str, Any], *, untrusted: Collection[str] = (), complete: bool = True
) -> Recipe:
    """Return the recipe of a nested table.

    Args:
        table: As TOML has it.
        untrusted: Functions, as package.module:function, that must not be imported.
        complete: Whether whatever the recipe names has to be here. If not, names that are unknown, untrusted,
            or of data that is elsewhere are left for whoever uses them.

    Raises:
        InputError: An unknown key or name, a wrong type, a value out of range, options that do not belong to
            the chosen function, or a combination that cannot work.
        UntrustedError: An untrusted function is named.
    """
    try:
        recipe = Recipe.model_validate(_without_lists(table))
    except pydantic.ValidationError as error:
        loc = error.errors(include_url=False)[0]["loc"]
        section = Recipe.model_fields.get(str(loc[0])) if len(loc) > 1 else None
        fields = getattr(section.annotation, "model_fields", {}) if section else Recipe.model_fields
        raise InputError(describe_problem(error, list(fields), "recipe: ")) from None
    recipe._untrusted = frozenset(untrusted)
    for check in _checks(recipe, complete):
        try:
            check()
        except (UntrustedError, _UnknownName):
            if complete:
                raise
    training = recipe.training
    if training.validation == 0 and (training.keep == "best" or training.patience):
        raise InputError(
            f"recipe: training.keep is {training.keep!r} and training.patience {training.patience}; "
            "both choose by a validation split, so set training.validation to a share such as 0.1"
        )
    return recipe


def _checks(recipe: Recipe, complete: bool) -> Iterator[Callable[[], Any]]:
    yield recipe.make_optimizer
    yield (recipe.with_lr(1.0) if recipe.finds_lr else recipe).make_schedule
    yield recipe.make_callbacks
    yield recipe.make_mix
    if "transforms" in recipe.augment:  # making them needs albumentations, and waits until a run begins
        yield lambda: _check_transforms(recipe.augment["transforms"])
    else:
        yield lambda: recipe._made_augmentation((0.0, 0.0, 0.0))
    yield recipe.make_metrics
    yield recipe.make_sections
    yield lambda: recipe.tta_function
    if recipe.model.name or recipe.training.method != "none":
        yield lambda: check_options("recipe: model.options", recipe.model_function, recipe.model.options)
    if complete:
        yield lambda: _check_data(recipe)


def _check_transforms(steps: Any) -> None:
    if not isinstance(steps, list) or not all(isinstance(step, dict) and "name" in step for step in steps):
        raise InputError(
            f"recipe: augment.transforms is {steps!r}; it needs a list of tables such as "
            '[{ name = "HorizontalFlip", p = 0.5 }]'
        )


def _check_data(recipe: Recipe) -> None:
    """Raise unless there is a data set, a folder, an .npz file or a function of the recipe's data.name."""
    name = recipe.data.name
    if name in DATASETS or Path(name).exists() or kind_of(name) in ("hugging_face", "shards"):
        return
    if not _FOREIGN.fullmatch(name) and name not in plugins("data"):
        near = nearest(name, [*DATASETS, *plugins("data")])
        raise InputError(
            f"recipe: data.name: no data set {name!r}, and no folder, .csv, .parquet, .tar or .npz file at "
            f"that path; {near}"
        )
    resolve("data", name, DATASETS, trust=recipe.trust(name))


def _without_lists(table: Mapping[str, Any]) -> dict[str, Any]:
    # Strict validation wants tuples, and TOML has only lists.
    copied = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    lists = {
        "analysis": ("layers", "compare", "sections"),
        "data": ("image_size", "class_names"),
        "model": ("mean", "std"),
    }
    holders = [(copied, ("metrics", "callbacks"))]
    holders += [(copied[name], keys) for name, keys in lists.items() if isinstance(copied.get(name), dict)]
    for holder, keys in holders:
        holder |= {key: tuple(holder[key]) for key in keys if isinstance(holder.get(key), list)}
    return copied
