"""Training dynamics as functions of arrays, against loops written from the papers."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from sightline.audit import (
    area_under_margin,
    average_precision,
    cartography,
    check_planted,
    forgetting_events,
    rank_by_dynamics,
)
from sightline.data import load_data
from sightline.errors import SightlineError
from sightline.predictions import Predictions


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


def test_the_ranking_holds_every_image_that_was_seen_with_its_own_values(margins, seen):
    probabilities = np.where(seen, 0.25, np.nan)
    table = rank_by_dynamics(margins, probabilities)
    assert sorted(table["index"]) == [index for index in range(40) if index != 3]
    assert table["aum"].is_monotonic_increasing
    assert set(table["index"][:5]) == set(range(10, 15))
    np.testing.assert_array_equal(table["aum"], area_under_margin(margins)[table["index"]])
    assert (table["p_mean"] == 0.25).all()
    assert (table["p_std"] == 0).all()
    shares = np.nanmean(np.where(seen, margins > 0, np.nan)[:, table["index"]], axis=0)
    np.testing.assert_allclose(table["correctness"], shares)


def test_average_precision_is_the_mean_of_the_precisions_where_something_is_found():
    rng = np.random.default_rng(0)
    order, wanted = rng.permutation(50), rng.choice(50, 7, replace=False)
    precisions, hits = [], 0
    for place, index in enumerate(order, start=1):
        if index in wanted:
            hits += 1
            precisions.append(hits / place)
    assert average_precision(order, wanted) == pytest.approx(sum(precisions) / 7)
    assert average_precision(np.arange(9), np.arange(4)) == 1
    assert math.isnan(average_precision(order, np.array([], int)))


def test_wrong_labels_by_margin_stand_beside_those_by_loss():
    data = load_data("shapes", limit=200)
    truth, count = data.truth, len(data.train)
    wrong = truth.wrong_labels
    logits = np.random.default_rng(0).normal(size=(count, 10))
    train = Predictions(logits, data.train.labels, data.class_names)
    test = Predictions(np.eye(10)[data.test.labels] * 4.0, data.test.labels, data.class_names)
    margins = np.full((3, count), 2.0)
    margins[:, wrong] = -1.0  # in every epoch
    margins[:, next(index for index in range(count) if index not in wrong)] = np.nan  # held out
    loss, margin = check_planted(truth, train, test, truth.test_masks.astype(float), margins)[:2]
    assert loss["value"] != margin["value"]
    assert margin["value"] == f"{len(wrong)} of {len(wrong)}, average precision 1.000"
    places = sorted(1 + int((train.loss > train.loss[index]).sum()) for index in wrong)
    precisions = [hits / place for hits, place in enumerate(places, start=1)]
    expected = statistics.fmean(precisions)
    assert margin["expected"] == f"average precision {expected:.3f} by the largest loss"


def test_dynamics_of_no_epoch_are_an_error():
    with pytest.raises(SightlineError, match=r"training dynamics are \(0, 5\); an array \(epochs, images\)"):
        area_under_margin(np.empty((0, 5)))
    with pytest.raises(SightlineError, match=r"training dynamics are \(5,\)"):
        forgetting_events(np.ones(5))
