"""The file of figures, the table that is made from it, and the page of a run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import types
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import sightline as sl
from sightline.training import RECIPES, Figures, load_figures, load_recipe

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "reproduction.py"


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("reproduction", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished(folder: Path, changes: list[str]) -> types.SimpleNamespace:
    """What the script reads of a finished run of resnet18-adam."""
    environment = {"started": "2026-11-24T10:00:00+00:00"}
    (folder / "environment.json").write_text(json.dumps(environment))
    return types.SimpleNamespace(
        folder=folder,
        recipe=load_recipe("resnet18-adam", changes),
        metrics={"accuracy": 0.93218, "accuracy_with_tta": 0.9401},
        history=pd.DataFrame({"train_accuracy": [0.5] * 19 + [0.97123], "seconds": [4.5] * 20}),
    )


def test_the_measured_recipes_are_shipped_and_their_figures_are_shares(script):
    for name, figures in load_figures().items():
        assert name in RECIPES
        assert len(figures.seeds) == len(figures.test) > 0
        for values in (figures.test, figures.test_with_tta, figures.train):
            assert list(values) == sorted(values)
            assert all(10 < value <= 100 for value in values)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", figures.date)


def test_the_table_of_the_results_is_that_of_the_file(script):
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    table = text.partition(script.BEGIN)[2].partition(script.END)[0]
    assert table.strip() == script.results_table(load_figures())


def test_the_row_of_a_recipe_holds_mean_range_and_deviation(script):
    figures = Figures((0, 1), (90.0, 92.0), (93.5,), "mirror", (), (10.0, 20.0), "2026-11-24", "A")
    row = next(r for r in script.results_table({"resnet18-adam": figures}).splitlines() if "adam" in r)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "`resnet18-adam`", "96.71 / 91.98", "91.00 (90.00 to 92.00)", "1.41", "93.50, `mirror`", "2", "-",
        "15.0 (10.0 to 20.0)", "A, 2026-11-24",
    ]  # fmt: skip


def test_a_finished_run_is_added_once(script, tmp_path):
    path = tmp_path / "figures.json"
    path.write_text('{"schema": 1, "recipes": {}}')
    script.add_figures(finished(tmp_path, []), path, "A")
    script.add_figures(finished(tmp_path, ["training.seed=1", "training.precision=float32"]), path, "A")
    row = json.loads(path.read_text())["recipes"]["resnet18-adam"]
    assert row == {
        "seeds": [0, 1], "test": [93.22, 93.22], "test_with_tta": [94.01, 94.01], "tta": "mirror",
        "train": [97.12, 97.12], "minutes": [1.5, 1.5], "date": "2026-11-24", "machine": "A",
    }  # fmt: skip
    assert list(row) == [field.name for field in dataclasses.fields(Figures)]
    with pytest.raises(SystemExit, match="has a run of resnet18-adam with seed 1"):
        script.add_figures(finished(tmp_path, ["training.seed=1"]), path, "A")
    with pytest.raises(SystemExit, match="one row is of one machine"):
        script.add_figures(finished(tmp_path, ["training.seed=2"]), path, "B")
    with pytest.raises(SystemExit, match=r"data\.limit is 9 and not 0; training\.epochs is 3 and not 20"):
        script.add_figures(finished(tmp_path, ["training.epochs=3", "data.limit=9"]), path, "A")
    stopped = finished(tmp_path, ["training.seed=2"])
    stopped.history = stopped.history[:7]
    with pytest.raises(SystemExit, match="it ended after epoch 7 of 20"):
        script.add_figures(stopped, path, "A")
    assert json.loads(path.read_text())["recipes"]["resnet18-adam"] == row


@pytest.mark.slow
def test_a_run_gets_a_page_with_every_figure_and_keeps_its_folder(script, tmp_path):
    changes = [
        "data.name=shapes", "data.limit=64", "training.epochs=1", "training.batch_size=32",
        "analysis.audit=false", "analysis.compare_images=0",
    ]  # fmt: skip
    run = sl.run(
        "custom-resnet-24", changes=[*changes, "schedule.max_lr=0.01"], out=tmp_path / "run", verbose=False
    )
    found = sl.find_learning_rate(run.model(), run.data(), batch_size=16, steps=20)
    found.save(run.folder)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    page = script.write_page(run, tmp_path / "pages")
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"!\[.*?\]\((custom-resnet-24/.*?)\)", text)
    maps = [f"mistakes_maps_layer{k}_{n}" for n in (10, 20) for k in (1, 2, 3) if (k, n) != (2, 10)]
    expected = [
        "samples", "augmented", "augmented_one", "range_test", "learning_rate", "curves", "class_accuracy",
        "confusion", "mistakes", "mistakes_20", "mistakes_maps_main", *maps, "correct_maps",
    ]  # fmt: skip
    assert sorted(Path(name).stem for name in shown) == sorted(expected)
    for name in shown:
        picture = tmp_path / "pages" / name
        assert picture.stat().st_size <= 150_000
        with Image.open(picture) as opened:
            assert opened.width > 300
    log = [line for line in text.splitlines() if f" {run.history['train_loss'][0]:.4f} " in line]
    assert len(log) == 1
    assert log[0].startswith("| 1 | ")
    assert f"{100 * run.metrics['accuracy']:.2f} %" in text
    assert text.count("Answers the source's:") == 4
