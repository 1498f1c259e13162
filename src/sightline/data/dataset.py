"""What every data set is here: two splits of uint8 images with integer labels.

>>> import numpy as np
>>> images = np.zeros((4, 2, 2, 3), np.uint8); images[:2] = 255
>>> split = Split(images, np.array([0, 0, 1, 1]))
>>> Dataset("black-and-white", ("white", "black"), train=split, test=split).mean
array([0.5, 0.5, 0.5])
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import SightlineError

if TYPE_CHECKING:
    from sightline.data.shapes import PlantedTruth


@dataclass(frozen=True)
class Split:
    """Images of one split, in a fixed order that every table of results keeps.

    images: (N, H, W, 3) uint8, RGB. labels: (N,) int64.
    """

    images: np.ndarray
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
        return Split(self.images[indices], self.labels[indices])


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
        # Counts of the 256 values make both moments exact: no rounding grows with the number of pixels.
        values = np.arange(256, dtype=np.float64) / 255
        mean, std = np.empty(3), np.empty(3)
        for channel in range(3):
            counts = np.bincount(self.train.images[..., channel].ravel(), minlength=256)
            share = counts / counts.sum()
            mean[channel] = share @ values
            std[channel] = np.sqrt(share @ (values - mean[channel]) ** 2)
        return mean, std

    @property
    def mean(self) -> np.ndarray:
        """Mean per channel over every pixel of the training split, (3,) in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """Standard deviation per channel (divided by N) over the training split, (3,) in [0, 1]."""
        return self._moments[1]
