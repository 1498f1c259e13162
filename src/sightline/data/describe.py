"""What a data set holds, as a plain table for a terminal, a report or JSON."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from sightline.data.dataset import Dataset, Split


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return the facts of a data set in plain Python values, ready for JSON.

    Keys: name, source, image_size [H, W], class_names, train_counts and test_counts (images per class), mean
    and std per channel of the training split in [0, 1], skipped (files that could not be read), planted
    (a summary of the truth, or None), fingerprint (as :func:`fingerprint` gives it).
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
        "fingerprint": fingerprint(dataset),
    }


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Return what tells a data set from another: name, train and test (sizes), class_names, labels_sha256.

    labels_sha256: {"train": hex, "test": hex} of the labels as little-endian int64. Decisions about
    images carry it, so that they are never applied to images they were not made about.
    """
    splits = {"train": dataset.train, "test": dataset.test}
    return {
        "name": dataset.name,
        **{word: len(split) for word, split in splits.items()},
        "class_names": list(dataset.class_names),
        "labels_sha256": {
            word: hashlib.sha256(split.labels.astype("<i8").tobytes()).hexdigest()
            for word, split in splits.items()
        },
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
