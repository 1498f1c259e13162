"""Training dynamics as functions of arrays, against loops written from the papers."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from sightline.audit.training_dynamics import area_under_margin, cartography, forgetting_events
from sightline.errors import SightlineError


@pytest.fixture
def seen() -> np.ndarray:
    """(E, N) bool: some images are left out of some epochs, image 3 of all, image 4 of none."""
    seen = np.random.default_rng(1).random((7, 40)) < 0.8
    seen[:, 3], seen[:, 4] = False, True
    return seen


@pytest.fixture
def margins(seen) -> np.ndarray:
    margins = np.random.default_rng(0).normal(0, 2, (7, 40)).astype(np.float16)
    margins[:, 10:15] -= 8  # never right
    margins[:, 15:20] += 8  # always right
    margins[~seen] = np.nan
    return margins


def by_hand(values: np.ndarray, work) -> list[float]:
    """`work` on the values of each image that are there, in the order of the epochs; NaN for none."""
    columns = [[float(value) for value in column if not math.isnan(value)] for column in values.T]
    return [work(column) if column else math.nan for column in columns]


def test_the_area_under_the_margin_is_the_mean_over_the_epochs_that_saw_the_image(margins):
    expected = by_hand(margins, statistics.fmean)
    np.testing.assert_allclose(area_under_margin(margins), expected, rtol=1e-12)
    assert math.isnan(expected[3])


def test_an_image_is_forgotten_each_time_it_was_right_and_is_then_wrong(margins):
    def count(column):
        if not any(margin > 0 for margin in column):
            return math.inf
        events, before = 0, False
        for margin in column:
            now = margin > 0
            events += before and not now
            before = now
        return events

    correct = np.where(np.isnan(margins), np.nan, margins > 0)
    found = forgetting_events(correct)
    np.testing.assert_array_equal(found, by_hand(margins, count))
    assert np.isinf(found[10:15]).all()
    assert {0.0, 1.0, 2.0} <= set(found)
    bools = np.array([[True, False], [False, True], [True, True], [False, True]])
    assert forgetting_events(bools).tolist() == [2, 0]


def test_the_map_of_the_data_is_mean_spread_and_share_of_right_epochs(margins, seen):
    probabilities = np.random.default_rng(2).random((7, 40)).astype(np.float16)
    probabilities[~seen] = np.nan
    found = cartography(probabilities, np.where(seen, margins > 0, np.nan))
    np.testing.assert_allclose(found["mean"], by_hand(probabilities, statistics.fmean), rtol=1e-12)
    np.testing.assert_allclose(found["spread"], by_hand(probabilities, statistics.pstdev), rtol=1e-9)
    shares = by_hand(margins, lambda column: statistics.fmean(margin > 0 for margin in column))
    np.testing.assert_allclose(found["correctness"], shares, rtol=1e-12)


def test_dynamics_of_no_epoch_are_an_error():
    with pytest.raises(SightlineError, match=r"training dynamics are \(0, 5\); an array \(epochs, images\)"):
        area_under_margin(np.empty((0, 5)))
    with pytest.raises(SightlineError, match=r"training dynamics are \(5,\)"):
        forgetting_events(np.ones(5))
