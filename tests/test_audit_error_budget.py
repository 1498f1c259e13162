"""The error budget: every mistake has one cause, and the causes add up."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit.error_budget import assign_causes
from sightline.audit.result import Cause
from sightline.errors import InputError
from sightline.stats import wilson_interval

CAUSES = list(Cause)[:-1]


def test_every_mistake_has_one_primary_cause_and_the_causes_add_up():
    rng = np.random.default_rng(2)
    correct = rng.random(400) < 0.7
    causes = {
        name: rng.random(400) < share for name, share in zip(CAUSES, (0.1, 0.2, 0.3, 0.2, 0.4), strict=True)
    }
    primary, found = assign_causes(correct, causes)
    assert found.mistakes == (~correct).sum() == sum(one.count for one in found.causes)
    expected = []
    for i in range(400):
        having = [name for name in CAUSES if causes[name][i]]
        expected.append("" if correct[i] else having[0] if having else "unexplained")
    assert primary.tolist() == expected
    for one in found.causes:
        assert one.count == expected.count(one.cause)
        assert one.share == one.count / found.mistakes
        assert one.interval == wilson_interval(one.count, found.mistakes)
    for one in found.causes[:-1]:
        assert one.flagged == (causes[one.cause] & ~correct).sum()
        together = {
            b: int((causes[one.cause] & causes[b] & ~correct).sum()) for b in CAUSES if b != one.cause
        }
        assert one.overlaps == {name: count for name, count in together.items() if count}
    assert found.causes[-1].overlaps == {}
    assert found.causes[-1].flagged == found.causes[-1].count
    assert [one.cause for one in found.causes] == [*CAUSES, "unexplained"]


def test_the_order_of_the_causes_decides():
    both = {Cause.AMBIGUOUS: [True], Cause.LABEL_ISSUE: [True]}
    assert assign_causes([False], both)[0].tolist() == ["label issue"]
    assert assign_causes([False], dict(reversed(both.items())))[0].tolist() == ["label issue"]


def test_a_budget_without_mistakes_or_without_causes_is_whole():
    _, none = assign_causes([True, True], {Cause.SHORTCUT: [True, False]})
    assert [(one.count, one.share) for one in none.causes] == [(0, 0.0)] * len(Cause)
    primary, alone = assign_causes([False, True], {})
    assert primary.tolist() == ["unexplained", ""]
    assert [one.count for one in alone.causes] == [0, 0, 0, 0, 0, 1]


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(InputError, match=r"cause 'shortcut' is \(1,\); each image needs one: \(2,\)"):
        assign_causes([True, False], {Cause.SHORTCUT: [True]})
    with pytest.raises(InputError, match="'unexplained' is no cause to be flagged; those are label issue"):
        assign_causes([True], {Cause.UNEXPLAINED: [True]})
