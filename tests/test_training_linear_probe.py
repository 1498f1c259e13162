"""A linear probe: the regression is scikit-learn's, folds are honest, features are computed once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import sightline as sl
from sightline.data import Dataset, ImageFiles, Split, load_data
from sightline.errors import InputError
from sightline.models import to_float
from sightline.predictions import predict
from sightline.predictions.features import cached_features, frozen_features
from sightline.training import fold_probabilities, probe


class Net(nn.Module):
    def __init__(self, classes: int, *, bias: bool = True) -> None:
        super().__init__()
        pooled = nn.AdaptiveAvgPool2d(2)
        self.body = nn.Sequential(nn.Conv2d(3, 24, 5, stride=3), nn.ReLU(), pooled, nn.Flatten())
        self.head = nn.Linear(96, classes, bias=bias)
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.head(self.body(images))


def net(classes: int, **options) -> Net:
    torch.manual_seed(0)
    return Net(classes, **options)


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return load_data("shapes", limit=300)


def by_scikit_learn(model: Net, data: Dataset, strength: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with torch.no_grad():
        train, test = (
            model.body(to_float(one.images)).numpy().astype(np.float64) for one in (data.train, data.test)
        )
    fit = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000, tol=1e-8))
    return fit.fit(train, data.train.labels).predict_proba(test)


def test_the_head_is_the_regression_of_scikit_learn_on_standardised_features(shapes):
    model = net(10)
    found = probe(model, shapes, cache=None, strengths=[0.01])
    wanted = by_scikit_learn(model, shapes, 0.01)
    np.testing.assert_allclose(found.predictions.probabilities, wanted, atol=0.01)
    again = predict(model, shapes.test, class_names=shapes.class_names)
    np.testing.assert_allclose(again.logits, found.predictions.logits, atol=1e-3)
    row = found.history.epochs[0]
    assert row["test_accuracy"] == again.correct.mean()
    assert row["test_loss"] == pytest.approx(again.loss.mean(), abs=1e-4)


def test_two_classes_give_two_logits_with_the_same_softmax(shapes):
    two = [np.flatnonzero(split.labels < 2) for split in (shapes.train, shapes.test)]
    data = Dataset("two", ("a", "b"), shapes.train.take(two[0]), shapes.test.take(two[1]))
    model = net(2)
    found = probe(model, data, cache=None, strengths=[0.01], folds=2)
    np.testing.assert_allclose(found.predictions.probabilities, by_scikit_learn(model, data, 0.01), atol=0.01)


def test_out_of_fold_rows_come_from_fits_without_them(shapes):
    """A picture whose label is random noise is not known out of fold, however well the fit knows it."""
    rng = np.random.default_rng(0)
    noise = Split(shapes.train.images, rng.integers(0, 10, len(shapes.train)))
    data = dataclasses.replace(shapes, train=noise, truth=None)
    found = probe(net(10), data, cache=None, strengths=[10.0])
    assert found.history.epochs[0]["train_accuracy"] > 0.5
    assert found.out_of_fold.correct.mean() < 0.2
    np.testing.assert_array_equal(found.out_of_fold.labels, noise.labels)


def test_no_group_is_in_two_folds_of_the_probe(shapes):
    # Groups are whole classes, so that each held-out class is one that no fit has seen.
    table = pd.DataFrame({"path": np.arange(300).astype(str), "group": shapes.train.labels})
    grouped = dataclasses.replace(shapes, train=Split(shapes.train.images, shapes.train.labels, table))
    found = probe(net(10), grouped, cache=None, strengths=[0.01])
    assert found.out_of_fold.correct.sum() == 0
    assert probe(net(10), shapes, cache=None, strengths=[0.01]).out_of_fold.correct.sum() > 0


def test_the_strength_is_the_one_with_the_least_loss_out_of_fold(shapes):
    found = probe(net(10), shapes, cache=None)
    assert found.strength == min(found.losses, key=found.losses.get)
    assert found.losses[found.strength] == pytest.approx(found.out_of_fold.loss.mean())


def test_balanced_weights_raise_the_recall_of_a_rare_class(shapes):
    labels = shapes.train.labels
    rare = np.flatnonzero((labels > 1) | ((labels == 0) & (np.arange(300) % 5 == 0)))
    data = dataclasses.replace(shapes, train=shapes.train.take(rare), truth=None)
    plain, balanced = (
        probe(net(10), data, cache=None, strengths=[0.001], class_weights=how).predictions.probabilities
        for how in ("none", "balanced")
    )
    assert balanced[:, 0].mean() > plain[:, 0].mean()
    assert plain[:, 1].max() < 1e-6  # a class without an image to learn from


def test_features_are_computed_once_and_what_is_new_is_added(shapes, tmp_path):
    model = net(10).eval()
    how = {"class_names": shapes.class_names, "cache": tmp_path}
    first = cached_features(model, shapes.train, **how)
    with torch.no_grad():
        np.testing.assert_allclose(first, model.body(to_float(shapes.train.images)).numpy(), atol=1e-5)
    model.seen = 0
    model.head.weight.data += 1  # the head has no say
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(cached_features(model, shapes.train.take(order), **how), first[order])
    assert model.seen == 1  # one image, to find the last layer
    both = Split(
        np.concatenate([shapes.train.images, shapes.test.images[:5]]),
        np.concatenate([shapes.train.labels, shapes.test.labels[:5]]),
    )
    model.seen = 0
    cached_features(model, both, **how)
    assert model.seen == 1 + 5
    model.body[0].weight.data *= 2
    model.seen = 0
    assert not np.allclose(cached_features(model, shapes.train, **how), first)
    assert model.seen == 1 + 300


def test_a_stopped_pass_goes_on_and_a_damaged_block_is_computed_again(shapes, tmp_path, caplog):
    model = net(10).eval()
    how = {"class_names": shapes.class_names, "cache": tmp_path}
    first = cached_features(model, shapes.train, **how)
    blocks = sorted(tmp_path.rglob("*.npz"))
    assert len(blocks) == 2  # of 256 and 44
    sizes = [len(np.load(path)["keys"]) for path in blocks]
    blocks[0].unlink()
    model.seen = 0
    np.testing.assert_allclose(cached_features(model, shapes.train, **how), first, atol=1e-5)
    assert model.seen == 1 + sizes[0]
    blocks[1].write_bytes(b"damaged")
    np.testing.assert_allclose(cached_features(model, shapes.train, **how), first, atol=1e-5)
    assert "computed again" in caplog.text


def test_pictures_in_files_are_known_by_their_files(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    data = load_data(tmp_path / "photos", stream=True)
    assert isinstance(data.train.images, ImageFiles)
    model = net(2).eval()
    how = {"class_names": data.class_names, "cache": tmp_path / "cache"}
    first = cached_features(model, data.train, **how)
    model.seen = 0
    np.testing.assert_array_equal(cached_features(model, data.train, **how), first)
    assert model.seen == 1
    in_memory = load_data(tmp_path / "photos", stream=False)
    np.testing.assert_allclose(cached_features(model, in_memory.train, **how), first, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 1}, "2 or more"),
        ({"strengths": [1.0, 0.1]}, "ascending"),
        ({"class_weights": "equal"}, "known: none, balanced"),
    ],
)
def test_values_that_do_not_fit(shapes, options, words):
    with pytest.raises(InputError, match=words):
        probe(net(10), shapes, cache=None, **options)


def test_models_without_a_fitting_last_layer_are_refused(shapes):
    with pytest.raises(InputError, match="needs 10"):
        probe(net(7), shapes, cache=None)
    with pytest.raises(InputError, match="no bias"):
        probe(net(10, bias=False), shapes, cache=None)
    convolution = nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="linear layer"):
        sl.probe(convolution, shapes, cache=None)


def test_the_folds_of_given_features_are_those_of_the_probe(shapes):
    model = net(10)
    expected = probe(model, shapes, folds=3, strengths=(1e-2,), cache=None, device="cpu").out_of_fold
    with torch.no_grad():
        features = net(10).body(to_float(shapes.train.images)).numpy()
    found = fold_probabilities(features, shapes.train.labels, classes=10, folds=3, strengths=(1e-2,))
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-4)
    with pytest.raises(InputError, match=r"features are \(5, 96\); 300 labels need"):
        fold_probabilities(features[:5], shapes.train.labels, classes=10)


def test_frozen_features_are_of_enlarged_pictures_and_kept(shapes, tmp_path, monkeypatch):
    seen = []

    def small(name: str, data: Dataset, **options) -> nn.Module:
        made = net(data.num_classes)
        made.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
        return made

    monkeypatch.setattr("sightline.predictions.features.create_model", small)
    few = dataclasses.replace(
        shapes, train=shapes.train.take(np.arange(7)), test=shapes.test.take(np.arange(4))
    )
    test, train = frozen_features(few, cache=tmp_path, device="cpu")
    assert (test.shape, train.shape) == ((4, 96), (7, 96))
    large = nn.functional.interpolate(to_float(few.test.images), (128, 128), mode="bilinear")
    with torch.no_grad():
        np.testing.assert_allclose(test, net(10).body(large).numpy(), atol=1e-5)
    assert {shape[2:] for shape in seen} == {(128, 128)}
    count = len(seen)
    again = frozen_features(few, cache=tmp_path, device="cpu")
    np.testing.assert_array_equal(again[1], train)
    assert len(seen) - count == 2  # the head is looked for by one image of each split
