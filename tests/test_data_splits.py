"""Splits keep the shares of the classes."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.data.dataset import part_of, stratified_split
from sightline.data.splits import fold_indices, near_duplicate_groups, small_pictures
from sightline.errors import InputError


def test_parts_cover_all_rows_once():
    for count in range(12):
        for parts in range(1, 5):
            rows = [row for part in range(parts) for row in range(count)[part_of(count, part, parts)]]
            assert rows == list(range(count))


def test_a_split_leaves_each_class_on_both_sides():
    labels = np.repeat([0, 1, 2], [10, 2, 1])
    train, test = stratified_split(labels, test_fraction=0.2, seed=0)
    assert np.bincount(labels[train]).tolist() == [8, 1, 1]
    assert np.bincount(labels[test]).tolist() == [2, 1]
    assert sorted([*train, *test]) == list(range(13))


def test_no_group_is_in_both_splits_and_each_class_has_its_share():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 1000)
    labels = (groups % 3 + (rng.random(1000) < 0.2)) % 3  # a group is mostly of one class
    for seed in range(3):
        train, test = stratified_split(labels, test_fraction=0.2, seed=seed, groups=groups)
        assert sorted([*train, *test]) == list(range(1000))
        assert not set(groups[train]) & set(groups[test])
        shares = np.bincount(labels[test], minlength=3) / np.bincount(labels)
        assert (np.abs(shares - 0.2) < 0.05).all()
    with pytest.raises(
        InputError, match=r"1 groups leave no test split of about 0.2 with each class trained on"
    ):
        stratified_split(labels, test_fraction=0.2, seed=0, groups=np.zeros(1000))


def test_folds_keep_groups_whole_and_cover_all_rows_once():
    groups = np.repeat(np.arange(12), 5)
    labels = groups % 2
    folds = list(fold_indices(labels, 3, seed=0, groups=groups))
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(60))
    for rest, held in folds:
        assert not set(groups[rest]) & set(groups[held])
    with pytest.raises(InputError, match="13 folds; there are 12 groups, so 2 to 12 fit"):
        list(fold_indices(labels, 13, seed=0, groups=groups))
    with pytest.raises(InputError, match="31 folds; the rarest class has 30 images"):
        list(fold_indices(labels, 31, seed=0))


def test_near_duplicates_are_one_group_and_others_are_not():
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (60, 8, 9, 3))
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)  # (60, 32, 36, 3)
    brighter = images[:20] + 3
    noisy = np.clip(images[20:40] + rng.integers(-4, 5, (20, 32, 36, 3)), 0, 255)
    everything = np.concatenate([images, brighter, noisy]).astype(np.uint8)
    found = near_duplicate_groups(small_pictures(everything))
    assert found[60:80].tolist() == found[:20].tolist()
    assert found[80:].tolist() == found[20:40].tolist()
    assert len(np.unique(found)) == 60
    dark, light = np.zeros((1, 32, 36, 3)), np.full((1, 32, 36, 3), 200)
    assert len(np.unique(near_duplicate_groups(small_pictures(np.concatenate([dark, light]))))) == 2


def test_small_pictures_are_means_of_cells():
    image = np.arange(16 * 18, dtype=np.uint8).reshape(1, 16, 18, 1).repeat(3, axis=3)
    want = image[0, :, :, 0].reshape(8, 2, 9, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(small_pictures(image)[0], want)


def test_where_rare_classes_may_miss_folds_there_are_as_many_as_fit():
    labels = np.array([0, 0, 0, 1, 1, 2])
    parts = fold_indices(labels, 5, seed=0, rare=True)
    assert len(parts) == 3  # no class has more than 3 images
    assert sorted(np.concatenate([held for _, held in parts])) == list(range(6))
    with pytest.raises(InputError, match="the largest class has 1 images"):
        fold_indices(np.array([0, 1]), 5, seed=0, rare=True)
    with pytest.raises(InputError, match="there are 1 groups"):
        fold_indices(labels, 5, seed=0, groups=np.zeros(6), rare=True)
