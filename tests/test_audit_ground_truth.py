"""Findings next to what was planted."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from sightline.audit import check_planted
from sightline.audit.ground_truth import average_precision, precision_recall
from sightline.data import load_data
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


def test_wrong_labels_by_margin_stand_next_to_those_by_loss():
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
    assert loss.value != margin.value
    assert margin.value == f"{len(wrong)} of {len(wrong)}, average precision 1.000"
    places = sorted(1 + int((train.loss > train.loss[index]).sum()) for index in wrong)
    precisions = [hits / place for hits, place in enumerate(places, start=1)]
    expected = statistics.fmean(precisions)
    assert margin.expected == f"average precision {expected:.3f} by the largest loss"


def test_precision_and_recall_by_hand():
    assert precision_recall([1, 2, 2, 3], [3, 4]).precision == pytest.approx(1 / 3)
    assert precision_recall([1, 2, 3], [3, 4]).recall == 0.5
    nothing = precision_recall([], [3])
    assert np.isnan(nothing.precision)
    assert nothing.recall == 0.0
