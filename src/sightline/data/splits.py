"""Choose images by class and seed: a test split, and a subset that keeps the shares of the classes."""

from __future__ import annotations

import numpy as np


def stratified_split(labels: np.ndarray, *, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a training and a test split, both in ascending order.

    Of each class the share `test_fraction` is tested, at least one image, and at least one is left to
    train on; a class of one image is trained on.

    >>> train, test = stratified_split(np.array([0, 0, 0, 0, 1, 1]), test_fraction=0.25, seed=0)
    >>> len(train), len(test)
    (4, 2)
    """
    rng = np.random.default_rng(seed)
    tested = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(test_fraction * len(members))), len(members) - 1)
        tested[members[:count]] = True
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def part_of(count: int, part: int, parts: int) -> slice:
    """Return the rows of `part` when `count` rows are cut into `parts`, sizes apart by one at most.

    The first part has rows wherever there are any.

    >>> [part_of(7, part, 3) for part in range(3)]
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
    """
    return slice(-(-count * part // parts), -(-count * (part + 1) // parts))


def stratified_subset(labels: np.ndarray, limit: int, *, seed: int) -> np.ndarray:
    """Return at most `limit` indices in ascending order, each class with its share of them.

    >>> stratified_subset(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0).shape
    (3,)
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels[order]
    position = np.empty(len(labels))  # of each image within its class, from 0 to 1
    for label in np.unique(labels):
        members = np.flatnonzero(shuffled == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(position, kind="stable")[:limit]])
