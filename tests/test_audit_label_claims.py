"""What the audit claims of labels: held against labels that are known to be wrong, and to be right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sightline.audit import Evidence, make_audit
from sightline.audit.label_claims import judge_test_labels, judge_train_labels, plant_labels
from sightline.audit.result import Cause, FixKind, IssueClaim, SplitName
from sightline.data import Dataset, PlantedTruth, Split
from sightline.predictions import Dynamics, Predictions

CLASSES = tuple("abcde")


def world(train: int = 1500, test: int = 1000, *, wrong: float = 0.03, seed: int = 0):
    """Data of noise pictures, frozen features that know the classes, and answers of a model that does too."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1.1, (5, 12))
    splits, features, truths = [], [], []
    for count in (train, test):
        truth = rng.integers(0, 5, count)
        labels, rows = truth.copy(), rng.choice(count, round(wrong * count), replace=False)
        labels[rows] = (truth[rows] + rng.integers(1, 5, len(rows))) % 5
        pictures = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        splits.append(Split(pictures, labels))
        features.append((centres[truth] + rng.normal(0, 1, (count, 12))).astype(np.float32))
        truths.append(truth)
    data = Dataset("world", CLASSES, *splits)
    own = rng.normal(0, 1, (test, 5))  # the model's own mistakes, apart from those of the features
    own[np.arange(test), truths[1]] += 5
    predictions = Predictions(own.astype(np.float32), data.test.labels, CLASSES)
    evidence = Evidence(data, predictions, frozen=features[1], train_frozen=features[0])
    return evidence, [split.labels != truth for split, truth in zip(splits, truths, strict=True)]


def test_one_model_claims_nothing_of_test_labels_and_two_witnesses_do():
    evidence, (_, wrong) = world()
    alone = judge_test_labels(dataclasses.replace(evidence, frozen=None, train_frozen=None))
    assert alone.claim is IssueClaim.ONE_WITNESS
    assert not alone.flagged.any()
    worst = alone.table.sort_values("label_quality")["index"][: wrong.sum()]
    assert wrong[worst].mean() > 0.7  # the list is there all the same
    both = judge_test_labels(evidence)
    assert both.claim is IssueClaim.WRONG
    assert wrong[both.flagged].mean() >= 0.8
    assert both.flagged[wrong].mean() >= 0.6
    clean, _ = world(wrong=0.0)
    assert judge_test_labels(clean).flagged.sum() <= 2


def test_a_test_split_alone_has_its_second_witness_too():
    evidence, (_, wrong) = world()
    judged = judge_test_labels(Evidence(None, evidence.predictions, frozen=evidence.frozen))
    assert wrong[judged.flagged].mean() >= 0.8
    assert judged.flagged[wrong].mean() >= 0.5


def test_a_confirmed_shortcut_vetoes():
    evidence, _ = world()
    fooled = np.arange(1000) < 40
    assert isinstance(evidence.predictions.logits, np.ndarray)
    assert not judge_test_labels(evidence, aside=fooled).flagged[fooled].any()


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.4])
def test_training_labels_are_flagged_at_every_rate_and_what_is_said_of_them_holds(share):
    for seed in range(3):
        evidence, (wrong, _) = world(4000, 20, wrong=share, seed=seed)
        judged = judge_train_labels(evidence)
        low, high = judged.precision.interval
        assert low <= wrong[judged.flagged].mean() <= high
        assert wrong[judged.flagged].mean() >= 0.7
        assert judged.flagged[wrong].mean() >= 0.4
        after = np.where(judged.flagged, judged.table["suggested"], judged.table["label"])
        truth = np.where(wrong, -1, judged.table["label"])
        assert ((after != truth) & ~wrong).sum() < (judged.flagged & wrong).sum()  # relabelling helps


def test_planting_says_what_a_list_is_worth():
    evidence, (wrong, _) = world(3000, 20, wrong=0.05)
    judged = plant_labels(judge_train_labels(evidence), classes=5)
    check = judged.planted
    assert (check.rounds, check.planted) == (10, 10 * round(check.share * 3000))
    low, high = judged.precision.interval
    assert low <= wrong[judged.flagged].mean() <= high
    before = judge_train_labels(evidence).precision
    assert low == pytest.approx(min(max(before.interval[0], check.precision.interval[0]), before.value))
    assert check.recall.value == pytest.approx(judged.flagged[wrong].mean(), abs=0.15)
    assert check.found <= check.listed
    again = plant_labels(judge_train_labels(evidence), classes=5)
    assert again.planted == check


def test_an_untrained_model_judges_no_training_label():
    evidence, _ = world()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=evidence.train_frozen.shape).astype(np.float32)
    count = len(evidence.data.train)
    margins = rng.normal(-1, 1, (1, count))
    untrained = Evidence(
        evidence.data,
        evidence.predictions,
        train_features=noise,
        dynamics=Dynamics(margins, 1 / (1 + np.exp(-margins))),
    )
    judged = judge_train_labels(untrained)
    assert judged.claim is IssueClaim.NOT_LEARNT
    assert not judged.flagged.any()


def test_labels_that_a_network_never_believed_are_flagged_where_its_features_have_learnt_them():
    evidence, (wrong, _) = world(4000, 20, wrong=0.05)
    rng = np.random.default_rng(1)
    margins = rng.normal(3, 1, (6, 4000))
    margins[:, wrong] -= 6
    dynamics = Dynamics(margins, 1 / (1 + np.exp(-margins)))
    own = Evidence(
        evidence.data, evidence.predictions, train_features=evidence.train_frozen, dynamics=dynamics
    )
    judged = judge_train_labels(own)
    assert "the margins in training" in judged.witnesses
    assert wrong[judged.flagged].mean() > 0.95
    assert judged.flagged[wrong].mean() > 0.8


def test_the_page_gets_the_claim_its_gain_and_how_true_it_is():
    evidence, (wrong_train, wrong_test) = world()
    data = evidence.data
    truth = PlantedTruth(
        train_masks=None,
        test_masks=None,
        wrong_labels=np.flatnonzero(wrong_train),
        true_labels=data.train.labels[wrong_train],
        shortcut_class=-1,
        shortcut_train=np.zeros(len(data.train), bool),
        shortcut_test=np.zeros(len(data.test), bool),
        shortcut_box=(0, 0, 1, 1),
        leaks=np.zeros((0, 2), int),
        leak_kinds=np.zeros(0, object),
        wrong_test=np.flatnonzero(wrong_test),
        true_test=data.test.labels[wrong_test],
    )
    planted = dataclasses.replace(evidence, data=dataclasses.replace(data, truth=truth))
    audit = make_audit(planted)
    found = audit.label_issues.test
    assert found.estimated == pytest.approx(found.precision.value * found.flagged)
    fix = next(one for one in audit.fixes if (one.kind, one.split) == (FixKind.RELABEL, SplitName.TEST))
    mistakes = ~evidence.predictions.correct
    highest = 100 * mistakes[list(fix.images)].sum() / len(mistakes)
    assert fix.gain.value == pytest.approx(found.precision.value * highest)
    truth_gain = 100 * (mistakes & wrong_test)[list(fix.images)].sum() / len(mistakes)
    assert fix.gain.low <= truth_gain <= fix.gain.high
    scores = {one.what: one.value for one in audit.ground_truth}
    assert scores["Flagged test labels"].startswith(
        f"{wrong_test[list(fix.images)].sum()} of 30 planted found"
    )
    assert any(one.what.startswith("Share of the flagged test labels") for one in audit.ground_truth)
    assert audit.error_budget.causes[0].cause is Cause.LABEL_ISSUE
    alone = make_audit(dataclasses.replace(planted, frozen=None, train_frozen=None))
    assert alone.error_budget.causes[0].count == 0
    assert not [one for one in alone.fixes if (one.kind, one.split) == (FixKind.RELABEL, SplitName.TEST)]
