"""Recipes: those that ship say what the sources said, and what is wrong in one is said in a line."""

from __future__ import annotations

import sys

import pytest

from sightline.data import Augmentation
from sightline.data.augment import has_albumentations
from sightline.errors import InputError, SightlineError
from sightline.training import RECIPES, Progress, load_recipe

# epochs, batch size, published test accuracy
SHIPPED = {
    "shapes-quick": (12, 256, None),
    "finetune": (10, 32, None),
    "probe": (1, 128, None),
    "cifar10-quick": (None, 512, None),
    "cifar10-94": (None, 1024, None),
    "cifar10-96": (None, 1024, None),
    "resnet18-cutout16": (20, 512, 90.88),
    "custom-resnet-24": (24, 512, 88.0),
    "resnet18-colour": (20, 64, 91.09),
    "resnet18-crop-cutout": (20, 128, 88.03),
    "resnet18-step": (20, 32, 76.0),
    "resnet18-adam": (20, 256, 91.98),
}


def test_the_shipped_recipes_are_these():
    assert set(RECIPES) == set(SHIPPED)
    for name, (epochs, batch, published) in SHIPPED.items():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.training.epochs == (epochs or recipe.training.epochs)
        assert recipe.training.batch_size == batch
        assert recipe.published.test == published


def rate(name: str, epoch: float, steps: int = 98) -> float:
    recipe = load_recipe(name)
    if recipe.finds_lr:
        recipe = recipe.with_lr(0.1)
    schedule, momentum = recipe.make_schedule()
    assert momentum is None  # none of them cycles it
    return schedule(Progress(round(epoch * steps), steps, recipe.training.epochs))


def test_the_rates_are_those_that_the_sources_named():
    assert rate("resnet18-cutout16", 0) == pytest.approx(0.0385)
    assert rate("resnet18-cutout16", 8) == pytest.approx(0.385, rel=1e-2)
    assert rate("resnet18-cutout16", 19.99) == pytest.approx(0.0385, rel=1e-2)
    assert rate("resnet18-colour", 0) == pytest.approx(0.000657)
    assert rate("resnet18-colour", 5) == pytest.approx(0.0657, rel=1e-2)
    assert rate("resnet18-crop-cutout", 12) == 0.01
    assert [rate("resnet18-step", epoch) for epoch in (0, 9, 10, 19)] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert rate("resnet18-adam", 6) == pytest.approx(0.001, rel=1e-2)
    custom = [rate("custom-resnet-24", epoch) for epoch in range(24)]
    assert custom.index(max(custom)) == 5
    assert rate("custom-resnet-24", 23.99) == pytest.approx(custom[0], rel=2e-2)


def test_crop_flip_and_hole_are_those_that_the_sources_named():
    mean = (0.5, 0.5, 0.5)
    assert load_recipe("resnet18-cutout16").make_augmentation(mean) == Augmentation(
        crop_padding=4, crop_p=0.5, flip="random", flip_p=0.5, cutout_size=16, cutout_p=0.5,
        engine="albumentations",
    )  # fmt: skip
    assert load_recipe("custom-resnet-24").make_augmentation(mean) == Augmentation(
        crop_padding=4, flip="random", cutout_size=8
    )
    pytest.importorskip("albumentations")
    names = [type(t).__name__ for t in load_recipe("resnet18-colour").make_augmentation(mean).transforms]
    assert names == ["ColorJitter", "ToGray", "Pad", "RandomCrop", "HorizontalFlip", "CoarseDropout"]
    names = [type(t).__name__ for t in load_recipe("resnet18-step").make_augmentation(mean).transforms]
    assert names == ["HorizontalFlip", "ShiftScaleRotate", "CoarseDropout"]


def test_the_engine_of_the_augmentation_is_checked_and_stood_in_for(monkeypatch, caplog):
    with pytest.raises(InputError, match=r"augment\.engine"):
        load_recipe("resnet18-adam", ["augment.engine=kornia"])
    with pytest.raises(InputError, match="engine='albumentations' does not know"):
        load_recipe("cifar10-quick", ["augment.engine=albumentations"])
    recipe = load_recipe("resnet18-crop-cutout")
    if has_albumentations():
        assert recipe.with_present_engine() is recipe
    monkeypatch.setitem(sys.modules, "albumentations", None)  # as if it were not installed
    assert load_recipe("resnet18-crop-cutout").lacks_engine
    assert not caplog.messages  # listing recipes says nothing
    made = recipe.make_augmentation((0.5, 0.5, 0.5))
    assert made == Augmentation(crop_padding=4, crop_mode="zero", cutout_size=16, cutout_p=0.5)
    assert len(caplog.messages) == 1
    assert "the built-in engine stands in" in caplog.messages[0]
    assert load_recipe("resnet18-adam").make_augmentation((0.5, 0.5, 0.5)).engine == "builtin"
    assert len(caplog.messages) == 1


def test_changes_reach_every_section(tmp_path, monkeypatch):
    (tmp_path / "my folder").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(
        "resnet18-cutout16",
        ["training.epochs=3", "model.name=resnet34", 'data.name="my folder"', "augment.cutout_size=8",
         "analysis.layers=['layer1']", "schedule.max_lr=1"],
    )  # fmt: skip
    assert recipe.training.epochs == 3
    assert recipe.model.name == "resnet34"
    assert recipe.data.name == "my folder"
    assert recipe.augment["cutout_size"] == 8
    assert recipe.analysis.layers == ("layer1",)
    assert recipe.make_schedule()[0](Progress(0, 1, 1)) == pytest.approx(0.1)
    assert recipe.published.test is None  # what a source reached on other data says nothing here


def test_the_published_figures_stay_with_their_data():
    assert load_recipe("resnet18-adam", ["data.name=cifar10"]).published.test == 91.98
    assert load_recipe("resnet18-adam", ["data.name=cifar100"]).published.test is None


def test_another_schedule_drops_the_options_of_the_old_one():
    recipe = load_recipe("resnet18-cutout16", ["schedule.name=cosine", "schedule.lr=0.2"])
    assert recipe.schedule == {"name": "cosine", "lr": 0.2}
    assert load_recipe("resnet18-cutout16", ["optimizer.name=adam"]).optimizer == {"name": "adam"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epoch=3", "training.epoch is not known; did you mean 'epochs'"),
        ("training.epochs=0", "training.epochs is 0; input should be greater than or equal to 1"),
        ("training.epochs=many", "training.epochs is 'many'; input should be a valid integer"),
        ("training.epochs=2.5", "training.epochs is 2.5; input should be a valid integer"),
        ("training.precision=half", "training.precision is 'half'; input should be 'auto', 'float32' or"),
        ("training.label_smoothing=1", "training.label_smoothing is 1; input should be less than 1"),
        ("training.l1=nan", "training.l1 is nan; input should be a finite number"),
        ("training.keep=best", "set training.validation to a share"),
        ("optimiser.name=sgd", "optimiser is not known; did you mean 'optimizer'"),
        ("optimizer.name=sdg", "optimizer.name: optimizer 'sdg' is not known; did you mean 'sgd'"),
        ("optimizer.momentun=0.9", r"optimizer \(sgd\).momentun is not known; did you mean 'momentum'"),
        ("optimizer.momentum=1.0", r"optimizer \(sgd\).momentum is 1.0; input should be less than 1"),
        ("weight_averaging.name=emma", "weight_averaging 'emma' is not known; did you mean 'ema'"),
        ("weight_averaging.decay=1.0", r"weight_averaging \(ema\).decay is 1.0; input should be less than 1"),
        ("mix.alpha=0.5", "mix.name is None; it needs a name: none, mixup, cutmix"),
        ("mix.name=mixap", "mix 'mixap' is not known; did you mean 'mixup'"),
        ("analysis.tta=miror", "analysis.tta: tta 'miror' is not known; did you mean 'mirror'"),
        ("training.memory_format=nhwc", "training.memory_format is 'nhwc'; input should be 'auto'"),
        ("schedule.name=onecycle", "schedule 'onecycle' is not known; did you mean 'one_cycle'"),
        ("schedule.max_lr=-1", r"schedule \(one_cycle\).max_lr is -1; input should be greater than 0"),
        ("schedule.name=step", r"schedule \(step\).lr is missing; it has no default"),
        ("schedule.anneal=square", r"schedule \(one_cycle\).anneal is 'square'; input should be 'linear'"),
        ("schedule.cycle_momentum=yes", "it needs a table such as"),
        ("augment.crop_paddin=4", "augment.crop_paddin is not known; did you mean 'crop_padding'"),
        ("augment.flip=sideways", "augment.flip is 'sideways'; input should be 'none', 'random' or"),
        ("augment.cutout_p=1.5", "cutout_p is 1.5; it needs a probability from 0 to 1"),
        ("data.limit=-1", "data.limit is -1; input should be greater than or equal to 0"),
        ("training", "is not of the form section.key=value"),
        ("name.first=x", "name is a value, not a section"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(change, message):
    with pytest.raises(SightlineError, match=message) as caught:
        load_recipe("resnet18-cutout16", [change])
    assert "\n" not in str(caught.value)


def test_momentum_is_cycled_only_if_asked_for():
    recipe = load_recipe("resnet18-cutout16", ["schedule.cycle_momentum={low = 0.85, high = 0.95}"])
    _, momentum = recipe.make_schedule()
    assert momentum is not None
    assert momentum(Progress(0, 100, 20)) == pytest.approx(0.95)
    assert momentum(Progress(800, 100, 20)) == pytest.approx(0.85, abs=1e-3)
    with pytest.raises(SightlineError, match="belongs to one_cycle"):
        load_recipe("resnet18-step", ["schedule.cycle_momentum={low = 0.85, high = 0.95}"])


def test_mixing_both_kinds_of_augmentation_is_an_error():
    with pytest.raises(SightlineError, match="augment has transforms and also cutout_size"):
        load_recipe("resnet18-colour", ["augment.cutout_size=4"]).make_augmentation((0, 0, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.batch_size=9223372036854775809", "batch_size is 9223372036854775809; input should be"),
        ("training.epochs=100000000000000000000000", "epochs is 100000000000000000000000; input should be"),
        ("training.epochs=1e23", r"epochs is 1e\+23; input should be a valid integer"),
        ("training.seed=18446744073709551616", "seed is 18446744073709551616; input should be less"),
        ("data.seed=-1", "data.seed is -1; input should be greater than or equal to 0"),
        ("schedule.max_lr=1e308", r"schedule \(one_cycle\).max_lr is 1e\+308; input should be"),
        ("schedule.name=[]", r"schedule.name is \[\]; it needs a name: one_cycle, triangle"),
        ("optimizer.name={}", r"optimizer.name is \{\}; it needs a name: sgd"),
        ("model.name=3", "model.name is 3; input should be a valid string"),
        ("model.options=3", "model.options is 3; input should be a valid dictionary"),
        ("model.options={widths=[]}", r"model.options.widths is \[\]; .* at least 3 items"),
        ("model.options={widths=[-1,2,3]}", "widths.0 is -1; input should be greater"),
        ("model.options={widths=[1.5,2,3]}", "widths.0 is 1.5; input should be a valid integer"),
        ("model.options={widths=[nan,2,3]}", "model.options.widths.0 is nan; input should be a"),
        ("model.options={bn_momentum=2.0}", "model.options.bn_momentum is 2.0; input should be less"),
        ('data.dir="\\u0000"', r"data.dir is '\\x00'; a path or a name cannot hold the character NUL"),
        ("data.name=shape", "recipe: data.name: no data set 'shape', .*; did you mean 'shapes'"),
        ("callbacks=[{seconds=3}]", "callback.name is None; it needs a name"),
        ("callbacks=3", "callbacks is 3; input should be a valid tuple"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_one_line_with_its_name(change, message):
    with pytest.raises(InputError, match=message) as caught:
        load_recipe("resnet18-cutout16", ["model.name=speednet", change])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("steps", ["3", "[3]", "{name='HorizontalFlip'}", "[{p=0.5}]"])
def test_transforms_that_are_no_list_of_tables_are_one_line(steps):
    with pytest.raises(InputError, match=r"augment.transforms is .*; it needs a list of tables such as"):
        load_recipe("resnet18-colour", [f"augment.transforms={steps}"])
