"""The learning rate of a recipe: found before training, kept for a resumed run, written into a recipe."""

from __future__ import annotations

import dataclasses
import json
import logging
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import sightline as sl
from sightline import logs
from sightline.cli import main
from sightline.errors import SightlineError
from sightline.models import create_model
from sightline.report.sections.training import range_test_section
from sightline.runs import apply_lr, load_run, range_test, recipe_data, recipe_file, start_run, train
from sightline.runs.find_lr import allowed_steps, settle_lr
from sightline.training import (
    RECIPES,
    Execution,
    Objective,
    Progress,
    RangeTest,
    find_learning_rate,
    load_recipe,
    sgd,
)
from sightline.training.recipe import check_recipe
from sightline.training.trainer import hold_out

SMALL = (
    "model.options={widths=[8, 8, 8]}",
    "training.epochs=1",
    "training.precision=float32",
    "training.batch_size=32",
    "data.limit=100",
    "analysis.range_test=false",
    "analysis.compare_images=0",
)

MINE = """# My recipe.
name = "mine"   # its name

[data]
name = "shapes"
limit = 100

[model]
name = "speednet"
options = { widths = [8, 8, 8] }  # tiny

[schedule]
name = "one_cycle" # rises, falls
max_lr = 0.1   # a guess
peak=0.25

[training]
batch_size = 32
precision = "float32"
"""


class Listener(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def begin(folder: Path, *changes: str):
    return start_run("shapes-quick", changes=[*SMALL, *changes], out=folder, device="cpu")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A run whose recipe said "find", and its log; its search has the steps of a long training."""
    patch = pytest.MonkeyPatch()
    patch.setattr("sightline.runs.find_lr.allowed_steps", lambda whole: 118)
    listener, log = Listener(), logging.getLogger("sightline")
    log.addHandler(listener)
    log.setLevel("INFO")
    changes = [*SMALL, "schedule.max_lr=find", "training.seed=3"]
    folder = tmp_path_factory.mktemp("runs") / "found"
    made = sl.run("shapes-quick", changes=changes, out=folder, device="cpu")
    log.removeHandler(listener)
    log.setLevel("NOTSET")
    patch.undo()
    return made, listener.lines


def test_a_run_finds_its_rate_before_it_trains_and_keeps_it(found):
    run, lines = found
    card = json.loads((run.folder / "range_test.json").read_text())
    kept = tomllib.loads((run.folder / "recipe.toml").read_text())["schedule"]["max_lr"]
    assert kept == card["suggestion"] == card["used"] == run.recipe.schedule["max_lr"]
    steps = pd.read_csv(run.folder / "steps.csv")
    rate = run.recipe.make_schedule()[0]
    assert steps["lr"][0] == pytest.approx(rate(Progress(0, len(steps), 1)), rel=1e-6)
    assert any(line.startswith(f"schedule.max_lr = {kept:g} (range ") for line in lines)
    assert card["seeds"] == [3, 4]  # 118 steps: two sweeps


def test_the_report_of_a_found_rate_shows_its_range_and_its_reason(found):
    run, _ = found
    card = json.loads((run.folder / "range_test.json").read_text())
    page = run.report.read_text(encoding="utf-8")
    assert f"The suggested learning rate is {card['suggestion']:.3g}, in a range from " in page
    assert f"{card['reason']}. The training used it." in page
    assert not [rule for rule in ("steepest", "valley", "minimum/10") if rule in page]
    assert (run.folder / "figures" / "range_test.png").exists()


def test_a_resumed_run_does_not_search_again(found, monkeypatch):
    run, _ = found

    def never(*args, **kwargs):
        raise AssertionError("it searched again")

    monkeypatch.setattr("sightline.runs.find_lr.find_learning_rate", never)
    resumed = load_run(run.folder)
    assert resumed.recipe.schedule["max_lr"] == run.recipe.schedule["max_lr"]
    train(resumed, resumed.data(), device="cpu")


def test_the_test_is_that_of_the_recipe_without_what_it_holds_out():
    recipe = load_recipe("shapes-quick", [*SMALL, "training.validation=0.25", "training.l1=0.001"])
    data = recipe_data(recipe)
    found = range_test(recipe, data, steps=50, device="cpu")
    kept, _ = hold_out(data.train, 0.25, 0)
    by_hand = find_learning_rate(
        create_model("speednet", data, widths=[8, 8, 8]),
        dataclasses.replace(data, train=data.train.take(kept)),
        augmentation=sl.Augmentation(crop_padding=2, crop_mode="reflect", flip="random"),
        optimizer=sgd(momentum=0.85, nesterov=True, weight_decay=0.0013, bias_lr_factor=64.0),
        batch_size=32, seeds=[0], steps=50, device="cpu", objective=Objective(0.1, 0.001),
        execution=Execution("float32"),
    )  # fmt: skip
    np.testing.assert_array_equal(found.loss, by_hand.loss)


def test_find_takes_the_place_of_a_number_only():
    recipe = load_recipe("shapes-quick", ["schedule.max_lr=find"])
    assert recipe.finds_lr
    assert recipe.with_lr(0.3).schedule == recipe.schedule | {"max_lr": 0.3}
    with pytest.raises(SightlineError, match=r'schedule.max_lr is "find"; a run finds it before it trains'):
        recipe.make_schedule()
    assert load_recipe("resnet18-step", ["schedule.lr=find"]).lr_key == "lr"
    for change in ("schedule.max_lr=fnd", "schedule.peak=find", "schedule.lr=find"):
        with pytest.raises(SightlineError, match=r"recipe: schedule \(triangle\)"):
            load_recipe("shapes-quick", [change])


def test_the_rate_is_written_into_a_recipe_and_nothing_else_is_changed(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(MINE.replace("\n", "\r\n").encode())  # as an editor on Windows leaves it
    line = apply_lr(*recipe_file(path), 0.25)
    assert line == f"{path}: schedule.max_lr = 0.25 (was 0.1)"
    expected = MINE.replace("max_lr = 0.1 ", "max_lr = 0.25 ").replace("\n", "\r\n")
    assert path.read_bytes().decode() == expected


@pytest.mark.parametrize(
    "text",
    [
        MINE.replace('[schedule]\nname = "one_cycle" # rises, falls\nmax_lr = 0.1   # a guess\npeak=0.25', "")
        .replace("[data]", 'schedule = { name = "constant", lr = "find" } # all in one\n[data]', 1),
        MINE.replace("max_lr = 0.1 ", 'max_lr = "find" '),
        'schedule.name = "plateau"\nschedule.lr = 1e-3\nname = "dotted"\n',
        'name = "steps"\n[schedule]\nname = "multistep"\nlr = 1\nmilestones = [\n  2, # first\n  4,\n]\n',
    ],
    ids=["inline", "find", "dotted", "list"],
)  # fmt: skip
def test_the_rate_finds_its_place_however_the_schedule_is_written(text, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    before = load_recipe(path)
    apply_lr(*recipe_file(path), 0.25)
    after = load_recipe(path)
    assert after == before.with_lr(0.25)
    comments = [part for part in text.split() if part.startswith("#")]
    assert [part for part in path.read_text().split() if part.startswith("#")] == comments
    changed = [line for line in path.read_text().splitlines() if line not in text.splitlines()]
    assert len(changed) == 1


def test_apply_changes_a_recipe_of_ones_own_in_place(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    command = [
        "find-lr",
        str(path),
        "--device",
        "cpu",
        "--steps",
        "50",
        "--out",
        str(tmp_path / "lr"),
    ]
    assert main([*command, "--apply", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["recipe"] == str(path)
    assert load_recipe(path) == check_recipe(tomllib.loads(MINE)).with_lr(result["suggestion"])


def test_apply_writes_a_shipped_recipe_into_a_new_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, text = recipe_file("custom-resnet-24")
    assert path == Path("custom-resnet-24.toml")
    assert apply_lr(path, text, 0.4) == "custom-resnet-24.toml: schedule.max_lr = 0.4 (a new file)"
    assert load_recipe(path) == load_recipe("custom-resnet-24").with_lr(0.4)
    changed = set(path.read_text().splitlines()) ^ set(RECIPES["custom-resnet-24"].splitlines())
    assert len(changed) == 2  # one line, before and after
    with pytest.raises(SightlineError, match=r"custom-resnet-24\.toml is there already; to change it"):
        recipe_file("custom-resnet-24")


def test_apply_is_refused_where_the_file_would_not_say_what_was_tested(tmp_path, capsys):
    command = ["find-lr", "shapes-quick", "--apply", "--out", str(tmp_path / "lr")]
    assert main([*command, "--set", "training.batch_size=64"]) == 2
    assert "--apply writes the learning rate alone" in capsys.readouterr().err
    assert not (tmp_path / "lr").exists()


def test_a_search_takes_a_twentieth_of_the_training_and_150_steps_at_most():
    assert [allowed_steps(whole) for whole in (100, 490, 24 * 98, 3000, 10**6)] == [5, 24, 117, 150, 150]


def test_a_training_too_short_for_a_search_gets_the_default(tmp_path, monkeypatch):
    begun = begin(tmp_path / "run", "schedule.max_lr=find")
    monkeypatch.setattr("sightline.training.lr_finder.train_step", None)  # no step is done
    settled = settle_lr(begun, begun.data(), device="cpu")
    card = json.loads((begun.folder / "range_test.json").read_text())
    whole = 4  # 100 images, 32 at a time
    assert f"5 % of its {whole} steps are too few for a sweep, which takes 50" in card["reason"]
    usual = 0.4 * (1 - 0.85) / 0.1 * (32 / 512) ** 0.5
    assert settled.recipe.schedule["max_lr"] == card["used"] == float(f"{usual:.3g}")
    assert not (begun.folder / "range_test.csv").exists()


def test_nothing_is_searched_unless_the_recipe_or_the_user_asks(tmp_path, monkeypatch):
    for name in RECIPES:
        assert not load_recipe(name).analysis.range_test, name

    def never(*args, **kwargs):
        raise AssertionError("it searched")

    monkeypatch.setattr("sightline.runs.find_lr.range_test", never)
    begun = begin(tmp_path / "run")
    assert settle_lr(begun, begun.data(), device="cpu") == begun


@pytest.mark.parametrize(("own", "far"), [(0.75, True), (0.1, False)])
def test_the_page_says_which_learning_rate_was_used_and_why_they_may_differ(own, far, tmp_path):
    begun = begin(tmp_path / "run", "analysis.range_test=true", f"schedule.max_lr={own}")
    settled = settle_lr(begun, begun.data(), device="cpu")
    assert settled.recipe.schedule["max_lr"] == own
    section = range_test_section(SimpleNamespace(
        range_test=None, range_card=json.loads((begun.folder / "range_test.json").read_text())
    ))  # fmt: skip
    assert "The suggested learning rate is 0.15, in a range from 0.019 to 1.2" in section.lead
    assert f"The training used the recipe's own learning rate, {own:g}." in section.lead
    assert ("The two differ 5.0 times." in section.lead) is far


def test_the_search_is_a_stage_that_counts_its_steps(monkeypatch):
    recipe = load_recipe("shapes-quick", SMALL)
    seen = []

    def note(stage: logs.Stage, count: int = 1) -> None:
        seen.append((stage.what, stage.total))

    monkeypatch.setattr(logs.Stage, "advance", note)
    found = range_test(recipe, recipe_data(recipe), steps=100, device="cpu")
    steps = [one for one in seen if one == ("learning-rate search", 100)]
    assert len(steps) >= np.isfinite(found.loss).sum() > 50


@pytest.mark.parametrize(
    ("change", "pretrained"),
    [("model.pretrained=true", False), ('model.weights="own.safetensors"', True)],
)
def test_weights_to_start_from_have_a_smaller_default(change, pretrained, monkeypatch):
    seen = {}

    def note(*args, **options):
        seen.update(options)
        return RangeTest(*[np.empty((0, 0))] * 3, usual=0.1)

    monkeypatch.setattr("sightline.runs.find_lr.find_learning_rate", note)
    recipe = load_recipe("shapes-quick", [*SMALL, change])
    range_test(recipe, recipe_data(recipe), device="cpu")
    assert seen["pretrained"] is pretrained  # a network of ours has no weights of its library
