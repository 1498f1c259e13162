"""The metrics against scikit-learn, plain and under weights; intervals against an experiment."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from sightline.predictions import METRICS, Predictions, measure, score_predictions
from sightline.predictions.scores import bootstrap, headline_metrics, measured


def made(*, n: int = 200, classes: int = 6, seed: int = 0, coarse: bool = False) -> Predictions:
    """Predictions of unequal classes that are right about two times in three; coarse ones have ties."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    labels = rng.choice(classes, size=n, p=share)
    logits = rng.normal(size=(n, classes)) + 1.6 * np.eye(classes)[labels]
    return Predictions(logits.round(0 if coarse else 6), labels, tuple(map(str, range(classes))))


def sklearn_says(p: Predictions, w: np.ndarray | None) -> dict[str, float]:
    labels, names = p.labels, np.unique(p.labels)
    f1 = {kind: sk.f1_score(labels, p.predicted, labels=names, average=kind, sample_weight=w, zero_division=0)
          for kind in ("macro", "weighted")}  # fmt: skip
    rest = [labels == c for c in range(len(p.class_names))]
    # scores of the same order as the table's own, where float rounding cannot split a tie
    scores = p.log_probabilities
    kinds = (("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score))
    ranks = {
        name: np.mean([function(own, scores[:, c], sample_weight=w) for c, own in enumerate(rest)])
        for name, function in kinds
    }
    return {
        "accuracy": sk.accuracy_score(labels, p.predicted, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, p.predicted, sample_weight=w),
        "macro_f1": f1["macro"],
        "weighted_f1": f1["weighted"],
        "macro_precision": sk.precision_score(
            labels, p.predicted, labels=names, average="macro", sample_weight=w, zero_division=0
        ),
        "matthews": sk.matthews_corrcoef(labels, p.predicted, sample_weight=w),
        "kappa": sk.cohen_kappa_score(labels, p.predicted, sample_weight=w),
        "loss": sk.log_loss(labels, p.probabilities, sample_weight=w),
        "brier": np.average(((p.probabilities - np.eye(len(rest))[labels]) ** 2).sum(axis=1), weights=w),
        "top_5_accuracy": sk.top_k_accuracy_score(labels, p.logits, k=5, sample_weight=w),
        **ranks,
    }


@pytest.mark.parametrize("coarse", [False, True])
def test_all_metrics_are_those_of_scikit_learn_also_under_weights(coarse):
    p = made(coarse=coarse)
    weights = np.random.default_rng(1).integers(0, 4, size=(3, len(p))).astype(np.float32)
    weights[0] = 1
    found = measured(p, weights)
    for row, w in enumerate(weights):
        for name, value in sklearn_says(p, w).items():
            if name == "top_5_accuracy" and coarse:
                continue  # scikit-learn takes ties in favour of the later class
            assert found[name][row] == pytest.approx(value, abs=1e-6), name
        own = sk.precision_recall_fscore_support(p.labels, p.predicted, sample_weight=w, zero_division=0)
        for name, values in zip(("precision", "recall", "f1"), own, strict=False):
            np.testing.assert_allclose(found[f"class_{name}"][row], values, atol=1e-6)


def test_the_metrics_by_name_are_those_of_the_table():
    p = made()
    found = score_predictions(p, resamples=20).overall
    for name in set(METRICS) & set(found):
        assert measure(p, name) == pytest.approx(found[name].value, abs=1e-6), name
    assert set(found) <= set(METRICS)


def test_a_resample_has_the_class_counts_of_the_split_and_follows_the_seed():
    p = made()
    drawn = bootstrap(p, resamples=60, seed=3)
    again = bootstrap(p, resamples=60, seed=3)
    other = bootstrap(p, resamples=60, seed=4)
    np.testing.assert_array_equal(drawn["macro_f1"], again["macro_f1"])
    assert (drawn["macro_f1"] != other["macro_f1"]).any()
    counts = np.bincount(p.labels)
    # accuracy is the mean of the recalls by the class counts only where these are kept
    np.testing.assert_allclose(drawn["accuracy"], drawn["class_recall"] @ counts / len(p), atol=1e-6)


def test_the_interval_is_the_percentile_of_a_slow_stratified_bootstrap():
    p = made(n=300)
    score = score_predictions(p, resamples=2000).overall["macro_f1"]
    rng, slow = np.random.default_rng(9), []
    for _ in range(600):
        parts = [rng.choice(np.flatnonzero(p.labels == c), (p.labels == c).sum()) for c in range(6)]
        rows = np.concatenate(parts)
        slow.append(sk.f1_score(p.labels[rows], p.predicted[rows], average="macro"))
    assert [score.low, score.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.012)
    assert score.interval == "stratified bootstrap"


def test_what_is_not_defined_is_none_with_the_reason_and_no_warning():
    logits = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score_predictions(Predictions(logits, np.array([0, 0, 0]), ("a", "b", "c")), resamples=20)
    assert found.overall["accuracy"].value == pytest.approx(2 / 3)
    assert found.overall["balanced_accuracy"].value == pytest.approx(2 / 3)
    assert found.overall["roc_auc"].value is None
    assert "of others" in found.overall["roc_auc"].reason
    assert found.overall["matthews"].value is None
    b, c = found.classes[1].scores, found.classes[2].scores
    assert b["recall"].value is None
    assert b["recall"].reason == "no test image has this label"
    assert b["precision"].value == 0
    assert c["precision"].value is None
    assert c["f1"].value is None


def test_shares_have_the_interval_that_the_page_has_elsewhere():
    from sightline.stats import wilson_interval

    p = made()
    found = score_predictions(p, resamples=20)
    right = int(p.correct.sum())
    assert (found.overall["accuracy"].low, found.overall["accuracy"].high) == wilson_interval(right, len(p))
    first = found.classes[0]
    own = p.labels == 0
    expected = wilson_interval(int(p.correct[own].sum()), int(own.sum()))
    assert (first.scores["recall"].low, first.scores["recall"].high) == expected


def test_the_headline_turns_where_a_class_is_more_than_three_times_another():
    assert headline_metrics(np.array([30, 10, 0])) == (("accuracy",), "")
    names, why = headline_metrics(np.array([31, 10]))
    assert names == ("accuracy", "balanced_accuracy")
    assert "31" in why
    assert "10" in why
