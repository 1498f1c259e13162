"""Predictions: derived columns against loops, and the table on disk."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.predictions import Predictions, read_predictions, write_predictions

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def some() -> Predictions:
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 3, (60, 4)).astype(np.float32)
    return Predictions(logits, generator.integers(0, 4, 60), NAMES)


def test_every_column_equals_a_loop_in_plain_python(some):
    for i, label in enumerate(some.labels):
        z = [float(v) for v in some.logits[i]]
        total = sum(math.exp(v) for v in z)
        p = [math.exp(v) / total for v in z]
        assert some.predicted[i] == z.index(max(z))
        assert some.loss[i] == pytest.approx(-math.log(p[label]), rel=1e-9)
        assert some.confidence[i] == pytest.approx(max(p), rel=1e-9)
        assert some.margin[i] == pytest.approx(
            z[label] - max(v for k, v in enumerate(z) if k != label), rel=1e-6
        )
        assert some.entropy[i] == pytest.approx(-sum(q * math.log(q) for q in p), rel=1e-9)
        assert some.correct[i] == (some.predicted[i] == label)


def test_huge_logits_neither_overflow_nor_lose_the_loss():
    p = Predictions(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]), ("a", "b"))
    np.testing.assert_allclose(p.loss, [0.0, 1e4])
    np.testing.assert_allclose(p.entropy, [0.0, 0.0])


def test_the_loss_is_that_of_torch(some):
    expected = nn.functional.cross_entropy(
        torch.from_numpy(some.logits).double(), torch.from_numpy(some.labels), reduction="none"
    )
    np.testing.assert_allclose(some.loss, expected.numpy(), rtol=1e-12)


def test_a_table_comes_back_as_it_was_written(some, tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, some)
    back = read_predictions(path)
    np.testing.assert_array_equal(back.logits, some.logits)
    np.testing.assert_array_equal(back.labels, some.labels)
    assert back.class_names == NAMES
    table = pd.read_parquet(path)
    assert table["index"].tolist() == list(range(60))
    assert list(table) == ["index", "label", "predicted", "loss", "confidence", "margin", "entropy", "logits"]
    np.testing.assert_allclose(table["margin"], some.margin)
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.parquet"]


def test_a_damaged_or_missing_table_is_one_clear_line(some, tmp_path):
    path = tmp_path / "predictions.parquet"
    with pytest.raises(SightlineError, match="is missing; 'sightline analyze RUN' writes it"):
        read_predictions(path)
    write_predictions(path, some)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SightlineError, match="is not a table of predictions"):
        read_predictions(path)


def test_logits_and_names_have_to_fit():
    with pytest.raises(
        SightlineError, match=r"logits are \(2, 3\); 2 labels and 2 class names need \(2, 2\)"
    ):
        Predictions(np.zeros((2, 3)), np.zeros(2, int), ("a", "b"))
