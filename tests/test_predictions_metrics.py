"""Metrics, ranking, confusion and confused pairs, each against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics

from sightline.errors import InputError, UntrustedError
from sightline.predictions import (
    METRICS,
    Predictions,
    accuracy,
    accuracy_per_class,
    confused_pairs,
    confusion,
    measure,
    rank_mistakes,
)

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def some() -> Predictions:
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 3, (60, 4)).astype(np.float32)
    return Predictions(logits, generator.integers(0, 4, 60), NAMES)


def test_mistakes_stand_in_descending_order_of_loss_with_their_place_in_the_data(some):
    ranked = rank_mistakes(some)
    wrong = [i for i in range(len(some)) if some.predicted[i] != some.labels[i]]
    assert ranked["index"].tolist() == sorted(wrong, key=lambda i: -some.loss[i])
    assert (ranked["loss"].diff().dropna() <= 0).all()
    assert rank_mistakes(some, limit=3)["index"].tolist() == ranked["index"].tolist()[:3]


def test_no_mistakes_give_empty_tables():
    perfect = Predictions(np.eye(3), np.arange(3), ("a", "b", "c"))
    assert len(rank_mistakes(perfect)) == 0
    assert len(confused_pairs(perfect)) == 0
    assert accuracy(perfect) == 1.0


def test_confusion_counts_every_image_once(some):
    matrix = confusion(some.labels, some.predicted, 4)
    for true in range(4):
        for guess in range(4):
            assert matrix[true, guess] == sum((some.labels == true) & (some.predicted == guess))
    shares = accuracy_per_class(matrix)
    for k in range(4):
        assert shares[k] == pytest.approx(some.correct[some.labels == k].mean())


def test_a_class_without_images_has_no_accuracy():
    assert np.isnan(accuracy_per_class(np.array([[2, 0], [0, 0]]))[1])


def test_confused_pairs_by_hand():
    logits = np.log(np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1], [0.3, 0.7]]))
    pairs = confused_pairs(Predictions(logits, np.array([0, 0, 1, 1]), ("a", "b")))
    assert pairs[["true", "predicted", "count"]].values.tolist() == [["a", "b", 2], ["b", "a", 1]]
    np.testing.assert_allclose(pairs["share"], [1.0, 0.5])
    np.testing.assert_allclose(pairs["median_loss"], [-(math.log(0.2) + math.log(0.4)) / 2, -math.log(0.1)])


def test_metrics_are_those_of_scikit_learn(some):
    assert measure(some, "accuracy") == sklearn.metrics.accuracy_score(some.labels, some.predicted)
    balanced = sklearn.metrics.balanced_accuracy_score(some.labels, some.predicted)
    assert measure(some, "balanced_accuracy") == pytest.approx(balanced, rel=1e-12)
    loss = sklearn.metrics.log_loss(some.labels, some.probabilities)
    assert measure(some, "loss") == pytest.approx(loss, rel=1e-9)


def test_a_metric_is_any_function_of_predictions(some):
    assert set(METRICS) == {
        "accuracy", "balanced_accuracy", "loss", "macro_precision", "macro_f1", "weighted_f1", "matthews",
        "kappa", "brier", "top_2_accuracy", "top_5_accuracy", "roc_auc", "average_precision",
    }  # fmt: skip
    assert measure(some, lambda predictions: predictions.margin.min()) == some.margin.min()
    assert measure(some, "sightline.predictions.metrics:mean_loss") == measure(some, "loss")
    with pytest.raises(InputError, match=r"metric 'acuracy' is not known; did you mean 'accuracy'"):
        measure(some, "acuracy")
    with pytest.raises(UntrustedError, match="--trust sightline"):
        measure(some, "sightline.predictions.metrics:mean_loss", trust=())
    with pytest.raises(InputError, match="returned list; it has to return one number"):
        measure(some, lambda predictions: [1.0])
