"""Predictions: derived columns against loops, the table on disk, ranking, confusion, pairs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sightline.data import Split
from sightline.errors import SightlineError
from sightline.predictions import (
    Predictions,
    accuracy,
    accuracy_per_class,
    confused_pairs,
    confusion,
    predict,
    rank_mistakes,
    read_predictions,
    write_predictions,
)

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


def test_mistakes_stand_in_descending_order_of_loss_with_their_place_in_the_data(some):
    ranked = rank_mistakes(some)
    wrong = [i for i in range(len(some)) if some.predicted[i] != some.labels[i]]
    assert ranked["index"].tolist() == sorted(wrong, key=lambda i: -some.loss[i])
    assert (ranked["loss"].diff().dropna() <= 0).all()
    assert rank_mistakes(some, 3)["index"].tolist() == ranked["index"].tolist()[:3]


def test_no_mistakes_give_empty_tables():
    perfect = Predictions(np.eye(3), np.arange(3), ("a", "b", "c"))
    assert len(rank_mistakes(perfect)) == 0
    assert len(confused_pairs(perfect)) == 0
    assert accuracy(perfect) == 1.0


def test_confusion_counts_every_image_once(some):
    matrix = confusion(some.labels, some.predicted, 4)
    for true in range(4):
        for guess in range(4):
            assert matrix[true, guess] == sum((some.labels == true) & (some.predicted == guess))
    shares = accuracy_per_class(matrix)
    for k in range(4):
        assert shares[k] == pytest.approx(some.correct[some.labels == k].mean())


def test_a_class_without_images_has_no_accuracy():
    assert np.isnan(accuracy_per_class(np.array([[2, 0], [0, 0]]))[1])


def test_confused_pairs_by_hand():
    logits = np.log(np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1], [0.3, 0.7]]))
    pairs = confused_pairs(Predictions(logits, np.array([0, 0, 1, 1]), ("a", "b")))
    assert pairs[["true", "predicted", "count"]].values.tolist() == [["a", "b", 2], ["b", "a", 1]]
    np.testing.assert_allclose(pairs["share"], [1.0, 0.5])
    np.testing.assert_allclose(pairs["median_loss"], [-(math.log(0.2) + math.log(0.4)) / 2, -math.log(0.1)])


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
    with pytest.raises(SightlineError, match="is not there; 'sightline analyze RUN' writes it"):
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


class Mean(nn.Module):
    """Logits are the channel means of the picture; dropout shows whether evaluation mode is on."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.9)
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x):
        return self.head(self.drop(x.mean((2, 3))))


def split_of(count: int) -> Split:
    generator = np.random.default_rng(0)
    return Split(
        generator.integers(0, 256, (count, 5, 4, 3), dtype=np.uint8), generator.integers(0, 3, count)
    )


def test_predict_keeps_the_order_whatever_the_batch_and_leaves_the_modes_alone():
    model, split = Mean(), split_of(23)
    model.head.eval()
    expected = split.images.reshape(23, -1, 3).mean(1) / 255
    for batch_size in (1, 7, 500):
        found = predict(model, split, batch_size=batch_size)
        np.testing.assert_allclose(found.logits, expected, atol=1e-6)
    assert (model.training, model.drop.training, model.head.training) == (True, True, False)


def test_predict_restores_the_modes_after_an_exception():
    class Breaks(Mean):
        def forward(self, x):
            raise ZeroDivisionError

    model = Breaks()
    with pytest.raises(ZeroDivisionError):
        predict(model, split_of(2))
    assert model.training
    assert model.drop.training


def test_predict_says_what_does_not_fit():
    with pytest.raises(
        SightlineError, match="3 outputs and the data 2 classes; create the model with num_classes=2"
    ):
        predict(Mean(), split_of(4), class_names=("a", "b"))
    with pytest.raises(
        SightlineError, match=r"returned \(2, 3, 5, 4\); predict needs a tensor of logits \(2, C\)"
    ):
        predict(nn.Identity(), split_of(2))
    broken = Mean()
    broken.head.weight.data.fill_(float("nan"))
    with pytest.raises(SightlineError, match="not finite for 4 of 4 images"):
        predict(broken, split_of(4))
