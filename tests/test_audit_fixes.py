"""Fixes and their gains, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sightline.audit import cross_fit_temperature
from sightline.audit.calibration import CrossFit
from sightline.audit.confusion import confusion_pairs
from sightline.audit.fixes import (
    collect_for_pair,
    collect_for_slice,
    drop_copies,
    drop_near_duplicates,
    rank_fixes,
    relabel_test,
    relabel_train,
    share_gains,
    use_temperature,
    use_threshold,
)
from sightline.audit.label_claims import JudgedLabels
from sightline.audit.result import Estimate, Fix, FixKind, Gain, IssueClaim, IssueMethod, Threshold
from sightline.audit.slices import Condition, FoundSlice
from sightline.predictions import Predictions
from sightline.stats import wilson_interval

ISSUES = pd.DataFrame(
    {
        "index": range(10),
        "label_quality": [0.9, 0.1, 0.8, 0.3, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9],
        "flagged": False,
    }
)
ISSUES.loc[[1, 3, 4], "flagged"] = True
CROSS_FIT = CrossFit(1.5, (1.4, 1.6), 0.4, 0.35, 0.06, 0.02, (0.03, 0.05))


def judged(issues: pd.DataFrame = ISSUES, claim: IssueClaim = IssueClaim.WRONG) -> JudgedLabels:
    precision = Estimate(0.7, (0.55, 0.8)) if claim is IssueClaim.WRONG else None
    return JudgedLabels(issues, IssueMethod.WITNESSES, claim, precision, ("the model", "a probe"))


def test_relabelling_test_images_gains_the_share_of_the_flagged_mistakes_that_is_wrong():
    correct = np.ones(10, bool)
    correct[[1, 4, 7]] = False
    fix = relabel_test(judged(), correct)
    assert fix.images == (1, 3, 4)  # the lowest quality first, equal ones in data order
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == pytest.approx((14.0, 11.0, 16.0))  # of 20
    assert "2 of them count as mistakes now" in fix.why
    assert "About 70 % of them (55 to 80) are wrong" in fix.why
    assert fix.title == "Correct the labels of 3 test images"
    unknown = relabel_test(judged(claim=IssueClaim.LOOK), correct)
    assert (unknown.title, unknown.gain) == ("Look at the labels of 3 test images", None)
    assert relabel_test(judged(ISSUES.assign(flagged=False)), correct) is None


def test_what_training_labels_gain_is_not_claimed():
    fix = relabel_train(judged())
    assert fix.gain is None
    assert fix.title == "Correct the labels of 3 training images"
    assert "30.0 % of the training labels are contradicted by the model and a probe" in fix.why
    assert "--fixes fixes.json" in fix.how
    copies = drop_copies([5], total=200)
    assert (copies.title, copies.gain) == ("Drop 1 training image: near-duplicates of others", None)
    assert copies.why.startswith("0.5 % of the training images")
    assert drop_copies([], total=200) is None


def test_dropping_near_duplicates_states_what_they_had_added():
    correct = np.array([True] * 8 + [False] * 2 + [True] * 10)
    leaked = np.arange(20) >= 10
    fix = drop_near_duplicates(correct, leaked)
    low, high = wilson_interval(8, 10)
    assert fix.gain.value == pytest.approx(80 - 90)
    assert (fix.gain.low, fix.gain.high) == pytest.approx((100 * low - 90, 100 * high - 90))
    assert fix.images == tuple(range(10, 20))
    assert drop_near_duplicates(correct, np.zeros(20, bool)) is None


def slice_of(rows, *, rest, error=0.0, shortcut=False, evidence="") -> FoundSlice:
    words = [("predicted", "called “a”", False), ("cell", "whose evidence lies in a corner", True)]
    conditions = tuple(Condition(kind, name, np.zeros(0, bool), aside=aside) for kind, name, aside in words)
    rows = np.asarray(rows)
    return FoundSlice(
        *("dark cats", rows, conditions if shortcut else (), error, wilson_interval(round(20 * error), 20)),
        *(rest, 0.01, evidence),
    )


def test_a_slice_gains_what_it_is_worse_than_the_rest_in_the_held_out_half():
    fix = collect_for_slice(slice_of(range(40), rest=0.1, evidence="50 % wrong", error=0.5), 1000)
    low, high = wilson_interval(10, 20)
    assert fix.gain.value == pytest.approx(100 * 0.04 * 0.4)
    assert (fix.gain.low, fix.gain.high) == pytest.approx((4 * (low - 0.1), 4 * (high - 0.1)))
    assert fix.why.startswith("Of these 40 test images those of the held-out half are wrong in 50.0 %")
    harmless = collect_for_slice(slice_of(range(40), rest=0.1, error=0.1), 1000)
    assert harmless.gain.low == 0.0
    short = collect_for_slice(slice_of([1], rest=0.1, shortcut=True), 9)
    assert short.title == "Break the shortcut: dark cats"


def test_a_pair_gains_what_it_has_beyond_its_class_in_the_held_out_half():
    predicted = [1] * 6 + [2] * 2 + [0] * 12 + [1] * 19 + [0]
    labels = [0] * 20 + [1] * 20
    p = Predictions(np.eye(4)[predicted], np.array(labels), ("ant", "bee", "cat", "dog"))
    pairs = confusion_pairs(p)
    fix = collect_for_pair(pairs, 0, p.class_names, images=np.arange(6), held=(3, 1.0, 20))
    low, high = wilson_interval(3, 20)
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == pytest.approx(
        (100 * (3 - 1) / 20, 100 * (low - 0.05), 100 * (high - 0.05))
    )
    assert "“ant” is taken for “bee” 6 times, in 30.0 % of its images" in fix.why
    assert "the other way round once" in fix.why


def test_fixes_that_collect_never_gain_more_together_than_the_mistakes_that_there_are():
    def collect(images: range, value: float) -> Fix:
        return Fix(FixKind.COLLECT, "t", "w", Gain(value, 0, 2 * value, "points"), tuple(images), "test", "h")

    wrong = np.arange(100) < 10
    first, second = share_gains(
        [collect(range(8), 6.0), collect(range(4, 12), 6.0), collect(range(8), 3.0)], wrong
    )  # the third has no mistake of its own
    assert first.gain.value == 6.0
    assert (second.gain.value, second.gain.high) == pytest.approx((2.0, 4.0))  # 2 of its 6 mistakes are new
    assert second.gain.unit == "points, beside the fixes above"
    greedy = share_gains([collect(range(5), 9.0), collect(range(5, 10), 9.0)], wrong)
    assert sum(one.gain.value for one in greedy) == pytest.approx(10.0)


def test_the_temperature_is_proposed_only_where_it_clearly_helps():
    fix = use_temperature(CROSS_FIT)
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == pytest.approx((4.0, 3.0, 5.0))
    assert "too sure" in fix.why
    assert "softmax(logits / 1.5000)" in fix.how
    unclear = CrossFit(1.1, (1.0, 1.2), 0.4, 0.4, 0.02, 0.015, (-0.001, 0.01))
    assert use_temperature(unclear) is None
    faultless = cross_fit_temperature(np.eye(2)[[0, 1] * 10], [0, 1] * 10)
    assert faultless.gain[0] > 0
    assert use_temperature(faultless) is None


def test_the_threshold_states_its_price():
    threshold = Threshold(0.05, 0.8, 0.7, 0.04, (0.02, 0.08), 0.075, False)
    fix = use_threshold(threshold, np.arange(10) >= 1)
    assert (fix.gain.value, fix.gain.low, fix.gain.high) == pytest.approx((6.0, 2.0, 8.0))
    assert "70.0 %" in fix.gain.unit
    assert "not guaranteed: up to 7.5 %" in fix.why
    assert use_threshold(threshold, np.ones(10)) is None


def test_fixes_stand_in_the_stated_order():
    def fix(kind: str, value: float | None, images: int = 0, split: str = "test") -> Fix:
        gain = None if value is None else Gain(value, 0.0, 9.0, "points")
        return Fix(kind, f"{kind} {value}", "why", gain, tuple(range(images)), split, "how")

    given = [
        fix("threshold", 9.0),
        fix("collect", 1.0),
        None,
        fix("relabel", None, 80, "train"),  # touches 2 % of its split
        fix("collect", 3.0),
        fix("drop", -2.5),
        fix("temperature", 4.0),
        fix("relabel", 0.5),
    ]
    ranked = rank_fixes(given, {"train": 4000, "test": 1000})
    assert [f.title for f in ranked] == [
        "drop -2.5", "relabel 0.5", "collect 3.0", "collect 1.0", "threshold 9.0", "temperature 4.0",
        "relabel None",
    ]  # fmt: skip
