"""What a data set holds, as a plain table for a terminal, a report or JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from sightline.data.dataset import Dataset, Split


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return the facts of a data set in plain Python values, ready for JSON.

    Keys: name, source, image_size [H, W], class_names, train_counts and test_counts (images per class), mean
    and std per channel of the training split in [0, 1], skipped (files that could not be read), planted
    (a summary of the truth, or None).
    """
    return {
        "name": dataset.name,
        "source": dataset.source,
        "image_size": list(dataset.image_size),
        "class_names": list(dataset.class_names),
        "train_counts": _counts(dataset.train, dataset.num_classes),
        "test_counts": _counts(dataset.test, dataset.num_classes),
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
        "skipped": list(dataset.skipped),
        "planted": _planted(dataset),
    }


def _counts(split: Split, classes: int) -> list[int]:
    return np.bincount(split.labels, minlength=classes).tolist()


def _planted(dataset: Dataset) -> dict[str, Any] | None:
    truth = dataset.truth
    if truth is None:
        return None
    return {
        "wrong_labels": len(truth.wrong_labels),
        "shortcut_class": dataset.class_names[truth.shortcut_class],
        "shortcut_train": int(truth.shortcut_train.sum()),
        "shortcut_test": int(truth.shortcut_test.sum()),
        "leaks": len(truth.leaks),
    }
