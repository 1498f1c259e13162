"""Ambiguity, difficulty, confusions and the error budget: against loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from sightline.audit import CAUSES, ambiguity, confusion_pairs, error_budget, sort_by_difficulty, view_spread
from sightline.errors import SightlineError
from sightline.predictions import Predictions, confused_pairs
from sightline.stats import wilson_interval, wilson_intervals


def entropy(row) -> float:
    return -sum(q * np.log(q) for q in row if q > 0)


def test_doubt_is_the_doubt_of_each_view_plus_their_disagreement():
    rng = np.random.default_rng(0)
    views = rng.dirichlet(np.full(4, 0.3), (3, 50)).astype(np.float32)
    views[:, 0] = [1, 0, 0, 0]
    table = view_spread(views)
    for i in range(50):
        mean = views[:, i].astype(float).mean(0)
        ranked = sorted(mean)
        assert table["ambiguity"][i] == pytest.approx(entropy(mean) / np.log(4), abs=1e-9)
        each = np.mean([entropy(view) for view in views[:, i].astype(float)])
        assert table["mean_entropy"][i] == pytest.approx(each / np.log(4), abs=1e-9)
        assert table["margin"][i] == pytest.approx(ranked[-1] - ranked[-2])
        assert table["predicted"][i] == mean.argmax()
        # Mutual information of view and class, from its own definition.
        kl = np.mean(
            [sum(q * np.log(q / m) for q, m in zip(v, mean, strict=True) if q > 0) for v in views[:, i]]
        )
        assert table["disagreement"][i] == pytest.approx(kl / np.log(4), abs=1e-6)
    assert table.loc[0, ["ambiguity", "disagreement"]].tolist() == [0.0, 0.0]
    assert table["ambiguity"].between(0, 1).all()


def test_one_view_disagrees_with_nobody_and_chunks_change_nothing(monkeypatch):
    views = np.random.default_rng(1).dirichlet(np.ones(3), (2, 40))
    assert (view_spread(views[:1])["disagreement"] == 0).all()
    whole = view_spread(views)
    monkeypatch.setattr(ambiguity, "CHUNK", 7)
    assert view_spread(views).equals(whole)


def test_images_are_sorted_by_the_quantiles_that_are_stated():
    confidence = np.array([0.99, 0.95, 0.9, 0.8, 0.4, 0.97, 0.6, 0.5])
    correct = np.array([True, True, True, True, True, False, False, False])
    ambiguity = np.array([0.0, 0.1, 0.2, 0.3, 0.9, 0.1, 0.5, 0.8])
    found = sort_by_difficulty(ambiguity, confidence, correct, ambiguous=0.75, hard=0.25, easy=0.5)
    assert found.ambiguity_from == pytest.approx(0.575)  # 0.5 + .25 (.8 - .5)
    assert np.flatnonzero(found.ambiguous).tolist() == [4, 7]
    assert (found.hard_up_to, found.easy_from) == (0.8, 0.9)
    assert np.flatnonzero(found.hard_but_right).tolist() == [3, 4]
    assert np.flatnonzero(found.easy_but_wrong).tolist() == [5]
    kinds = ["", "", "", "hard but right", "ambiguous", "easy but wrong", "", "ambiguous"]
    assert found.kinds.tolist() == kinds


def test_without_doubt_nothing_is_ambiguous_and_without_a_right_answer_nothing_is_easy():
    found = sort_by_difficulty(np.zeros(4), np.ones(4), [False] * 4)
    assert not found.ambiguous.any()
    assert not found.hard_but_right.any()
    assert found.easy_from == 1.0


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
    assert confusion_pairs(p, most=3).equals(table.iloc[:3])


def test_a_direction_is_told_from_chance_and_perfect_predictions_have_no_pairs():
    logits = np.eye(2)[[1] * 9 + [0] * 91 + [1] * 99 + [0] * 1]
    table = confusion_pairs(Predictions(logits, np.repeat([0, 1], 100), ("a", "b")))
    assert table["p_direction"].tolist() == pytest.approx([2 * 11 / 1024] * 2)  # 9 or more of 10, doubled
    assert len(confusion_pairs(Predictions(np.eye(3), np.arange(3), ("a", "b", "c")))) == 0


def test_many_wilson_intervals_are_the_single_ones():
    low, high = wilson_intervals([0, 3, 10, 0], [10, 10, 10, 0])
    expected = [wilson_interval(k, n) for k, n in ((0, 10), (3, 10), (10, 10), (0, 0))]
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == expected


def test_every_mistake_has_one_primary_cause_and_the_causes_add_up():
    rng = np.random.default_rng(2)
    correct = rng.random(400) < 0.7
    causes = {
        name: rng.random(400) < share for name, share in zip(CAUSES, (0.1, 0.2, 0.3, 0.2, 0.4), strict=True)
    }
    found = error_budget(correct, causes)
    assert found.mistakes == (~correct).sum() == found.table["count"].sum()
    expected = []
    for i in range(400):
        having = [name for name in CAUSES if causes[name][i]]
        expected.append("" if correct[i] else having[0] if having else "unexplained")
    assert found.primary.tolist() == expected
    for row in found.table.itertuples():
        assert row.count == expected.count(row.cause)
        assert row.share == row.count / found.mistakes
        assert (row.interval_low, row.interval_high) == wilson_interval(row.count, found.mistakes)
    for a in CAUSES:
        for b in CAUSES:
            assert found.overlaps.loc[a, b] == (causes[a] & causes[b] & ~correct).sum()
    assert found.table["flagged"].tolist() == np.diag(found.overlaps).tolist()
    assert found.overlaps.loc["unexplained"].drop("unexplained").sum() == 0
    assert found.table["cause"].tolist() == [*CAUSES, "unexplained"]


def test_the_order_of_the_causes_decides():
    both = {"a": [True], "b": [True]}
    assert error_budget([False], both).primary.tolist() == ["a"]
    assert error_budget([False], dict(reversed(both.items()))).primary.tolist() == ["b"]


def test_a_budget_without_mistakes_or_without_causes_is_whole():
    assert error_budget([True, True], {"a": [True, False]}).table["count"].tolist() == [0, 0]
    alone = error_budget([False, True], {})
    assert alone.table[["cause", "count", "share"]].values.tolist() == [["unexplained", 1, 1.0]]


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(SightlineError, match=r"cause 'a' is \(1,\); one value per image is \(2,\)"):
        error_budget([True, False], {"a": [True]})
    with pytest.raises(SightlineError, match="a cause cannot be named '' or 'unexplained'"):
        error_budget([True], {"unexplained": [True]})
    with pytest.raises(SightlineError, match=r"probabilities of views are \(4, 3\); \(V, N, C\) is needed"):
        view_spread(np.zeros((4, 3)))
    with pytest.raises(SightlineError, match=r"quantiles 2, 0.05, 0.5; each is in \[0, 1\]"):
        sort_by_difficulty([0.1], [0.5], [True], ambiguous=2)
