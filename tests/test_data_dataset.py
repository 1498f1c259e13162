"""What a data set checks, its exact statistics, and its description."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sightline.data import Dataset, Split, describe, load_data
from sightline.errors import InputError, SightlineError


def test_mean_and_spread_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 7, 3), dtype=np.uint8)
    split = Split(images, np.zeros(50, int))
    dataset = Dataset("d", ("a",), split, split)
    np.testing.assert_allclose(dataset.mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(dataset.std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-13)


def test_a_description_counts_classes_and_what_was_planted():
    import json

    facts = describe(load_data("shapes"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["image_size"] == [32, 32]
    assert facts["class_names"][0] == "circle"
    assert sum(facts["train_counts"]) == 4000
    assert facts["test_counts"] == [100] * 10
    assert facts["planted"]["wrong_labels"] == 80
    assert facts["planted"]["leaks"] == 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Split(np.zeros((2, 4, 4, 3)), np.zeros(2, int)),
            r"images are float64 \(2, 4, 4, 3\); a split holds",
        ),
        (lambda: Split(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int)), "2 images need integers"),
    ],
)
def test_a_split_of_something_else_is_an_error(call, message):
    with pytest.raises(SightlineError, match=message):
        call()


@pytest.mark.parametrize(
    ("names", "problem"),
    [(("a", "\ud800"), "not Unicode"), (("a", " "), "empty"), (("a", 1), "not text"), (("a", "a"), "differ")],
)
def test_a_class_name_that_cannot_serve_is_an_error(names, problem):
    split = Split(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2))
    with pytest.raises(InputError, match=f"class 1 of data set 'd' has the name .*{problem}"):
        Dataset("d", names, split, split)


def test_an_image_keeps_its_path_and_hash_wherever_it_goes():
    images = np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3)
    split = Split(images, np.array([0, 1, 0, 1]))
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() for image in images]
    assert split.files["hash"].tolist() == hashes
    part = split.take(np.array([3, 1]))
    assert part.files.to_numpy().tolist() == [["00003", hashes[3]], ["00001", hashes[1]]]
    data = Dataset("d", ("a", "b"), train=split, test=part)
    assert data.train.files["path"].tolist() == [f"train/0000{k}" for k in range(4)]
    assert data.test.files["path"].tolist() == ["test/00003", "test/00001"]
