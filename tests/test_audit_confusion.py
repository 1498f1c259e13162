"""Confused pairs: against loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from sightline.audit.confusion import confusion_pairs, describe_pairs, frequent_pairs
from sightline.predictions import Predictions, confused_pairs
from sightline.stats import wilson_interval


def test_pairs_have_the_numbers_of_a_loop():
    rng = np.random.default_rng(4)
    labels = rng.choice(4, 300, p=[0.4, 0.3, 0.2, 0.1])
    p = Predictions(rng.normal(0, 1, (300, 4)), labels, ("ant", "bee", "cat", "dog"))
    table = confusion_pairs(p)
    totals = np.bincount(labels)
    for row in table.itertuples():
        mine = (labels == row.true) & (p.predicted == row.predicted)
        back = int(((labels == row.predicted) & (p.predicted == row.true)).sum())
        assert (row.count, row.reverse) == (mine.sum(), back)
        assert row.median_loss == pytest.approx(np.median(p.loss[mine]))
        assert row.share == mine.sum() / totals[row.true]
        assert (row.interval_low, row.interval_high) == wilson_interval(
            int(mine.sum()), int(totals[row.true])
        )
        share = totals[row.true] / (totals[row.true] + totals[row.predicted])
        tails = [
            binomtest(row.count, row.count + back, share, alternative=a).pvalue for a in ("less", "greater")
        ]
        assert row.p_direction == pytest.approx(min(1, 2 * min(tails)))
    assert table["count"].sum() == (~p.correct).sum()
    named = confused_pairs(p, limit=None)
    assert named["true"].tolist() == [p.class_names[k] for k in table["true"]]
    assert named["count"].tolist() == table["count"].tolist()
    assert confusion_pairs(p, limit=3).equals(table.iloc[:3])


def test_a_direction_is_told_from_chance_and_perfect_predictions_have_no_pairs():
    logits = np.eye(2)[[1] * 9 + [0] * 91 + [1] * 99 + [0] * 1]
    table = confusion_pairs(Predictions(logits, np.repeat([0, 1], 100), ("a", "b")))
    assert table["p_direction"].tolist() == pytest.approx([2 * 11 / 1024] * 2)  # 9 or more of 10, doubled
    assert len(confusion_pairs(Predictions(np.eye(3), np.arange(3), ("a", "b", "c")))) == 0


def test_a_pair_is_frequent_where_chance_would_not_make_it():
    # Class 0 has 40 mistakes, 30 of them as class 1; class 2 has 4, one to each other class but one.
    labels = np.array([0] * 40 + [2] * 4)
    predicted = np.array([1] * 30 + [2, 3, 4, 5, 6] * 2 + [0, 1, 3, 4])
    p = Predictions(np.eye(7)[predicted], labels, tuple("abcdefg"))
    expected = (labels == 0) & (predicted == 1)
    np.testing.assert_array_equal(frequent_pairs(p, confusion_pairs(p)), expected)
    named = describe_pairs(confusion_pairs(p))
    assert (named[0].true, named[0].predicted, named[0].count, named[0].share) == (0, 1, 30, 0.75)
    assert named[0].interval == wilson_interval(30, 40)
