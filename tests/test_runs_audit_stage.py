"""The audit of a run, the loop from its findings to a corrected training, and the comparison of two runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import sightline as sl
from sightline.audit import Decision, Decisions, write_decisions
from sightline.cli.app import app
from sightline.data import fingerprint
from sightline.errors import InputError, SightlineError
from sightline.runs import compare_runs, out_of_fold
from sightline.runs.audit_stage import other_answers, recipe_of_folds, thumbnails

SMALL = (
    "model.options={widths=[8, 16, 16]}",
    "training.epochs=3",
    "training.precision=float32",
    "data.limit=600",
    "analysis.range_test=false",
    "analysis.compare_images=0",
    "analysis.mistakes=2",
    "analysis.correct=1",
    "analysis.samples=0",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited") / "first"
    return sl.run("shapes-quick", changes=SMALL, out=folder, device="cpu", verbose=False)


@pytest.fixture(scope="module")
def fixed(run, tmp_path_factory):
    """The same recipe on data with the planted wrong labels corrected and two test images dropped."""
    folder, data = tmp_path_factory.mktemp("fixed"), run.data()
    truth = data.truth
    decisions = [
        Decision("train", int(i), "relabel", data.class_names[k])
        for i, k in zip(truth.wrong_labels, truth.true_labels, strict=True)
    ]
    decisions += [Decision("test", 0, "drop"), Decision("test", 7, "drop")]
    decisions += [Decision("test", 3, "relabel", data.class_names[(data.test.labels[3] + 1) % 10])]
    write_decisions(folder / "mine.json", Decisions(fingerprint(data), tuple(decisions)))
    changes = [*SMALL, f'data.fixes="{folder / "mine.json"}"']
    return sl.run("shapes-quick", changes=changes, out=folder / "second", device="cpu", verbose=False)


def gallery(run) -> dict[str, np.ndarray]:
    with np.load(run.folder / "gallery.npz") as file:
        return {name: file[name] for name in file.files}


def test_the_tables_are_those_of_the_data(run):
    audit, data = run.audit, run.data()
    np.testing.assert_array_equal(audit.test["label"], data.test.labels)
    np.testing.assert_array_equal(audit.train["label"], data.train.labels)
    pictures = gallery(run)
    np.testing.assert_array_equal(pictures["thumbnails"], data.test.images)
    shown = pictures["train_rows"]
    np.testing.assert_array_equal(pictures["train_thumbnails"], data.train.images[shown])
    assert (np.diff(shown) > 0).all()
    margins = run.dynamics.margin.astype(np.float64)
    np.testing.assert_allclose(audit.train["aum"], margins.mean(0), rtol=1e-6)
    assert np.isin(audit.neighbors.indices, shown).all()
    np.testing.assert_array_equal(audit.neighbors.rows, np.flatnonzero(~run.predictions.correct))
    named = audit.test["near_duplicate"].to_numpy()
    assert np.isin(named[named >= 0], shown).all()
    worst = audit.table("train_label_issues")["index"].head(1000)
    assert np.isin(worst, shown).all()


def test_the_difficult_images_are_counted_and_the_clearest_come_first(run):
    found, test, correct = run.audit.difficulty, run.audit.test, run.predictions.correct
    images = {one.kind: list(one.images) for one in found.kinds}
    for one in found.kinds:
        mine = test[test["difficulty"] == one.kind]
        assert one.count == len(mine)
        assert one.wrong == (~correct[mine.index]).sum()
        assert set(one.images) <= set(mine.index)
    assert (np.diff(test["ambiguity"][images["ambiguous"]]) <= 0).all()
    hard, easy = (test["confidence"][images[kind]] for kind in ("hard but right", "easy but wrong"))
    assert (np.diff(hard) >= 0).all()
    assert (hard <= found.hard_up_to).all()
    assert (np.diff(easy) <= 0).all()
    assert (easy >= found.easy_from).all()


def test_maps_of_the_true_class_are_those_of_explain(run):
    wrong = np.flatnonzero(~run.predictions.correct)[:3]
    card = json.loads((run.folder / "explanations.json").read_text())
    images = sl.to_float(run.data().test.images[wrong])
    for name, classes in (
        ("maps_predicted", run.predictions.predicted),
        ("maps_true", run.predictions.labels),
    ):
        how = {"method": card["name"], "layer": card["main_layer"]}
        maps = sl.explain(run.model(), images, classes[wrong], **how).maps
        kept = gallery(run)[name][wrong].astype(np.float32)
        np.testing.assert_allclose(kept, maps, rtol=2e-3, atol=2e-3 * np.abs(maps).max())


def test_fixes_are_done_before_training_and_kept_with_the_run(run, fixed):
    before, after = run.data(), fixed.data()
    truth = before.truth
    np.testing.assert_array_equal(after.train.labels[truth.wrong_labels], truth.true_labels)
    assert len(after.test) == len(before.test) - 2
    assert Path(fixed.recipe.data.fixes) == (fixed.folder / "fixes.json").absolute()
    assert len(fixed.predictions) == len(before.test) - 2
    scores = {one.what: one.value for one in fixed.audit.ground_truth}
    assert scores["Flagged training labels"].startswith(("none listed, 0 planted", "0 listed"))


def test_a_comparison_is_of_the_images_that_both_have(run, fixed, tmp_path):
    found = compare_runs(run, fixed, tmp_path / "page.html")
    kept = np.delete(np.arange(len(run.predictions)), [0, 7])
    labels = fixed.predictions.labels
    a = run.predictions.predicted[kept] == labels
    b = fixed.predictions.correct
    np.testing.assert_array_equal(found.fixed, np.flatnonzero(~a & b))
    np.testing.assert_array_equal(found.broken, np.flatnonzero(a & ~b))
    assert found.accuracy_a == a.mean()
    assert found.accuracy_b == b.mean()
    assert "fixed" in (tmp_path / "page.html").read_text()


def test_runs_on_other_data_are_not_compared(run, tmp_path):
    other = sl.run(
        "shapes-quick",
        changes=[*SMALL, "data.seed=5", "training.epochs=1", "analysis.audit=false"],
        out=tmp_path / "other",
        device="cpu",
        verbose=False,
    )
    with pytest.raises(SightlineError, match="were tested on other images, labels or classes"):
        compare_runs(run, other, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_other_runs_have_to_be_of_the_same_images(run, fixed):
    p = run.predictions
    np.testing.assert_array_equal(other_answers(run, [run.folder, run]), [p.probabilities] * 2)
    with pytest.raises(InputError, match="was tested on other images, labels or classes"):
        other_answers(run, [fixed])


def test_the_commands_audit_and_compare(run, fixed, tmp_path):
    done = CliRunner().invoke(app, ["audit", str(run.folder), "--json", "--quiet"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert result["error_budget"]["mistakes"] == (~run.predictions.correct).sum()
    page = tmp_path / "changes.html"
    done = CliRunner().invoke(
        app, ["compare", str(run.folder), str(fixed.folder), "--out", str(page), "--json"]
    )
    numbers = json.loads(done.stdout)
    assert numbers["page"] == str(page)
    assert numbers["accuracy"]["b"] == fixed.predictions.correct.mean()
    done = CliRunner().invoke(app, ["compare", str(run.folder), str(fixed.folder), "--out", str(page)])
    assert "McNemar's p" in done.stdout


def test_folds_judge_every_training_image_without_it(run):
    data = run.data()
    recipe = sl.load_recipe("shapes-quick", [*SMALL, "training.epochs=1", "data.limit=200"])
    few = sl.load_data("shapes", limit=200)
    probabilities = out_of_fold(recipe, few, folds=2, device="cpu")
    assert probabilities.shape == (200, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    with pytest.raises(InputError, match="1 folds; the rarest class has"):
        out_of_fold(recipe, data, folds=1, device="cpu")


def test_folds_are_trained_by_the_runs_own_recipe_or_a_named_one_on_its_data(run):
    assert recipe_of_folds(run.recipe, None) is run.recipe
    named = recipe_of_folds(run.recipe, "cifar10-quick")
    assert (named.name, named.model.name) == ("cifar10-quick", "speednet")
    assert named.data == run.recipe.data


def test_thumbnails_are_the_means_of_blocks_and_small_images_stay_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (3, 130, 70, 3), dtype=np.uint8)
    small = thumbnails(images)
    assert small.shape == (3, 43, 23, 3)
    for index, y, x in ((0, 0, 0), (1, 20, 11), (2, 42, 22)):
        block = images[index, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].astype(float)
        np.testing.assert_array_equal(small[index, y, x], block.mean((0, 1)).round())
    np.testing.assert_array_equal(thumbnails(images[:, :64, :64]), images[:, :64, :64])
