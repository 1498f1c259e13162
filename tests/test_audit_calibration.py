"""Calibration: errors against loops, the noise floor, the reliability table, temperatures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from sightline.audit import calibration_error, cross_fit_temperature, fit_temperature
from sightline.audit.calibration import calibration_noise, equal_mass, equal_width, reliability_bins
from sightline.errors import SightlineError


def model(count: int, *, seed: int = 0, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax at scale 1 is the true distribution of the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (p.cumsum(1) < rng.random((count, 1))).sum(1)
    return scale * logits, labels


def confidence_of(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).max(1), logits.argmax(1) == labels


def slow_error(confidence, correct, edges) -> float:
    total, last = 0.0, len(edges) - 2
    for b in range(last + 1):
        inside = [
            i
            for i, c in enumerate(confidence)
            if edges[b] <= c < edges[b + 1] or (b == last and c == edges[-1])
        ]
        if inside:
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            mean = sum(float(confidence[i]) for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("binning", [equal_width, equal_mass])
@pytest.mark.parametrize("bins", [1, 2, 15])
def test_the_calibration_error_is_that_of_a_loop_over_bins(binning, bins):
    confidence, correct = confidence_of(*model(400, scale=2.0))
    confidence[:5] = 1.0
    found = calibration_error(confidence, correct, bins=bins, binning=binning)
    assert found == pytest.approx(slow_error(confidence, correct, binning(confidence, bins)), abs=1e-12)


def test_a_confidence_of_one_belongs_to_the_last_bin_and_an_edge_to_the_bin_above():
    bins = reliability_bins([1.0, 0.5, 0.0, 0.49], [1, 1, 0, 0], bins=2)
    assert [one.count for one in bins] == [2, 2]
    assert [one.accuracy for one in bins] == [0.0, 1.0]
    assert calibration_error([1.0, 1.0], [True, False]) == 0.5


def test_bins_of_equal_mass_hold_equally_many_and_never_part_equal_confidences():
    confidence = np.random.default_rng(0).random(150)
    bins = reliability_bins(confidence, confidence > 0.5, binning=equal_mass)
    assert {one.count for one in bins} == {10}
    tied = np.repeat([0.3, 0.9], [7, 93])
    counts = [one.count for one in reliability_bins(tied, tied > 0.5, binning=equal_mass)]
    assert sorted(count for count in counts if count) == [7, 93]
    order = np.random.default_rng(1).permutation(100)
    correct = np.arange(100) % 3 > 0
    errors = [calibration_error(tied[o], correct[o], binning=equal_mass) for o in (slice(None), order)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-14)


def test_the_reliability_bins_add_up_to_the_error_and_empty_ones_have_no_mean():
    confidence, correct = confidence_of(*model(300))
    bins = reliability_bins(confidence, correct, bins=30)
    assert all(one.confidence is None and one.accuracy is None for one in bins if not one.count)
    assert next(one.interval for one in bins if not one.count) == (0.0, 1.0)
    table = pd.DataFrame([vars(one) for one in bins]).astype({"confidence": float, "accuracy": float})
    table["interval_low"] = [one.interval[0] for one in bins]
    assert table["count"].sum() == 300
    gaps = (table["count"] * (table["confidence"] - table["accuracy"]).abs()).sum() / 300
    assert gaps == pytest.approx(calibration_error(confidence, correct, bins=30))
    assert (table["interval_low"].le(table["accuracy"]) | table["accuracy"].isna()).all()
    assert table["low"].tolist()[1:] == table["high"].tolist()[:-1]


def test_the_noise_floor_of_one_bin_is_the_mean_of_a_folded_binomial():
    # n images at 1/2 in one bin: E|k - n/2| / n, summed from the binomial by hand.
    n = 40
    expected = sum(math.comb(n, k) * abs(k - n / 2) for k in range(n + 1)) / 2**n / n
    floor = calibration_noise(np.full(n, 0.5), bins=1, draws=4000)
    assert floor.mean == pytest.approx(expected, rel=0.05)


def test_a_calibrated_model_is_within_the_floor_and_an_overconfident_one_is_not():
    within = 0
    for seed in range(40):
        confidence, correct = confidence_of(*model(500, seed=seed))
        within += calibration_error(confidence, correct) <= calibration_noise(confidence, seed=seed).high
    assert within >= 34  # 38 are expected; fewer than 34 has a probability of 0.03
    confidence, correct = confidence_of(*model(500, scale=2.5))
    assert calibration_error(confidence, correct) > 2 * calibration_noise(confidence).high


def test_the_floor_is_a_function_of_its_seed_and_falls_with_the_number_of_images():
    confidence, _ = confidence_of(*model(200))
    assert calibration_noise(confidence, seed=3) == calibration_noise(confidence, seed=3)
    assert calibration_noise(np.tile(confidence, 16)).mean < 0.35 * calibration_noise(confidence).mean


def test_the_temperature_is_the_minimum_of_the_loss():
    logits, labels = model(600, scale=3.0)

    def loss(temperature: float) -> float:
        z = logits / temperature
        z = z - z.max(1, keepdims=True)
        return float((np.log(np.exp(z).sum(1)) - z[np.arange(600), labels]).mean())

    slow = minimize_scalar(loss, bounds=(0.5, 10), method="bounded", options={"xatol": 1e-8}).x
    assert fit_temperature(logits, labels) == pytest.approx(slow, rel=1e-4)
    assert fit_temperature(2 * logits, labels) == pytest.approx(2 * slow, rel=1e-4)
    assert fit_temperature(logits + 1e4, labels) == pytest.approx(slow, rel=1e-4)


def test_labels_that_say_nothing_or_everything_end_at_the_bounds():
    logits, _ = model(200)
    assert fit_temperature(logits, logits.argmin(1)) == 20.0
    assert fit_temperature(logits, logits.argmax(1)) == 0.05


def test_cross_fitting_reports_on_data_that_was_not_fitted():
    logits, labels = model(900, scale=2.0)
    found = cross_fit_temperature(logits, labels, folds=3, seed=5)
    fold = np.random.default_rng(5).permutation(np.arange(900) % 3)
    scaled = np.empty_like(logits)
    for k in range(3):
        temperature = fit_temperature(logits[fold != k], labels[fold != k])
        assert found.fold_temperatures[k] == pytest.approx(temperature)
        scaled[fold == k] = logits[fold == k] / temperature
    for z, nll, ece in ((logits, found.nll, found.ece), (scaled, found.nll_after, found.ece_after)):
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        assert nll == pytest.approx(-np.log(p[np.arange(900), labels]).mean())
        assert ece == pytest.approx(calibration_error(*confidence_of(z, labels)))
    assert found.temperature == pytest.approx(2.0, abs=0.25)
    assert found.nll_after < found.nll


def test_the_interval_of_the_gain_is_that_of_resampled_images():
    logits, labels = model(1500, scale=1.6)
    found = cross_fit_temperature(logits, labels)
    fold = np.random.default_rng(0).permutation(np.arange(1500) % 2)
    scaled = logits / np.array(found.fold_temperatures)[fold][:, None]
    before, correct = confidence_of(logits, labels)
    after, _ = confidence_of(scaled, labels)
    rng, falls = np.random.default_rng(1), []
    for _ in range(600):
        drawn = rng.integers(0, 1500, 1500)
        falls.append(
            calibration_error(before[drawn], correct[drawn]) - calibration_error(after[drawn], correct[drawn])
        )
    low, high = 2 * (found.ece - found.ece_after) - np.quantile(falls, (0.975, 0.025))
    assert found.gain == pytest.approx((low, high), abs=0.006)
    assert found.gain[0] > 0
    calibrated = cross_fit_temperature(*model(1500, seed=4))
    assert calibrated.gain[0] < 0.01


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(SightlineError, match=r"confidence is \(2,\) and correct \(3,\); both need the same"):
        calibration_error([0.1, 0.2], [1, 1, 0])
    with pytest.raises(SightlineError, match=r"outside \[0, 1\]; give probabilities, not logits"):
        calibration_error([0.1, 2.0], [1, 0])
    with pytest.raises(SightlineError, match="0 bins hold nothing"):
        calibration_error([0.1], [1], bins=0)
    with pytest.raises(SightlineError, match=r"returned edges \(2,\); 3 bins need 4 that ascend"):
        calibration_error([0.1], [1], bins=3, binning=lambda confidence, bins: np.array([0, 1]))
    with pytest.raises(SightlineError, match="1 folds of 3 images; from 2 to"):
        cross_fit_temperature(np.eye(3), [0, 1, 2], folds=1)
    with pytest.raises(SightlineError, match="from 0 to 3; 3 columns of logits need integers from 0 to 2"):
        fit_temperature(np.eye(3), [0, 1, 3])
    with pytest.raises(SightlineError, match="logits hold values that are not finite"):
        fit_temperature(np.array([[np.nan, 0.0]]), [0])
