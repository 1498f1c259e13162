"""Selective prediction: areas against loops and identities, guarantees over many draws."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from sightline.audit import choose_threshold, risk_coverage
from sightline.audit.selective import augrc, aurc


def answers(count: int, *, seed: int = 0, levels: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and answers that are right with just that probability; `levels` makes them tie."""
    rng = np.random.default_rng(seed)
    confidence = 1 - rng.random(count) ** 2 / 2
    if levels:
        confidence = np.round(confidence * levels) / levels
    return confidence, rng.random(count) < confidence


def test_every_row_of_the_curve_is_a_count():
    confidence, correct = answers(200, levels=20)
    curve = risk_coverage(confidence, correct)
    assert curve["threshold"].tolist() == sorted(set(confidence), reverse=True)
    for row in curve.itertuples():
        kept = confidence >= row.threshold
        assert (row.accepted, row.errors) == (kept.sum(), (kept & ~correct).sum())
        assert (row.coverage, row.risk) == (kept.mean(), (~correct[kept]).mean())


def test_a_thinned_curve_keeps_rows_of_the_whole_one_and_its_end():
    curve = risk_coverage(*answers(5000))
    thin = risk_coverage(*answers(5000), limit=50)
    assert 40 <= len(thin) <= 50
    assert thin.iloc[-1].equals(curve.iloc[-1])
    assert thin.merge(curve).shape == thin.shape


def test_aurc_is_the_mean_risk_over_all_orders_of_equal_confidences():
    confidence = np.array([0.9, 0.9, 0.9, 0.6, 0.6, 0.2])
    correct = np.array([True, False, True, False, True, False])
    areas = []
    for order in itertools.permutations(range(6)):
        order = sorted(order, key=lambda i: -confidence[i])  # stable: ties stay as permuted
        errors = np.cumsum(~correct[order])
        areas.append(np.mean(errors / np.arange(1, 7)))
    assert aurc(confidence, correct) == pytest.approx(np.mean(areas), abs=1e-12)


def test_aurc_without_ties_is_a_loop():
    confidence, correct = answers(150)
    order = sorted(range(150), key=lambda i: -confidence[i])
    risks = [sum(not correct[i] for i in order[: k + 1]) / (k + 1) for k in range(150)]
    assert aurc(confidence, correct) == pytest.approx(sum(risks) / 150, abs=1e-12)


@pytest.mark.parametrize("levels", [0, 8])
def test_augrc_is_the_identity_of_the_paper(levels):
    confidence, correct = answers(400, levels=levels)
    accuracy, auroc = correct.mean(), roc_auc_score(correct, confidence)
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert augrc(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_the_areas_of_perfect_and_of_no_knowledge():
    correct = np.arange(100) >= 20
    assert aurc(np.full(100, 0.5), correct) == pytest.approx(0.2)
    assert augrc(np.full(100, 0.5), correct) == pytest.approx(0.1)  # half the error rate
    assert augrc(np.linspace(0, 1, 100), correct) == pytest.approx(0.2**2 / 2)
    assert aurc(np.ones(3), [True] * 3) == 0.0


def test_the_areas_do_not_depend_on_the_order_of_the_images():
    confidence, correct = answers(300, levels=10)
    order = np.random.default_rng(0).permutation(300)
    for area in (aurc, augrc):
        assert area(confidence[order], correct[order]) == pytest.approx(area(confidence, correct), abs=1e-14)


def test_the_chosen_threshold_ends_a_sequence_on_its_half_and_is_checked_on_the_other():
    confidence, correct = answers(400)
    found = choose_threshold(confidence, correct, error=0.15, seed=2)
    order = np.random.default_rng(2).permutation(400)
    first, second = order[:200], order[200:]
    fits = []
    for threshold in sorted(confidence[first], reverse=True):  # by the slow way: deal the errors out again
        n = int((confidence[first] >= threshold).sum())
        mine = int((~correct[first][confidence[first] >= threshold]).sum())
        total = mine + int(np.floor(0.15 * n)) + 1
        ways = [comb(total, k) * comb(2 * n - total, n - k) for k in range(mine + 1)]
        fits.append((threshold, sum(ways) / comb(2 * n, n) <= 0.05))
    start = next(place for place, (_, fit) in enumerate(fits) if fit)
    end = next(place for place in range(start, 201) if place == 200 or not fits[place][1])
    assert found.threshold == fits[end - 1][0]
    kept = second[confidence[second] >= found.threshold]
    assert found.coverage == len(kept) / 200
    assert found.error == (~correct[kept]).mean()
    assert found.interval[0] <= found.error <= found.interval[1]
    wrong = (~correct[kept]).sum()
    assert binom.cdf(wrong, len(kept), found.bound) == pytest.approx(0.05)


@pytest.mark.parametrize(("count", "error"), [(500, 0.1), (2000, 0.15)])
def test_the_wanted_error_is_kept_in_nineteen_of_twenty_splits(count, error):
    kept = offered = 0
    for seed in range(200):
        found = choose_threshold(*answers(count, seed=seed), error=error, seed=seed)
        offered += found is not None
        kept += found is None or found.error <= error
    assert offered > 100
    assert kept >= 184  # 190 are expected at least; fewer than 184 has a probability of 0.01


def test_a_bound_is_exceeded_in_at_most_one_of_twenty_draws_and_no_threshold_is_an_answer():
    population = 1 - np.linspace(0, 1, 200_001) ** 2 / 2  # the confidences that `answers` draws from
    exceeded, guaranteed, draws = 0, 0, 300
    for seed in range(draws):
        found = choose_threshold(*answers(600, seed=seed), error=0.16, seed=seed)
        if found is None:
            continue
        truth = (1 - population[population >= found.threshold]).mean()
        exceeded += truth > found.bound
        guaranteed += found.guaranteed
        assert found.guaranteed == (found.bound <= 0.16)
    assert exceeded <= 26  # at most 15 are expected; more than 26 has a probability of 0.003
    assert guaranteed > 5
    assert choose_threshold([0.9, 0.9, 0.8, 0.8], [False] * 4, error=0.2) is None
