"""Label issues: against cleanlab, against loops, and against wrong labels that were planted."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from cleanlab.filter import find_label_issues as cleanlab_issues
from cleanlab.rank import get_label_quality_scores

from sightline.audit import find_label_issues
from sightline.audit.ground_truth import precision_recall
from sightline.audit.label_issues import (
    compare_rankings,
    confident_joint,
    confident_thresholds,
    noise_rate_pruning,
    normalized_margin,
    off_diagonal,
    self_confidence,
)
from sightline.errors import SightlineError


def noisy(count: int = 600, *, classes: int = 4, wrong: float = 0.1, seed: int = 0):
    """Labels of which some are wrong, honest probabilities, and which are wrong."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (count, classes))
    truth = rng.integers(0, classes, count)
    logits[np.arange(count), truth] += 4
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = truth.copy()
    planted = rng.choice(count, round(wrong * count), replace=False)
    labels[planted] = (labels[planted] + rng.integers(1, classes, len(planted))) % classes
    return labels, p, np.sort(planted)


@pytest.mark.parametrize(
    ("quality", "name"), [(self_confidence, "self_confidence"), (normalized_margin, "normalized_margin")]
)
def test_the_scores_are_those_of_cleanlab(quality, name):
    labels, p, _ = noisy()
    expected = get_label_quality_scores(labels, p, method=name)
    np.testing.assert_allclose(quality(labels, p), expected, atol=1e-14)
    table = find_label_issues(labels, p, quality=quality)
    np.testing.assert_allclose(table["label_quality"], expected, atol=1e-14)


def test_the_confident_joint_is_that_of_a_loop_from_the_paper():
    labels, p, _ = noisy(wrong=0.2)
    thresholds = [p[labels == k, k].mean() for k in range(4)]
    expected = np.zeros((4, 4), int)
    for label, row in zip(labels, p, strict=True):
        reached = [k for k in range(4) if row[k] >= thresholds[k]]
        if reached:
            expected[label, max(reached, key=lambda k: row[k])] += 1
    np.testing.assert_allclose(confident_thresholds(labels, p), thresholds)
    np.testing.assert_array_equal(confident_joint(labels, p), expected)


def test_confident_learning_finds_what_cleanlab_finds_where_both_are_defined_alike():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.array([0.2, 0.4, 0.9, 1.5]), 800)
        labels = (p.cumsum(1) < rng.random((800, 1))).sum(1)
        ours = off_diagonal(labels, p)
        theirs = cleanlab_issues(labels, p, filter_by="confident_learning", n_jobs=1)
        reached = p >= confident_thresholds(labels, p)
        alike = reached[np.arange(800), p.argmax(1)] | ~reached.any(1)
        assert alike.mean() > 0.8
        np.testing.assert_array_equal(ours[alike], theirs[alike])
        assert ours.any()


def test_pruning_is_cleanlabs_and_its_absence_is_said(monkeypatch):
    labels, p, _ = noisy()
    table = find_label_issues(labels, p, find=noise_rate_pruning)
    np.testing.assert_array_equal(table["flagged"], cleanlab_issues(labels, p, n_jobs=1))
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(SightlineError, match=r"needs cleanlab; pip install 'sightline-vision\[cleanlab\]'"):
        noise_rate_pruning(labels, p)


def test_planted_wrong_labels_are_found_and_the_right_class_is_suggested():
    labels, p, planted = noisy(2000, wrong=0.05)
    table = find_label_issues(labels, p)
    quality = precision_recall(table["index"][table["flagged"]], planted)
    assert quality.precision > 0.95
    assert quality.recall > 0.6  # a class's threshold is its mean: images below it are left to the ranking
    top = table.nsmallest(len(planted), "label_quality")["index"]
    assert precision_recall(top, planted).recall > 0.85
    truth = p.argmax(1)
    assert (table["suggested"][planted] == truth[planted]).mean() > 0.9
    assert (table["suggested"] != table["label"]).all()
    assert ((table["label_quality"] < 0.5) == (p.argmax(1) != labels)).all()
    assert table["label_quality"].between(0, 1).all()


def test_a_class_without_images_is_no_reason_for_doubt():
    labels, p, _ = noisy(classes=3, wrong=0.0)
    wider = np.hstack([p * 0.999, np.full((len(p), 1), 0.001)])
    assert confident_thresholds(labels, wider)[3] == np.inf
    np.testing.assert_array_equal(confident_joint(labels, wider)[:, 3], 0)


def test_the_agreement_of_two_rankings_by_hand():
    found = compare_rankings([-9, -8, -7, 0, 0, 0], [-7, 0, -8, -9, 0, np.nan], top=3)
    assert found.both == (0, 2)  # mean ranks 1 and 1.5
    assert found.jaccard == 0.5
    assert found.expected_by_chance == pytest.approx(1.5 / 4.5)
    rng = np.random.default_rng(0)
    drawn = [compare_rankings(rng.random(300), rng.random(300), top=60) for _ in range(200)]
    assert np.mean([d.jaccard for d in drawn]) == pytest.approx(drawn[0].expected_by_chance, abs=0.01)


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(SightlineError, match="the top 5 of 2 images"):
        compare_rankings([1, 2], [2, 1], top=5)
    with pytest.raises(SightlineError, match=r"the scores are \(2,\) and \(1,\)"):
        compare_rankings([1, 2], [2], top=1)
    with pytest.raises(SightlineError, match=r"labels are float64 from 0\.5 to 1\.0"):
        find_label_issues([0.5, 1.0], [[0.5, 0.5], [0.5, 0.5]])


def test_with_one_class_every_label_fits():
    table = find_label_issues([0, 0], [[1.0], [1.0]])
    assert table[["suggested", "label_quality", "flagged"]].values.tolist() == [[0, 1.0, False]] * 2
