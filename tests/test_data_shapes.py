from __future__ import annotations

import numpy as np
import pytest

from sightline.data import load_data
from sightline.data.shapes.drawing import SILHOUETTES
from sightline.data.shapes.generate import load_shapes
from sightline.errors import SightlineError

TRAIN, TEST = 1000, 500


@pytest.fixture(scope="module")
def shapes():
    return load_shapes(seed=3, train=TRAIN, test=TEST)


def _marked(images: np.ndarray) -> np.ndarray:
    """Which images carry the mark, read from the pixels alone."""
    patches = images[:, 1:6, 26:31].astype(int)
    yellow = (patches == (255, 214, 10)).all(axis=3).sum(axis=(1, 2))
    black = (patches == (20, 20, 20)).all(axis=3).sum(axis=(1, 2))
    return (yellow == 16) & (black == 9)


def test_the_same_seed_draws_the_same_pictures(shapes):
    again, other = load_shapes(seed=3, train=TRAIN, test=TEST), load_shapes(seed=4, train=TRAIN, test=TEST)
    np.testing.assert_array_equal(shapes.train.images, again.train.images)
    np.testing.assert_array_equal(shapes.test.labels, again.test.labels)
    assert not np.array_equal(shapes.train.images, other.train.images)


def test_two_percent_of_the_training_labels_are_wrong_and_classes_are_even_otherwise(shapes):
    truth = shapes.truth
    assert len(np.unique(truth.wrong_labels)) == TRAIN // 50
    assert (shapes.train.labels[truth.wrong_labels] != truth.true_labels).all()
    mended = shapes.train.labels.copy()
    mended[truth.wrong_labels] = truth.true_labels
    assert np.bincount(mended).tolist() == [TRAIN // 10] * 10
    assert np.bincount(shapes.test.labels).tolist() == [TEST // 10] * 10


def test_the_mark_goes_with_one_class_in_training_and_with_the_others_in_the_test_split(shapes):
    truth = shapes.truth
    np.testing.assert_array_equal(_marked(shapes.train.images), truth.shortcut_train)
    np.testing.assert_array_equal(_marked(shapes.test.images), truth.shortcut_test)
    own = shapes.train.labels == truth.shortcut_class
    assert not truth.shortcut_train[~own].any()
    assert truth.shortcut_train.sum() == round(0.6 * own.sum())
    assert not truth.shortcut_test[shapes.test.labels == truth.shortcut_class].any()
    assert 0.03 < truth.shortcut_test.mean() < 0.06
    assert truth.shortcut_box == (1, 26, 6, 31)
    assert not truth.shortcut_train[truth.wrong_labels].any()


def test_leaked_test_images_are_copies_of_training_images(shapes):
    truth = shapes.truth
    assert len(truth.leaks) == TEST // 25
    assert len(np.unique(truth.leaks[:, 0])) == len(np.unique(truth.leaks[:, 1])) == len(truth.leaks)
    assert set(truth.leak_kinds) == {"exact", "mirrored", "brighter", "noisy"}
    labels = shapes.train.labels.copy()
    labels[truth.wrong_labels] = truth.true_labels
    for (test, train), kind in zip(truth.leaks, truth.leak_kinds, strict=True):
        copy, original = shapes.test.images[test].astype(float), shapes.train.images[train].astype(float)
        mask = truth.train_masks[train]
        if kind == "mirrored":
            original, mask = original[:, ::-1], mask[:, ::-1]
        expected = np.minimum(original * 1.15 + 4, 255) if kind == "brighter" else original
        assert abs(copy - expected).mean() <= {"brighter": 1.0, "noisy": 5.0}.get(kind, 0.0)
        np.testing.assert_array_equal(truth.test_masks[test], mask)
        assert shapes.test.labels[test] == labels[train]


def test_no_other_test_image_is_close_to_a_training_image(shapes):
    train, test = (
        split.images.reshape(len(split), -1).astype(np.float32) for split in (shapes.train, shapes.test)
    )
    squares = (test**2).sum(1)[:, None] - 2 * test @ train.T + (train**2).sum(1)
    close = np.sqrt(np.maximum(squares, 0).min(axis=1) / train.shape[1]) < 8  # grey values, root mean square
    plain = shapes.truth.leak_kinds != "mirrored"
    unaltered = plain & (shapes.truth.leak_kinds != "brighter")
    assert (
        set(shapes.truth.leaks[unaltered, 0])
        <= set(np.flatnonzero(close))
        <= set(shapes.truth.leaks[plain, 0])
    )


def test_masks_cover_what_is_visible_of_the_object(shapes):
    masks, images = shapes.truth.train_masks, shapes.train.images.astype(float)
    assert masks.shape == (TRAIN, 32, 32)
    assert masks.mean(axis=(1, 2)).min() > 0.02
    assert masks.mean(axis=(1, 2)).max() < 0.5
    inside = (images * masks[..., None]).sum((1, 2)) / masks.sum((1, 2))[:, None]
    outside = (images * ~masks[..., None]).sum((1, 2)) / (~masks).sum((1, 2))[:, None]
    assert np.median(abs(inside - outside).max(axis=1)) > 50
    assert not masks[shapes.truth.shortcut_train, 1:6, 26:31].any()


def test_colour_does_not_give_the_class_away(shapes):
    """A nearest-mean classifier on the colours of object and ground does no better than chance."""

    def colours(images, masks):
        weights = np.stack([masks, ~masks]).astype(float)
        return np.einsum("knyx,nyxc->nkc", weights, images) / weights.sum((2, 3)).T[..., None]

    truth = shapes.truth
    train = colours(shapes.train.images, truth.train_masks).reshape(TRAIN, -1)
    test = colours(shapes.test.images, truth.test_masks).reshape(TEST, -1)
    centres = np.stack([train[shapes.train.labels == label].mean(axis=0) for label in range(10)])
    nearest = ((test[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == shapes.test.labels).mean() < 0.16


@pytest.mark.parametrize("name", SILHOUETTES)
def test_a_silhouette_is_a_distance_to_its_outline(name):
    """No steeper than 1 anywhere, negative inside, and within the unit of its radius."""
    axis = np.linspace(-1.6, 1.6, 321)
    u, v = np.meshgrid(axis, axis)
    distance = SILHOUETTES[name](u, v)
    steps = max(abs(np.diff(distance, axis=side)).max() for side in (0, 1))
    assert steps <= (axis[1] - axis[0]) * 1.001
    inside = distance < 0
    assert 0.4 < inside.sum() * (axis[1] - axis[0]) ** 2 < 2.6
    assert np.hypot(u, v)[inside].max() < 1.15


def test_a_subset_keeps_the_truth_of_its_images(shapes):
    part = load_data(shapes, limit=300, seed=1)
    truth = part.truth
    np.testing.assert_array_equal(_marked(part.train.images), truth.shortcut_train)
    np.testing.assert_array_equal(_marked(part.test.images), truth.shortcut_test)
    assert len(truth.wrong_labels) > 0
    for index, true in zip(truth.wrong_labels, truth.true_labels, strict=True):
        original = np.flatnonzero((shapes.train.images == part.train.images[index]).all(axis=(1, 2, 3)))
        place = shapes.truth.wrong_labels.tolist().index(original[0])
        assert true == shapes.truth.true_labels[place]
    exact = truth.leaks[truth.leak_kinds == "exact"]
    assert len(truth.leaks) < len(shapes.truth.leaks)
    for test, train in exact:
        np.testing.assert_array_equal(part.test.images[test], part.train.images[train])


@pytest.mark.parametrize(("train", "test"), [(100, 100), (100, 600)])
def test_small_splits_are_planted_too(train, test):
    for seed in range(4):
        truth = load_shapes(seed=seed, train=train, test=test).truth
        assert len(truth.leaks) == 4
        assert truth.shortcut_train.any()
        assert truth.shortcut_test.any()


def test_too_few_images_to_plant_anything_are_an_error():
    with pytest.raises(
        SightlineError, match="shapes with 50 training and 500 test images; each split needs 100"
    ):
        load_shapes(train=50, test=500)
