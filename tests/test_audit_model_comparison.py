"""Two models on the same images: against loops, scikit-learn and by how often intervals hold."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score

from sightline.audit import compare_predictions
from sightline.errors import SightlineError
from sightline.predictions import Predictions


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
