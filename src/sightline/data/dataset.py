"""What every data set is here: two splits of uint8 images with integer labels.

>>> import numpy as np
>>> images = np.zeros((4, 2, 2, 3), np.uint8); images[:2] = 255
>>> split = Split(images, np.array([0, 0, 1, 1]))
>>> Dataset("black-and-white", ("white", "black"), train=split, test=split).mean
array([0.5, 0.5, 0.5])
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.data.image_files import ImageFiles, pixel_sums
from sightline.errors import SightlineError

if TYPE_CHECKING:
    from sightline.data.shapes.generate import PlantedTruth


@dataclass(frozen=True)
class Split:
    """Images of one split, in a fixed order that every table of results keeps.

    images: (N, H, W, 3) uint8, RGB: an array, or files that are read where they are indexed by image.
    labels: (N,) int64.
    """

    images: np.ndarray | ImageFiles
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise SightlineError(
                f"images are {images.dtype} {images.shape}; a split holds uint8 (N, H, W, 3) in RGB"
            )
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise SightlineError(
                f"labels are {labels.dtype} {labels.shape}; {len(images)} images need integers "
                f"({len(images)},)"
            )
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> Split:
        """Return the images and labels at `indices`, in that order."""
        images = self.images
        taken = images.take(indices) if isinstance(images, ImageFiles) else images[indices]
        return Split(taken, self.labels[indices])

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in order, `size` at a time: (up to size, H, W, 3)."""
        if isinstance(self.images, ImageFiles):
            yield from self.images.blocks(size)
        else:
            yield from (self.images[start : start + size] for start in range(0, len(self), size))


@dataclass(frozen=True)
class Dataset:
    """A training split, a test split, and the names of the classes.

    source: one line that says where the images came from. skipped: one line for each file
    that could not be read. truth: what was planted, for generated data.

    Raises SightlineError if a split is empty, sizes differ, or a label has no class name.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    source: str = ""
    skipped: tuple[str, ...] = ()
    truth: PlantedTruth | None = None

    def __post_init__(self) -> None:
        for word, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise SightlineError(f"data set {self.name!r} has no {word} images; it needs at least one")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.num_classes:
                raise SightlineError(
                    f"data set {self.name!r} has a {word} label {low if low < 0 else high}; "
                    f"{self.num_classes} classes allow 0 to {self.num_classes - 1}"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise SightlineError(
                f"training images are {self.train.images.shape[1:]} and test images "
                f"{self.test.images.shape[1:]}; both splits need one size"
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.train.images.shape[1:3]
        return height, width

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        # Whole numbers make both moments exact: no rounding grows with the number of pixels.
        images, (height, width) = self.train.images, self.image_size
        sums = images.sums.sum(axis=0) if isinstance(images, ImageFiles) else pixel_sums(images)  # (2, 3)
        count = len(images) * height * width
        means = [total / (255 * count) for total in sums[0].tolist()]
        spreads = [
            math.sqrt(count * squares - total**2) / (255 * count) for total, squares in sums.T.tolist()
        ]
        return np.array(means), np.array(spreads)

    @property
    def mean(self) -> np.ndarray:
        """Mean per channel over every pixel of the training split, (3,) in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """Standard deviation per channel (divided by N) over the training split, (3,) in [0, 1]."""
        return self._moments[1]
