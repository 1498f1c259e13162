"""What every data set is here: two splits of uint8 images with integer labels; and how a split is drawn.

>>> import numpy as np
>>> images = np.zeros((4, 2, 2, 3), np.uint8); images[:2] = 255
>>> split = Split(images, np.array([0, 0, 1, 1]))
>>> Dataset("black-and-white", ("white", "black"), train=split, test=split).mean
array([0.5, 0.5, 0.5])
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sightline.data.image_files import ImageFiles, Resizing, content_hash, pixel_sums
from sightline.data.shapes.truth import PlantedTruth
from sightline.data.splits import grouped_split
from sightline.errors import InputError


def stratified_split(
    labels: np.ndarray, *, test_fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a training and a test split, both in ascending order.

    With `groups`, (N,), none is in both; see `grouped_split`. Otherwise of each class the share
    `test_fraction` is tested, at least one image, and at least one is left to train on; a class of one image
    is trained on. A share of 1 tests all.

    >>> train, test = stratified_split(np.array([0, 0, 0, 0, 1, 1]), test_fraction=0.25, seed=0)
    >>> len(train), len(test)
    (4, 2)
    """
    if test_fraction == 1:
        return np.arange(0), np.arange(len(labels))
    if groups is not None:
        return grouped_split(labels, groups, test_fraction=test_fraction, seed=seed)
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


@dataclass(frozen=True)
class Split:
    """Images of one split, in a fixed order that every table of results keeps.

    Attributes:
        images: (N, H, W, 3) uint8, RGB: an array, or files that are read where they are indexed by image.
        labels: (N,) int64.
        metadata: N rows, what else is known of each image. The column `path` is always there: where the
            picture is, seen from the data's root, or a made-up name for an array, by default its number;
            a Dataset puts "train/" or "test/" in front. Of pictures in files the column `hash` is there too.

    Raises:
        InputError: Another type or shape.
    """

    images: np.ndarray | ImageFiles
    labels: np.ndarray
    metadata: pd.DataFrame = dataclasses.field(default=None, repr=False, compare=False)  # pyright: ignore

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(
                f"images are {images.dtype} {images.shape}; a split holds uint8 (N, H, W, 3) in RGB"
            )
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(
                f"labels are {labels.dtype} {labels.shape}; {len(images)} images need integers "
                f"({len(images)},)"
            )
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))
        table = self.metadata
        if table is None:
            table = pd.DataFrame({"path": [f"{number:05d}" for number in range(len(labels))]}, dtype=str)
        if len(table) != len(labels) or "path" not in table:
            raise InputError(
                f"metadata has {len(table)} rows and the columns {', '.join(map(str, table))}; it needs a "
                f"row for each of the {len(labels)} images and a column path"
            )
        object.__setattr__(self, "metadata", table.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def groups(self) -> np.ndarray | None:
        """The column `group` of the metadata, (N,): what must not be cut by a split; None without one."""
        return self.metadata["group"].to_numpy() if "group" in self.metadata else None

    @functools.cached_property
    def files(self) -> pd.DataFrame:
        """The columns path and hash of N rows: what an image is known by in every table of results.

        hash: 16 hexadecimal digits, of the bytes of a file, or of an array's pixels.
        """
        if "hash" in self.metadata:
            hashes = self.metadata["hash"].to_numpy()
        elif isinstance(self.images, ImageFiles):
            hashes = self.images.hashes()
        else:
            hashes = [content_hash(np.ascontiguousarray(image).data) for image in self.images]
        return pd.DataFrame({"path": self.metadata["path"].astype(str), "hash": hashes})

    def take(self, indices: np.ndarray) -> Split:
        """Return the images, labels and metadata at `indices`, in that order."""
        images = self.images
        taken = images.take(indices) if isinstance(images, ImageFiles) else images[indices]
        table = self.metadata.iloc[indices]
        if "hash" not in table and "files" in self.__dict__:  # worked out before
            table = table.assign(hash=self.files["hash"].iloc[indices])
        return Split(taken, self.labels[indices], table)

    def _named(self, word: str) -> Split:
        """The split with `word` in front of names that are numbers alone, which no file has."""
        paths = self.metadata["path"]
        if not len(paths) or not str(paths.iloc[0]).isdecimal():
            return self
        return dataclasses.replace(self, metadata=self.metadata.assign(path=f"{word}/" + paths))

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in order, `size` at a time: (up to size, H, W, 3)."""
        if isinstance(self.images, ImageFiles):
            yield from self.images.blocks(size)
        else:
            yield from (self.images[start : start + size] for start in range(0, len(self), size))


@dataclass(frozen=True)
class Dataset:
    """A training split, a test split, and the names of the classes.

    What is audited without training needs no training split: it may be of no image, `(0, H, W, 3)`. Where
    there are labels and no pictures, the images of both splits are `(N, 0, 0, 3)`.

    Attributes:
        name: What it is called.
        class_names: C names, in the order of the labels 0 to C - 1.
        train: Images to train on.
        test: Images to measure with.
        source: One line that says where the images came from.
        skipped: One line for each file that could not be read.
        notes: One line for each thing that loading decided and that somebody may want to know.
        truth: What was planted, for generated data.
        resizing: How pictures of files were brought to one size; None for arrays, taken as they are.

    Raises:
        InputError: The test split is empty, sizes differ, or a label has no class name.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    source: str = ""
    skipped: tuple[str, ...] = ()
    truth: PlantedTruth | None = None
    resizing: Resizing | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in ("train", "test"):
            object.__setattr__(self, word, getattr(self, word)._named(word))
        seen = set()
        for number, name in enumerate(self.class_names):
            if problem := _name_problem(name, seen):
                raise InputError(f"class {number} of data set {self.name!r} has the name {name!r}, {problem}")
            seen.add(name)
        for word, split in (("training", self.train), ("test", self.test)):
            height, width = split.images.shape[1:3]
            if (height == 0) != (width == 0):
                raise InputError(f"data set {self.name!r} has {word} images of {height}x{width} pixels")
            if not len(split):
                if split is self.train:
                    continue
                raise InputError(f"data set {self.name!r} has no {word} images; it needs at least one")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.num_classes:
                raise InputError(
                    f"data set {self.name!r} has a {word} label {low if low < 0 else high}; "
                    f"{self.num_classes} classes allow 0 to {self.num_classes - 1}"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise InputError(
                f"training images are {self.train.images.shape[1:]} and test images "
                f"{self.test.images.shape[1:]}; both splits need one size"
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def check_trainable(self) -> None:
        """Raise InputError where there is nothing to train on."""
        if not len(self.train) or not self.has_pictures:
            lacks = "pictures" if not self.has_pictures else "training images"
            raise InputError(
                f"data set {self.name!r} has no {lacks}, so nothing can be trained on it; "
                "'sightline inspect' audits what was trained elsewhere"
            )

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures, and not labels alone."""
        return 0 not in self.test.images.shape[1:]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels; 0 and 0 where there are no pictures."""
        height, width = self.train.images.shape[1:3]
        return height, width

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.has_pictures:
            return np.zeros(3), np.ones(3)
        # Whole numbers make both moments exact: no rounding grows with the number of pixels.
        images, (height, width) = (self.train if len(self.train) else self.test).images, self.image_size
        sums = images.sums.sum(axis=0) if isinstance(images, ImageFiles) else pixel_sums(images)  # (2, 3)
        count = len(images) * height * width
        means = [total / (255 * count) for total in sums[0].tolist()]
        spreads = [
            math.sqrt(count * squares - total**2) / (255 * count) for total, squares in sums.T.tolist()
        ]
        return np.array(means), np.array(spreads)

    @property
    def mean(self) -> np.ndarray:
        """Mean per channel over every pixel of the training split, (3,) in [0, 1].

        Of a test split that stands alone, where there is no training split.
        """
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """Standard deviation per channel (divided by N) over the training split, (3,) in [0, 1]."""
        return self._moments[1]


def _name_problem(name: object, seen: set[str]) -> str | None:
    """What is wrong with a class name, in words; None if nothing is."""
    if not isinstance(name, str):
        return "which is not text"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "which is not Unicode text"
    if not name.strip():
        return "which is empty"
    return "which another class has too; names have to differ" if name in seen else None


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return the facts of a data set in plain Python values, ready for JSON.

    Returns:
        A table with the keys name, source, image_size [H, W], resize and interpolation (how pictures were
        brought to that size; None for arrays), class_names, train_counts and test_counts (images per class),
        mean and std (per channel of the training split, in [0, 1]; empty without pictures, and the image size
        is None), skipped (files that could not be read),
        notes (what loading decided, a line each), planted (a summary of the truth, or None) and fingerprint
        (as :func:`fingerprint` gives it).
    """
    resizing = dataset.resizing
    return {
        "name": dataset.name,
        "source": dataset.source,
        "image_size": list(dataset.image_size) if dataset.has_pictures else None,
        "resize": resizing and resizing.rule,
        "interpolation": resizing and resizing.interpolation,
        "class_names": list(dataset.class_names),
        "train_counts": _counts(dataset.train, dataset.num_classes),
        "test_counts": _counts(dataset.test, dataset.num_classes),
        "mean": dataset.mean.tolist() if dataset.has_pictures else [],
        "std": dataset.std.tolist() if dataset.has_pictures else [],
        "skipped": list(dataset.skipped),
        "notes": list(dataset.notes),
        "planted": _planted(dataset),
        "fingerprint": fingerprint(dataset),
    }


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Return what tells a data set from another.

    Decisions about images carry it, so that they are never applied to images they were not made about.

    Returns:
        A table with the keys name, train and test (numbers of images), class_names and labels_sha256:
        {"train": hex, "test": hex} of the labels as little-endian int64.
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
        "shortcut_class": dataset.class_names[truth.shortcut_class] if truth.shortcut_class >= 0 else "",
        "shortcut_train": int(truth.shortcut_train.sum()),
        "shortcut_test": int(truth.shortcut_test.sum()),
        "leaks": len(truth.leaks),
    }
