"""Conformal sets: order statistics, coverage over many draws, the held-out half."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit import check_conformal, choose_threshold
from sightline.audit.conformal import conformal_sets, conformal_threshold
from sightline.errors import SightlineError


def test_the_conformal_threshold_is_the_order_statistic():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 99)
    labels = rng.integers(0, 4, 99)
    scores = sorted(1 - p[np.arange(99), labels])
    assert conformal_threshold(labels, p, coverage=0.9) == scores[89]  # ceil(100 * .9) = 90
    assert conformal_threshold(labels, p, coverage=0.901) == scores[90]
    assert conformal_threshold(labels[:9], p[:9], coverage=0.7) == sorted(1 - p[np.arange(9), labels[:9]])[6]
    assert conformal_threshold(labels[:5], p[:5], coverage=0.9) == 1.0
    sets = conformal_sets(p, 0.8)
    assert all(sets[i, k] == (1 - p[i, k] <= 0.8) for i in range(99) for k in range(4))


def test_the_mean_coverage_over_many_draws_is_the_wanted_one():
    n, held = 49, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.ones(3), 200)
        labels = rng.integers(0, 3, 200)  # a model that knows nothing is covered all the same
        threshold = conformal_threshold(labels[:n], p[:n], coverage=0.8)
        held.append(conformal_sets(p[n:], threshold)[np.arange(200 - n), labels[n:]].mean())
    assert np.mean(held) == pytest.approx(0.8, abs=0.01)  # 40 / 50 exactly; four standard errors


def test_the_check_counts_the_held_out_half():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(5, 0.3), 800)
    labels = (p.cumsum(1) < rng.random((800, 1))).sum(1)
    found = check_conformal(labels, p, coverage=0.9, seed=3)
    order = np.random.default_rng(3).permutation(800)
    first, second = order[:400], order[400:]
    assert found.threshold == conformal_threshold(labels[first], p[first], coverage=0.9)
    sets = conformal_sets(p[second], found.threshold)
    held = sets[np.arange(400), labels[second]]
    assert found.realised == held.mean()
    assert found.mean_size == sets.sum() / 400
    assert found.single == np.mean([s.sum() == 1 for s in sets])
    assert found.empty == np.mean([s.sum() == 0 for s in sets])
    for k in range(5):
        assert found.per_class[k].realised == pytest.approx(held[labels[second] == k].mean())
    assert sum(one.count for one in found.per_class) == 400
    assert found.interval[0] < found.realised < found.interval[1]


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(SightlineError, match="a wanted coverage of 1; it is a share between 0 and 1"):
        conformal_threshold([0], [[0.5, 0.5]], coverage=1)
    with pytest.raises(SightlineError, match="a wanted error rate of 5; it is a share"):
        choose_threshold([0.5, 0.5], [1, 0], error=5)
    with pytest.raises(SightlineError, match="1 image cannot be halved"):
        choose_threshold([0.5], [1], error=0.1)
    with pytest.raises(SightlineError, match="probabilities hold values outside"):
        check_conformal([0, 1], [[2.0, -1.0], [0.0, 1.0]])
    with pytest.raises(SightlineError, match=r"labels are \(2,\) and probabilities \(1, 2\)"):
        check_conformal([0, 1], [[0.5, 0.5]])
