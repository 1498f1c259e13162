"""What was planted in a generated data set, so that whoever looks for it can be checked against it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class PlantedTruth:
    """Faults that were planted on purpose; indices count from 0 within their split.

    Attributes:
        train_masks: (N, H, W) bool, the visible pixels of each object; None where they are not known.
        test_masks: The same of the test split.
        wrong_labels: (W,) indices of training images whose label is wrong.
        true_labels: (W,) what is drawn in them.
        shortcut_class: The class that the mark goes with in training.
        shortcut_train: (N,) bool, the training images that carry the mark: all of that class.
        shortcut_test: (M,) bool, the test images that carry it: all of other classes.
        shortcut_box: Top, left, bottom, right of the mark in pixels, end exclusive.
        leaks: (L, 2), pairs of a test image and the training image that it was copied from. A copy has its
            true label.
        leak_kinds: (L,), how the copy was altered: "exact", "mirrored", "brighter", "noisy" and so on.
        wrong_test: (V,) indices of test images whose label is wrong.
        true_test: (V,) what is in them.
        degraded: (M,) bool, the test images that were made worse: blurred or dark. Empty where none were.
        degraded_name: What they have in common, as a slice would say it.
        strangers: (S,) indices of test images that are of no class.
    """

    train_masks: np.ndarray | None
    test_masks: np.ndarray | None
    wrong_labels: np.ndarray
    true_labels: np.ndarray
    shortcut_class: int
    shortcut_train: np.ndarray
    shortcut_test: np.ndarray
    shortcut_box: tuple[int, int, int, int]
    leaks: np.ndarray
    leak_kinds: np.ndarray
    wrong_test: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    true_test: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    degraded: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    degraded_name: str = ""
    strangers: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def take(self, train: np.ndarray, test: np.ndarray) -> PlantedTruth:
        """Return the truth of the subset with these images of each split; a leak needs both its ends."""
        new_train = _new_indices(train, len(self.shortcut_train))
        new_test = _new_indices(test, len(self.shortcut_test))
        wrong_test, strangers = new_test[self.wrong_test], new_test[self.strangers]
        wrong = new_train[self.wrong_labels]
        leaks = np.stack([new_test[self.leaks[:, 0]], new_train[self.leaks[:, 1]]], axis=1)
        kept = (leaks >= 0).all(axis=1)
        return PlantedTruth(
            train_masks=None if self.train_masks is None else self.train_masks[train],
            test_masks=None if self.test_masks is None else self.test_masks[test],
            wrong_labels=wrong[wrong >= 0],
            true_labels=self.true_labels[wrong >= 0],
            shortcut_class=self.shortcut_class,
            shortcut_train=self.shortcut_train[train],
            shortcut_test=self.shortcut_test[test],
            shortcut_box=self.shortcut_box,
            leaks=leaks[kept],
            leak_kinds=self.leak_kinds[kept],
            wrong_test=wrong_test[wrong_test >= 0],
            true_test=self.true_test[wrong_test >= 0],
            degraded=self.degraded[test] if len(self.degraded) else self.degraded,
            degraded_name=self.degraded_name,
            strangers=strangers[strangers >= 0],
        )


def _new_indices(kept: np.ndarray, count: int) -> np.ndarray:
    """The index of each of `count` images among those that are kept, -1 for the others: (count,)."""
    indices = np.full(count, -1)
    indices[kept] = np.arange(len(kept))
    return indices
