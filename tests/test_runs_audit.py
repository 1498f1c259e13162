"""The audit of a run, the loop from its findings to a mended training, and the comparison of two runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import sightline as sl
from sightline.audit import (
    Decision,
    Decisions,
    Evidence,
    confusion_pairs,
    frequent_pairs,
    make_audit,
    read_audit,
    view_spread,
    write_audit,
    write_decisions,
)
from sightline.cli.app import app
from sightline.data import fingerprint
from sightline.errors import SightlineError
from sightline.predictions import Predictions
from sightline.runs import compare_runs, out_of_fold
from sightline.runs.audit_stage import answers_beside

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
    """The same recipe on data with the planted wrong labels mended and two test images dropped."""
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


def test_the_causes_add_up_to_the_mistakes(run):
    audit, wrong = run.audit, ~run.predictions.correct
    assert audit.causes["count"].sum() == wrong.sum()
    counted = audit.test["cause"].value_counts()
    for row in audit.facts["budget"]["causes"]:
        assert row["count"] == counted.get(row["cause"], 0)
    assert (audit.test["cause"] != "").tolist() == wrong.tolist()


def test_the_tables_are_those_of_the_data(run):
    audit, data = run.audit, run.data()
    np.testing.assert_array_equal(audit.test["label"], data.test.labels)
    np.testing.assert_array_equal(audit.train["label"], data.train.labels)
    np.testing.assert_array_equal(audit.arrays["thumbnails"], data.test.images)
    shown = audit.arrays["train_rows"]
    np.testing.assert_array_equal(audit.arrays["train_thumbnails"], data.train.images[shown])
    margins = run.dynamics.margin.astype(np.float64)
    np.testing.assert_allclose(audit.train["aum"], margins.mean(0), rtol=1e-6)
    assert np.isin(audit.arrays["neighbours"], shown).all()
    np.testing.assert_array_equal(audit.arrays["neighbour_rows"], np.flatnonzero(~run.predictions.correct))


def test_the_difficult_images_are_counted_and_the_clearest_come_first(run):
    facts, test, correct = run.audit.facts["difficulty"], run.audit.test, run.predictions.correct
    kinds = {one["kind"]: one for one in facts["kinds"]}
    for kind, one in kinds.items():
        mine = test[test["difficulty"] == kind]
        assert one["count"] == len(mine)
        assert one["wrong"] == (~correct[mine.index]).sum()
        assert set(one["images"]) <= set(mine.index)
    assert (np.diff(test["ambiguity"][kinds["ambiguous"]["images"]]) <= 0).all()
    hard, easy = (test["confidence"][kinds[k]["images"]] for k in ("hard but right", "easy but wrong"))
    assert (np.diff(hard) >= 0).all()
    assert (hard <= facts["hard_up_to"]).all()
    assert (np.diff(easy) <= 0).all()
    assert (easy >= facts["easy_from"]).all()


def test_what_was_planted_is_scored(run):
    truth, audit = run.data().truth, run.audit
    scores = {row["what"]: row["value"] for row in audit.facts["planted"]}
    found = np.flatnonzero(audit.test["twin"] >= 0)
    hits = len(np.intersect1d(found, truth.leaks[:, 0]))
    assert scores["Test images with a twin in training"].startswith(f"{hits} of {len(truth.leaks)} planted")
    assert hits >= 0.8 * len(truth.leaks)
    leaked = {int(test): int(train) for test, train in truth.leaks}
    right = [audit.test["twin"][test] == train for test, train in leaked.items() if test in found]
    assert np.mean(right) == 1


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
        kept = run.audit.arrays[name][wrong].astype(np.float32)
        np.testing.assert_allclose(kept, maps, rtol=2e-3, atol=2e-3 * np.abs(maps).max())


def test_an_audit_needs_no_more_than_predictions(tmp_path):
    rng = np.random.default_rng(0)
    data = sl.load_data("shapes", limit=300)
    logits = rng.normal(size=(len(data.test), 10)).astype(np.float32)
    logits[np.arange(len(data.test)), data.test.labels] += 2
    audit = make_audit(Evidence(data, Predictions(logits, data.test.labels, data.class_names)))
    assert audit.facts["suspects"]["train"] is None
    assert audit.facts["robustness"] is None
    assert "maps_predicted" not in audit.arrays
    write_audit(tmp_path, audit)
    again = read_audit(tmp_path)
    pd.testing.assert_frame_equal(again.test, audit.test)
    assert again.facts == json.loads(json.dumps(audit.facts))
    html = again._repr_html_()
    assert f"{100 * audit.facts['accuracy']['value']:.2f} %" in html


def test_evidence_about_other_data_is_refused():
    data = sl.load_data("shapes", limit=200)
    predictions = Predictions(np.zeros((len(data.test), 10)), data.test.labels, data.class_names)
    with pytest.raises(SightlineError, match="features has 3 rows and the data's split 200"):
        Evidence(data, predictions, features=np.zeros((3, 4)))
    other = Predictions(np.zeros((len(data.test), 10)), (data.test.labels + 1) % 10, data.class_names)
    with pytest.raises(SightlineError, match="predict this very data set"):
        Evidence(data, other)


def test_a_missing_audit_says_how_to_get_one(tmp_path):
    with pytest.raises(SightlineError, match=r"audit.json is not there; 'sightline audit .*' writes it"):
        read_audit(tmp_path)


def test_a_pair_is_frequent_where_chance_would_not_make_it():
    # Class 0 has 40 mistakes, 30 of them as class 1; class 2 has 4, one to each other class but one.
    labels = np.array([0] * 40 + [2] * 4)
    predicted = np.array([1] * 30 + [2, 3, 4, 5, 6] * 2 + [0, 1, 3, 4])
    p = Predictions(np.eye(7)[predicted], labels, tuple("abcdefg"))
    expected = (labels == 0) & (predicted == 1)
    np.testing.assert_array_equal(frequent_pairs(p, confusion_pairs(p)), expected)


def test_fixes_are_done_before_training_and_kept_with_the_run(run, fixed):
    before, after = run.data(), fixed.data()
    truth = before.truth
    np.testing.assert_array_equal(after.train.labels[truth.wrong_labels], truth.true_labels)
    assert len(after.test) == len(before.test) - 2
    assert Path(fixed.recipe.data.fixes) == (fixed.folder / "fixes.json").absolute()
    assert len(fixed.predictions) == len(before.test) - 2
    scores = {row["what"]: row["value"] for row in fixed.audit.facts["planted"]}
    assert "of 0 planted" in scores["Suspicious training labels, from the dynamics of training"]


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


def test_runs_beside_tell_what_is_ambiguous(run, fixed):
    p = run.predictions
    both = answers_beside(run, [run.folder, run])
    np.testing.assert_array_equal(both, [p.probabilities] * 2)
    alone, views = Evidence(run.data(), p), p.probabilities[None]
    opposite = 1 - both[:1]
    beside = make_audit(dataclasses.replace(alone, others=opposite / opposite.sum(2, keepdims=True)))
    expected = view_spread(np.concatenate([views, opposite / opposite.sum(2, keepdims=True)]))
    np.testing.assert_array_equal(beside.test["ambiguity"], expected["ambiguity"])
    assert beside.facts["accuracy"]["views"] is None
    with pytest.raises(SightlineError, match="was tested on other images, labels or classes"):
        answers_beside(run, [fixed])


def test_the_commands_audit_and_compare(run, fixed, tmp_path):
    told = CliRunner().invoke(app, ["audit", str(run.folder), "--json", "--quiet"], catch_exceptions=False)
    facts = json.loads(told.stdout)
    assert facts["budget"]["mistakes"] == (~run.predictions.correct).sum()
    page = tmp_path / "changes.html"
    told = CliRunner().invoke(
        app, ["compare", str(run.folder), str(fixed.folder), "--out", str(page), "--json"]
    )
    numbers = json.loads(told.stdout)
    assert numbers["page"] == str(page)
    assert numbers["accuracy"]["b"] == fixed.predictions.correct.mean()
    told = CliRunner().invoke(app, ["compare", str(run.folder), str(fixed.folder), "--out", str(page)])
    assert "McNemar's p" in told.stdout


def test_folds_judge_every_training_image_without_it(run):
    data = run.data()
    recipe = sl.load_recipe("shapes-quick", [*SMALL, "training.epochs=1", "data.limit=200"])
    few = sl.load_data("shapes", limit=200)
    probabilities = out_of_fold(recipe, few, folds=2, device="cpu")
    assert probabilities.shape == (200, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    with pytest.raises(SightlineError, match="1 folds; the rarest class has"):
        out_of_fold(recipe, data, folds=1, device="cpu")
