"""Ambiguity and difficulty: against loops, identities and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit import ambiguity
from sightline.audit.ambiguity import describe_difficulty, measure_ambiguity, sort_by_difficulty
from sightline.errors import InputError


def entropy(row) -> float:
    return -sum(q * np.log(q) for q in row if q > 0)


def test_doubt_is_the_doubt_of_each_answer_plus_their_disagreement():
    rng = np.random.default_rng(0)
    answers = rng.dirichlet(np.full(4, 0.3), (3, 50)).astype(np.float32)
    answers[:, 0] = [1, 0, 0, 0]
    table = measure_ambiguity(answers)
    for i in range(50):
        mean = answers[:, i].astype(float).mean(0)
        ranked = sorted(mean)
        assert table["ambiguity"][i] == pytest.approx(entropy(mean) / np.log(4), abs=1e-9)
        each = np.mean([entropy(one) for one in answers[:, i].astype(float)])
        assert table["mean_entropy"][i] == pytest.approx(each / np.log(4), abs=1e-9)
        assert table["margin"][i] == pytest.approx(ranked[-1] - ranked[-2])
        assert table["predicted"][i] == mean.argmax()
        # Mutual information of version and class, from its own definition.
        kl = np.mean(
            [sum(q * np.log(q / m) for q, m in zip(v, mean, strict=True) if q > 0) for v in answers[:, i]]
        )
        assert table["disagreement"][i] == pytest.approx(kl / np.log(4), abs=1e-6)
    assert table.loc[0, ["ambiguity", "disagreement"]].tolist() == [0.0, 0.0]
    assert table["ambiguity"].between(0, 1).all()


def test_one_answer_disagrees_with_nobody_and_chunks_change_nothing(monkeypatch):
    answers = np.random.default_rng(1).dirichlet(np.ones(3), (2, 40))
    assert (measure_ambiguity(answers[:1])["disagreement"] == 0).all()
    whole = measure_ambiguity(answers)
    monkeypatch.setattr(ambiguity, "CHUNK", 7)
    assert measure_ambiguity(answers).equals(whole)


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


def test_with_one_class_there_is_no_doubt():
    table = measure_ambiguity(np.ones((2, 3, 1)))
    assert table[["ambiguity", "disagreement", "margin"]].values.tolist() == [[0.0, 0.0, 1.0]] * 3


def test_the_clearest_images_of_each_kind_come_first():
    confidence = np.array([0.99, 0.3, 0.8, 0.2, 0.97, 0.6])
    correct = np.array([True, True, True, True, False, False])
    ambiguity = np.array([0.0, 0.7, 0.1, 0.2, 0.1, 0.9])
    masks = sort_by_difficulty(ambiguity, confidence, correct, ambiguous=0.7, hard=0.4, easy=0.5)
    found = describe_difficulty(masks, ambiguity, confidence, correct)
    assert [(one.kind, one.count, one.wrong, one.images) for one in found.kinds] == [
        ("ambiguous", 2, 1, (5, 1)),
        ("hard but right", 1, 0, (3,)),
        ("easy but wrong", 1, 1, (4,)),
    ]


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(InputError, match=r"probabilities are \(4, 3\); \(V, N, C\) is needed"):
        measure_ambiguity(np.zeros((4, 3)))
    with pytest.raises(InputError, match=r"quantiles 2, 0.05, 0.5; each is in \[0, 1\]"):
        sort_by_difficulty([0.1], [0.5], [True], ambiguous=2)
