"""Recipes as files: read, written, changed, and those of version 0.1 brought to the keys of today."""

from __future__ import annotations

import logging
import tomllib

import pytest
import tomli_w

import sightline as sl
from sightline.errors import DamagedFileError, InputError, NotFoundError, SightlineError
from sightline.training import RECIPES, load_recipe, recipe_toml
from sightline.training.recipe_io import RENAMED, parse_recipe

# As `sightline recipes resnet18-cutout16` of version 0.1 printed it, but for comments.
OLD = """
name = "resnet18-cutout16"
description = "ResNet-18, 20 epochs, one-cycle, random crop and 16x16 holes on CIFAR-10"
[data]
name = "cifar10"
[model]
name = "resnet18"
[augment]
crop_padding = 4
crop_mode = "reflect"
crop_p = 0.5
flip = "random"
flip_p = 0.5
hole_size = 16
hole_p = 0.5
[optimizer]
name = "sgd"
momentum = 0.9
nesterov = true
weight_decay = 5e-4
[schedule]
name = "one_cycle"
max_lr = 0.385
peak = 0.4
start_divisor = 10.0
final_divisor = 1.0
anneal = "linear"
[average]
name = "ema"
decay = 0.99
[training]
epochs = 20
batch_size = 512
[analysis]
mistakes = 10
layer = "layer3"
layers = ["layer1", "layer2", "layer4"]
views = "mirror"
"""


def test_a_recipe_of_version_0_1_is_read_as_that_of_today(tmp_path, caplog):
    path = tmp_path / "old.toml"
    path.write_text(OLD)
    with caplog.at_level(logging.WARNING, "sightline"):
        old = load_recipe(path)
    today = load_recipe("resnet18-cutout16", ["augment.engine=builtin"])  # the only one that there was
    today.augment.pop("engine")
    assert old.model_copy(update={"description": "", "published": today.published}) == today.model_copy(
        update={"description": ""}
    )
    assert caplog.messages == [
        f"{path} has keys of version 0.1: average is now weight_averaging, "
        "analysis.views is now analysis.tta, "
        "augment.hole_size is now augment.cutout_size, augment.hole_p is now augment.cutout_p"
    ]
    caplog.clear()
    changed = load_recipe("resnet18-cutout16", ["average.name=lookahead", "augment.hole_size=8"])
    assert changed.weight_averaging == {"name": "lookahead"}
    assert changed.augment["cutout_size"] == 8
    assert caplog.messages[0] == "--set average.name: average is now weight_averaging"


def test_a_run_of_version_0_1_opens(tmp_path):
    """Such a run wrote every key of its recipe, and no schema."""
    table = tomllib.loads(recipe_toml(load_recipe("shapes-quick")))
    for key in ("schema", "metrics", "callbacks"):
        del table[key]
    for old, new in RENAMED.items():
        section, _, key = new.rpartition(".")
        holder = table[section] if section else table
        if key in holder:
            holder[old.rpartition(".")[2]] = holder.pop(key)
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(table))
    assert sl.load_run(tmp_path).recipe == load_recipe("shapes-quick")


def test_what_a_run_writes_has_a_schema_and_a_newer_one_is_refused(tmp_path):
    table = tomllib.loads(recipe_toml(load_recipe("shapes-quick")))
    assert table["schema"] == 1
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps({**table, "schema": 2}))
    with pytest.raises(DamagedFileError, match=r"recipe\.toml has schema 2, and this version reads up to 1"):
        load_recipe(path)
    path.write_text(tomli_w.dumps({**table, "average": {"name": "none"}}))
    with pytest.raises(
        InputError, match="recipe: average is not known"
    ):  # of today, so no old key has a place
        load_recipe(path)


def test_a_resolved_recipe_is_the_same_recipe():
    for name in RECIPES:
        recipe = load_recipe(name)
        assert parse_recipe(recipe_toml(recipe)) == recipe


def test_a_recipe_file_that_cannot_be_read_is_said_in_one_line(tmp_path):
    with pytest.raises(SightlineError, match="did you mean 'resnet18-adam'"):
        load_recipe("resnet18-adm")
    with pytest.raises(NotFoundError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "none.toml")
    torn = tmp_path / "torn.toml"
    torn.write_text("name = ")
    with pytest.raises(SightlineError, match="is not TOML"):
        load_recipe(torn)
    torn.write_text("name = 'x'")
    with pytest.raises(SightlineError, match="recipe: schedule is missing"):
        load_recipe(torn)


def test_a_size_is_a_side_or_height_and_width():
    changed = load_recipe("shapes-quick", ["data.image_size=[96, 128]", "data.resize=pad"])
    assert (changed.data.image_size, changed.data.resize) == ((96, 128), "pad")
    written = tomllib.loads(recipe_toml(changed))["data"]
    assert (written["image_size"], written["interpolation"]) == ([96, 128], "bicubic")
    with pytest.raises(SightlineError, match=r"recipe: data\.image_size"):
        load_recipe("shapes-quick", ["data.image_size=[96]"])
