"""The map of the images keeps neighbours together, and is the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit import embedding_map as module
from sightline.audit.embedding_map import embedding_map
from sightline.errors import InputError


def groups(count=240, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    centres = 4 * rng.normal(size=(4, 16))
    return centres[labels] + rng.normal(size=(count, 16)), labels


def share_of_like_neighbours(places, labels, k=5):
    far = ((places[:, None] - places[None]) ** 2).sum(2)
    np.fill_diagonal(far, np.inf)
    near = np.argsort(far, axis=1)[:, :k]
    return (labels[near] == labels[:, None]).mean()


def test_what_is_alike_lies_side_by_side():
    features, labels = groups()
    places = embedding_map(features)
    assert places.shape == (240, 2)
    assert places.dtype == np.float32
    assert 0 <= places.min() <= places.max() <= 1
    assert share_of_like_neighbours(places, labels) > 0.95
    shuffled = np.random.default_rng(1).permutation(labels)
    assert share_of_like_neighbours(places, shuffled) < 0.5  # the measure can fail


def test_the_same_features_give_the_same_map_and_their_lengths_do_not_count():
    features, _ = groups(80)
    first = embedding_map(features, seed=3)
    np.testing.assert_array_equal(first, embedding_map(features, seed=3))
    np.testing.assert_array_equal(first, embedding_map(features * 8, seed=3))


def test_of_many_images_the_rest_lies_between_what_it_is_like(monkeypatch):
    features, labels = groups()
    monkeypatch.setattr(module, "_FITTED", 120)
    assert share_of_like_neighbours(embedding_map(features), labels) > 0.95


def test_too_few_equal_or_broken_features():
    assert embedding_map(np.ones((9, 4))) is None
    np.testing.assert_array_equal(embedding_map(np.ones((20, 4))), np.full((20, 2), 0.5, np.float32))
    with pytest.raises(InputError, match="finite table"):
        embedding_map(np.full((20, 4), np.nan))
    with pytest.raises(InputError, match="finite table"):
        embedding_map(np.ones(20))
