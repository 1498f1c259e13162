"""Errors under corruption, against plain counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from sightline.audit import measure_robustness
from sightline.errors import SightlineError
from sightline.models import to_float
from sightline.stats import wilson_interval


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    rng = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(size=(6, 32, 32, 3)), (0, 2, 2, 0))
    spread = smooth.std(axis=(1, 2, 3), keepdims=True)
    return to_float(np.clip(128 + 50 * smooth / spread, 0, 255).astype(np.uint8))


def test_the_table_equals_plain_counting():
    rng = np.random.default_rng(2)
    clean = rng.random(200) < 0.9
    corrupted = {
        (name, severity): rng.random(200) < share
        for name, severity, share in (("fog", 1, 0.8), ("fog", 3, 0.4), ("jpeg", 2, 0.7))
    }
    found = measure_robustness(clean, corrupted)
    errors = {key: 1 - flags.sum() / 200 for key, flags in corrupted.items()}
    assert [row.error for row in found.rows] == pytest.approx(list(errors.values()))
    low, high = wilson_interval(int((~corrupted["fog", 3]).sum()), 200)
    assert found.rows[1].interval == (low, high)
    mean = ((errors["fog", 1] + errors["fog", 3]) / 2 + errors["jpeg", 2]) / 2
    assert found.mean == pytest.approx(mean)
    assert found.clean == pytest.approx(1 - clean.mean())
    assert found.increase == pytest.approx(mean - found.clean)
    differences = [
        ((1 - corrupted["fog", 1][i] + 1 - corrupted["fog", 3][i]) / 2 + 1 - corrupted["jpeg", 2][i]) / 2
        - (1 - clean[i])
        for i in range(200)
    ]
    half = 1.959964 * np.std(differences, ddof=1) / math.sqrt(200)
    assert found.increase_interval == pytest.approx((found.increase - half, found.increase + half))


def test_flags_of_other_images_are_refused():
    with pytest.raises(SightlineError, match="fog at severity 1 has 3 images and the clean ones are 2"):
        measure_robustness(np.ones(2, bool), {("fog", 1): np.ones(3, bool)})
    with pytest.raises(SightlineError, match="2 images and 0 corruptions"):
        measure_robustness(np.ones(2, bool), {})
