"""The share of wrong labels, on arrays in which they were planted, and on clean ones that look like it."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit import LinearWitness, judge_labels, measure_noise
from sightline.audit.label_noise import find_lower_group
from sightline.errors import InputError


def witness(count: int, share: float, *, slope: float = 2.0, seed: int = 0, skew: bool = False):
    """Sureness, contradictions and wrong labels of a witness that errs with sigmoid(slope * z)."""
    rng = np.random.default_rng(seed)
    sureness = rng.gamma(1.2, 2.0, count) if skew else np.abs(rng.normal(2.5, 1.5, count))
    right = rng.random(count) < 1 / (1 + np.exp(-slope * sureness))
    wrong = rng.random(count) < share
    return sureness, wrong | ~right, wrong


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.4])
def test_the_share_of_wrong_labels_is_inside_its_interval(share):
    inside = flagged = hits = planted = 0
    shares = []
    for seed in range(20):
        sureness, against, wrong = witness(4000, share, seed=seed)
        found = measure_noise(sureness, against)
        assert found.learnt
        inside += found.interval[0] <= wrong.mean() <= found.interval[1]
        chosen = found.probability > 0.5
        flagged, hits, planted = flagged + chosen.sum(), hits + (wrong & chosen).sum(), planted + wrong.sum()
        shares.append(found.share)
    assert inside >= 17
    assert np.mean(shares) == pytest.approx(share, rel=0.15)
    assert hits / flagged > 0.75
    assert hits / planted > 0.5


def test_the_probabilities_are_the_share_that_is_wrong():
    sureness, against, wrong = witness(40_000, 0.1)
    found = measure_noise(sureness, against)
    for low, high in ((0.3, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.0)):
        some = against & (found.probability >= low) & (found.probability < high)
        assert wrong[some].mean() == pytest.approx(found.probability[some].mean(), abs=0.06)
    assert (found.probability[~against] == 0).all()


@pytest.mark.parametrize("skew", [False, True])
def test_clean_labels_are_not_flagged_however_skewed_the_margins_are(skew):
    for seed in range(20):
        sureness, against, _ = witness(4000, 0.0, seed=seed, skew=skew)
        found = measure_noise(sureness, against)
        assert (found.probability > 0.5).mean() < 0.003
        assert found.interval[0] == 0


def test_a_witness_that_knows_little_judges_no_label():
    rng = np.random.default_rng(0)
    sureness = rng.gamma(2, 1, 5000)
    for ceiling in (0.3, 0.6):  # right labels, and mistakes that never become rare
        agrees = rng.random(5000) < 0.1 + ceiling * (1 - np.exp(-sureness / 2))
        found = measure_noise(sureness, ~agrees)
        assert not found.learnt
        assert not found.probability.any()
    nothing = measure_noise(np.ones(5000), rng.random(5000) < 0.9)  # an untrained one
    assert not nothing.learnt
    assert not measure_noise(sureness[:20], np.zeros(20, bool)).learnt


def features(count: int, *, classes: int = 5, dimensions: int = 12, apart: float = 4.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    centres = rng.normal(0, apart / np.sqrt(2 * dimensions) * np.sqrt(dimensions), (classes, dimensions))
    return (centres[truth] + rng.normal(0, 1, (count, dimensions))).astype(np.float32), truth


@pytest.mark.parametrize(("count", "dimensions"), [(40, 6), (30, 50)])
def test_the_fit_without_a_row_is_that_of_a_loop(count, dimensions):
    rows, labels = features(count, dimensions=dimensions, classes=3, apart=1.0)
    probe = LinearWitness(rows)
    _, strength, temperature = probe._fit(labels, 3)
    scaled = ((rows - rows.mean(0)) / rows.std(0)).astype(float)
    values = np.linalg.eigvalsh(scaled.T @ scaled)
    kept = values[values > 1e-6 * values.max()]
    penalty = (0.01, 0.1, 1.0, 10.0)[strength] * kept.sum() / len(kept)
    targets, scores = np.eye(3)[labels], np.empty((count, 3))
    for row in range(count):
        rest = np.delete(np.arange(count), row)
        design = np.hstack([scaled[rest], np.ones((len(rest), 1))])
        ridge = np.diag([penalty] * scaled.shape[1] + [0.0])
        weights = np.linalg.solve(design.T @ design + ridge, design.T @ targets[rest])
        scores[row] = np.append(scaled[row], 1) @ weights
    powers = np.exp(temperature * scores)
    np.testing.assert_allclose(
        probe.unseen(labels, classes=3), powers / powers.sum(1, keepdims=True), atol=2e-3
    )


def test_wrong_labels_of_features_are_flagged_and_the_right_class_is_named():
    rows, truth = features(1500)
    labels, wrong = truth.copy(), np.zeros(1500, bool)
    wrong[np.random.default_rng(1).choice(1500, 45, replace=False)] = True
    labels[wrong] = (labels[wrong] + 1) % 5
    verdict = judge_labels(labels, [LinearWitness(rows).unseen(labels, classes=5)])
    assert wrong[verdict.flagged].mean() >= 0.8
    assert verdict.flagged[wrong].mean() >= 0.8
    assert (verdict.suggested[wrong] == truth[wrong]).mean() > 0.9
    assert wrong[np.argsort(verdict.margin)[:45]].sum() >= 40
    clean = judge_labels(truth, [LinearWitness(rows).unseen(truth, classes=5)])
    assert clean.flagged.sum() <= 4


def test_both_witnesses_have_to_contradict_the_label_and_a_shortcut_is_left_out():
    rows, truth = features(1000)
    probe = LinearWitness(rows).unseen(truth, classes=5)
    model = probe.copy()
    model[:30] = 0.0  # the model alone is sure of another class: it has been fooled
    model[np.arange(30), (truth[:30] + 1) % 5] = 1.0
    alone, both = judge_labels(truth, [model]), judge_labels(truth, [model, probe])
    assert alone.flagged[:30].sum() >= 25
    assert not both.flagged[:30].any()
    aside = np.arange(1000) < 30
    assert not judge_labels(truth, [model], aside=aside).flagged[:30].any()


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(InputError, match="there is no witness"):
        judge_labels(np.array([0, 1]), [])
    with pytest.raises(InputError, match=r"features are \(3,\)"):
        LinearWitness(np.zeros(3))
    assert not judge_labels(np.zeros(50, int), [np.ones((50, 1))]).flagged.any()


@pytest.mark.parametrize("wrong", [40, 80, 400])
def test_labels_that_were_never_believed_are_a_group_apart(wrong):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        margins = rng.normal(2.4, 0.85, 4000)
        margins[:wrong] = rng.normal(-2.4, 0.9, wrong)
        margins[-50:] = np.nan
        group = find_lower_group(margins)
        assert group is not None or wrong < 400  # fewer may be too few for three standard errors
        if group is not None:
            chosen = margins < group.below
            assert chosen[:wrong].mean() > 0.85
            assert chosen[wrong:].sum() <= max(5, 2 * group.others)


def test_skewed_margins_and_a_network_that_believes_nothing_have_no_lower_group():
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for margins in (3 - rng.gamma(1.5, 1.0, 5000), 2.4 + rng.standard_t(3, 5000)):
            group = find_lower_group(margins)
            found += group is not None
            assert group is None or (margins < group.below).mean() < 0.003
        assert find_lower_group(rng.normal(-1, 1, 5000)) is None
    assert found <= 2  # of 40: three standard errors, of many stretches
    assert find_lower_group(np.ones(100)) is None
