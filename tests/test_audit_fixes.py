"""Fixes and their gains, by hand, and the comparison of two models."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score

from sightline.audit import (
    CrossFit,
    Fix,
    Gain,
    Rejection,
    collect_for_pair,
    collect_for_slice,
    compare_predictions,
    confusion_pairs,
    cross_fit_temperature,
    drop_copies,
    drop_twins,
    rank_fixes,
    relabel_test,
    relabel_train,
    use_temperature,
    use_threshold,
)
from sightline.errors import SightlineError
from sightline.predictions import Predictions
from sightline.stats import wilson_interval

SUSPECTS = pd.DataFrame(
    {"index": range(10), "suspicion": [0.1, 0.9, 0.2, 0.7, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1], "issue": False}
)
SUSPECTS.loc[[1, 3, 4], "issue"] = True
CROSS_FIT = CrossFit(1.5, (1.4, 1.6), 0.4, 0.35, 0.06, 0.02, (0.03, 0.05))


def test_relabelling_test_images_gains_at_most_the_flagged_mistakes():
    correct = np.ones(10, bool)
    correct[[1, 4, 7]] = False
    fix = relabel_test(SUSPECTS, correct, confirmed=0.5)
    assert fix.images == (1, 3, 4)  # most suspicious first, equal ones in data order
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == (10.0, 0.0, 20.0)
    assert "2 of them count as mistakes now" in fix.why
    assert relabel_test(SUSPECTS.assign(issue=False), correct) is None


def test_what_training_labels_gain_is_not_claimed():
    fix = relabel_train(SUSPECTS, evidence="their margin stayed negative")
    assert fix.gain is None
    assert fix.title == "Check the labels of 3 training images"
    assert "30.0 % of the training labels are suspicious: their margin stayed negative" in fix.why
    assert "--fixes fixes.json" in fix.how
    copies = drop_copies([5], total=200)
    assert (copies.title, copies.gain) == ("Drop 1 training image: near-duplicates of others", None)
    assert copies.why.startswith("0.5 % of the training images")
    assert drop_copies([], total=200) is None


def test_dropping_twins_states_what_they_had_added():
    correct = np.array([True] * 8 + [False] * 2 + [True] * 10)
    leaked = np.arange(20) >= 10
    fix = drop_twins(correct, leaked)
    low, high = wilson_interval(8, 10)
    assert fix.gain.value == pytest.approx(80 - 90)
    assert (fix.gain.low, fix.gain.high) == pytest.approx((100 * low - 90, 100 * high - 90))
    assert fix.images == tuple(range(10, 20))
    assert drop_twins(correct, np.zeros(20, bool)) is None


def test_a_slice_gains_what_it_is_worse_than_the_rest():
    fix = collect_for_slice(
        "dark cats", np.arange(40), wrong=20, rest=0.1, total=1000, evidence="All are dark."
    )
    low, high = wilson_interval(20, 40)
    assert fix.gain.value == pytest.approx(100 * 0.04 * 0.4)
    assert (fix.gain.low, fix.gain.high) == pytest.approx((4 * (low - 0.1), 4 * (high - 0.1)))
    assert "50.0 % of these 40 test images are wrong, against 10.0 % of the others. All are dark." in fix.why
    harmless = collect_for_slice("x", np.arange(40), wrong=5, rest=0.1, total=1000)
    assert harmless.gain.low == 0.0
    short = collect_for_slice("x", [1], wrong=1, rest=0.1, total=9, shortcut=True)
    assert short.title == "Break the shortcut: x"


def test_a_pair_gains_what_it_has_beyond_its_class():
    predicted = [1] * 6 + [2] * 2 + [0] * 12 + [1] * 19 + [0]
    labels = [0] * 20 + [1] * 20
    p = Predictions(np.eye(4)[predicted], np.array(labels), ("ant", "bee", "cat", "dog"))
    pairs = confusion_pairs(p)
    fix = collect_for_pair(pairs, 0, p.class_names, images=np.arange(6), total=40)
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == (
        100 * (6 - 2) / 40,
        0.0,
        15.0,
    )  # middle of 6, 2, 0
    assert "“ant” is taken for “bee” 6 times, in 30.0 % of its images" in fix.why
    assert "the other way round once" in fix.why


def test_the_temperature_is_proposed_only_where_it_clearly_helps():
    fix = use_temperature(CROSS_FIT)
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == pytest.approx((4.0, 3.0, 5.0))
    assert "too sure" in fix.why
    assert "softmax(logits / 1.5000)" in fix.how
    unclear = CrossFit(1.1, (1.0, 1.2), 0.4, 0.4, 0.02, 0.015, (-0.001, 0.01))
    assert use_temperature(unclear) is None
    faultless = cross_fit_temperature(np.eye(2)[[0, 1] * 10], [0, 1] * 10)
    assert faultless.gain[0] > 0
    assert use_temperature(faultless) is None


def test_the_threshold_states_its_price():
    rejection = Rejection(0.05, 0.8, 0.7, 0.04, (0.02, 0.08), 0.075, False)
    fix = use_threshold(rejection, np.arange(10) >= 1)
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == pytest.approx((6.0, 2.0, 8.0))
    assert "70.0 %" in fix.gain.unit
    assert "not guaranteed: up to 7.5 %" in fix.why
    assert use_threshold(rejection, np.ones(10)) is None


def test_fixes_stand_in_the_stated_order_and_go_to_json():
    def fix(kind: str, value: float | None, images: int = 0, split: str = "test") -> Fix:
        gain = None if value is None else Gain(value, 0.0, 9.0, "points")
        return Fix(kind, f"{kind} {value}", "why", gain, tuple(range(images)), split, "how")

    given = [
        fix("threshold", 9.0),
        fix("collect", 1.0),
        None,
        fix("relabel", None, 80, "train"),  # touches 2 % of its split
        fix("collect", 3.0),
        fix("drop", -2.5),
        fix("temperature", 4.0),
        fix("relabel", 0.5),
    ]
    ranked = rank_fixes(given, {"train": 4000, "test": 1000})
    assert [f.title for f in ranked] == [
        "drop -2.5", "relabel None", "relabel 0.5", "collect 3.0", "collect 1.0",
        "threshold 9.0", "temperature 4.0",
    ]  # fmt: skip
    row = json.loads(json.dumps(ranked[0].to_dict()))
    assert row["gain"] == {"value": -2.5, "low": 0.0, "high": 9.0, "unit": "points"}
    assert set(row) == {"kind", "title", "why", "gain", "images", "split", "how"}


def two_models(count: int = 400):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3)) + 2 * np.eye(3)[labels]
    names = ("ant", "bee", "cat")
    better = logits + rng.normal(0, 0.6, (count, 3)) + 0.6 * np.eye(3)[labels]
    return Predictions(logits, labels, names), Predictions(better, labels, names)


def test_two_models_are_compared_image_by_image():
    a, b = two_models()
    found = compare_predictions(a, b)
    for i in range(400):
        kind = [
            name
            for name, holds in (
                ("fixed", a.predicted[i] != a.labels[i] == b.predicted[i]),
                ("broken", a.predicted[i] == a.labels[i] != b.predicted[i]),
                ("churned", len({a.predicted[i], b.predicted[i], a.labels[i]}) == 3),
            )
            if holds
        ]
        assert [name for name in ("fixed", "broken", "churned") if i in getattr(found, name)] == kind
        assert bool(kind) == (a.predicted[i] != b.predicted[i])
    assert found.accuracy_a == accuracy_score(a.labels, a.predicted)
    assert found.difference == pytest.approx(found.accuracy_b - found.accuracy_a)
    gained, lost = len(found.fixed), len(found.broken)
    assert found.p == pytest.approx(binomtest(gained, gained + lost).pvalue)
    assert found.interval[0] < found.difference < found.interval[1]
    for k, row in found.per_class.iterrows():
        mine = a.labels == k
        assert row["a"] == a.correct[mine].mean()
        assert row["difference"] == pytest.approx(b.correct[mine].mean() - a.correct[mine].mean())
    assert found.per_class["fixed"].sum() == gained
    assert json.loads(json.dumps(found.to_dict()))["mcnemar"] == {"b": lost, "c": gained, "p": found.p}


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says():
    held, rng = 0, np.random.default_rng(3)
    for _ in range(400):  # right under both, fixed, broken, wrong under both
        cells = rng.choice(4, 120, p=[0.7, 0.12, 0.06, 0.12])
        labels = np.zeros(120, int)
        a, b = (
            Predictions(np.eye(2)[np.isin(cells, wrong).astype(int)], labels, ("x", "y"))
            for wrong in ((1, 3), (2, 3))
        )
        low, high = compare_predictions(a, b).interval
        held += low <= 0.06 <= high
    assert 365 <= held <= 398  # 380 expected


def test_the_same_model_is_no_better_and_an_absent_class_has_no_share():
    a, _ = two_models()
    found = compare_predictions(a, a)
    assert (found.difference, found.p, len(found.churned)) == (0.0, 1.0, 0)
    wider = Predictions(np.hstack([a.logits, np.full((400, 1), -9.0)]), a.labels, (*a.class_names, "dog"))
    row = compare_predictions(wider, wider).to_dict()["per_class"][3]
    assert (row["label"], row["count"], row["a"], row["interval_low"]) == ("dog", 0, None, None)


def test_models_of_other_images_are_not_compared():
    a, b = two_models()
    with pytest.raises(
        SightlineError, match="400 and 100 images; compare both models on the same test split"
    ):
        compare_predictions(a, two_models(100)[1])
    moved = Predictions(b.logits, (b.labels + (np.arange(400) < 5)) % 3, b.class_names)
    with pytest.raises(SightlineError, match="the labels of 5 of 400 images differ"):
        compare_predictions(a, moved)
    with pytest.raises(
        SightlineError, match=re.escape("the classes differ: ant, bee, cat ... and x, y, z ...;")
    ):
        compare_predictions(a, Predictions(b.logits, b.labels, ("x", "y", "z")))
