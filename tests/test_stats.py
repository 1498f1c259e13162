"""Intervals of means and of shares: how often they cover the truth, and the values of textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sightline.errors import InputError
from sightline.stats import bootstrap_interval, holm, wilson_interval, wilson_intervals


@pytest.mark.parametrize("count", [10, 20, 100])
def test_the_interval_covers_the_truth_as_often_as_it_says(count):
    rng = np.random.default_rng(count)
    low, high = bootstrap_interval(rng.normal(0.3, 1, size=(count, 3000)), resamples=1000)
    covered = ((low <= 0.3) & (high >= 0.3)).mean()
    assert 0.93 < covered < 0.97


def test_the_interval_is_paired_seeded_and_says_nothing_of_a_single_image():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, size=200)  # images differ much more than methods do
    low, high = bootstrap_interval((hard + 1 + rng.normal(0, 0.1, 200)) - hard)
    assert 0.97 < low < 1 < high < 1.03
    again = bootstrap_interval(hard), bootstrap_interval(hard), bootstrap_interval(hard, seed=1)
    assert again[0] == again[1] != again[2]
    assert bootstrap_interval(np.array([3.0])) == (-np.inf, np.inf)
    with pytest.raises(InputError, match="there are no values to take an interval of"):
        bootstrap_interval(np.array([]))


def test_few_values_get_the_width_that_students_t_asks_for():
    values = np.random.default_rng(1).normal(size=5)
    low, high = bootstrap_interval(values, resamples=50_000)
    plain = np.quantile(np.random.default_rng(2).choice(values, (50_000, 5)).mean(1), [0.025, 0.975])
    # Share left out at each end for n = 5: the normal tail beyond 2.7764 * sqrt(5 / 4), 2.7764 being t of 4.
    wide = np.quantile(np.random.default_rng(2).choice(values, (50_000, 5)).mean(1), [0.000954, 1 - 0.000954])
    assert high - low > 1.3 * (plain[1] - plain[0])
    assert (low, high) == pytest.approx(tuple(wide), abs=0.05)


def test_wilson_interval_equals_the_textbook_value():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_interval_solves_the_score_equation():
    z = 1.959963984540054
    for bound in wilson_interval(13, 40):
        assert abs(13 / 40 - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / 40), rel=1e-12)


def test_wilson_interval_of_nothing_is_everything():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_many_wilson_intervals_are_the_single_ones():
    low, high = wilson_intervals([0, 3, 10, 0], [10, 10, 10, 0])
    expected = [wilson_interval(k, n) for k, n in ((0, 10), (3, 10), (10, 10), (0, 0))]
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == expected


def test_holm_is_a_loop_over_the_sorted_p_values():
    rng = np.random.default_rng(7)
    p_values = rng.random(9) ** 3
    highest, expected = 0.0, {}
    for rank, place in enumerate(sorted(range(9), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[place] * (9 - rank)))
        expected[place] = highest
    np.testing.assert_allclose(holm(p_values), [expected[i] for i in range(9)])
    assert holm(np.array([])).tolist() == []
