"""Splits keep the shares of the classes."""

from __future__ import annotations

import numpy as np

from sightline.data.dataset import part_of, stratified_split


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
