"""Batches of a split, the same for the same seed and epoch, from whichever step one begins.

`ResidentBatches` keeps the images on the device and augments there. `StreamedBatches` puts each image
through an albumentations.Compose in worker processes. Both follow one protocol: `len(batches)` steps
per epoch, `batches.epoch(number, start)` to iterate.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sightline.data.augment import Augmentation, random_generator
from sightline.data.compose import reseed
from sightline.data.dataset import Split
from sightline.errors import SightlineError

if TYPE_CHECKING:
    import albumentations

_ORDER = 2  # the random stream, beside those of the augmentation


class Batch(NamedTuple):
    """images: float32 (B, 3, H, W) in [0, 1]. labels: (B,) int64. indices: (B,) int64, into the split."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class ResidentBatches:
    """Batches of a data set that lies on the device whole, augmented there a batch at a time.

    fill: three values in [0, 1] for holes and padding, the mean of the training split. shuffle: a new
    order in each epoch. drop_last: leave out a last batch that is not full, unless it is the only one.
    Whatever is drawn is a pure function of (seed, epoch).

    >>> split = Split(np.zeros((10, 4, 4, 3), np.uint8), np.arange(10))
    >>> batches = ResidentBatches(split, batch_size=4, fill=(0, 0, 0), seed=0)
    >>> len(batches), [len(batch.labels) for batch in batches.epoch(0)]
    (2, [4, 4])
    >>> torch.equal(next(batches.epoch(5, start=1)).indices, list(batches.epoch(5))[1].indices)
    True
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        augmentation: Augmentation | None = None,
        fill: Sequence[float],
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        self._plan = _Plan(len(split), batch_size, seed, shuffle, drop_last)
        self._augmentation = augmentation or Augmentation()
        self._fill = tuple(float(value) for value in fill)
        self._images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device)  # (N, H, W, 3)
        self._labels = torch.from_numpy(split.labels).to(device)
        self._augmentation.draw(0, self._image_size, seed=seed, epoch=0)  # what does not fit is told now

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._plan.steps

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of `epoch`, beginning with step `start`."""
        order = self._plan.order(epoch)
        count, device = self._plan.count, self._images.device
        # Drawn per image, then brought into the order of the epoch: an image's flip alternates
        # wherever in the epoch it comes.
        draws = self._augmentation.draw(count, self._image_size, seed=self._plan.seed, epoch=epoch)
        draws, order = draws[order].to(device), order.to(device)
        for step in range(start, len(self)):
            part = self._plan.slice(step)
            indices = order[part]
            images = self._augmentation.apply(self._images, indices, draws[part], fill=self._fill)
            yield Batch(images, self._labels[indices], indices)

    @property
    def _image_size(self) -> tuple[int, int]:
        return self._images.shape[1], self._images.shape[2]


class StreamedBatches:
    """Batches whose images went through an albumentations.Compose, one by one, in worker processes.

    transform: is copied; the random stream of each batch is a pure function of (seed, epoch, step),
    whatever the number of workers. num_workers: 0 does the work in this process. Workers live for
    an epoch and end with it, also when the consumer stops early or fails.
    shuffle and drop_last as in `ResidentBatches`. The order of images is that of `ResidentBatches`.

    Raises SightlineError if the transform does not return uint8 images of the split's size.
    """

    def __init__(
        self,
        split: Split,
        transform: albumentations.Compose,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        drop_last: bool = True,
        num_workers: int = 2,
    ) -> None:
        self._plan = _Plan(len(split), batch_size, seed, shuffle, drop_last)
        self._pictures = _Pictures(split.images, copy.deepcopy(transform))
        self._labels = torch.from_numpy(split.labels)
        self._device = device
        self._num_workers = num_workers
        self._pictures.check()

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._plan.steps

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of `epoch`, beginning with step `start`."""
        order = self._plan.order(epoch)
        steps = range(start, len(self))
        parts = [order[self._plan.slice(step)] for step in steps]
        tasks = [
            ((self._plan.seed, epoch, step), part.numpy()) for step, part in zip(steps, parts, strict=True)
        ]
        with self._load(tasks) as loaded:
            for indices, pixels in zip(parts, loaded, strict=True):
                images = pixels.to(self._device).float().div_(255).permute(0, 3, 1, 2)  # (B, 3, H, W)
                yield Batch(images, self._labels[indices].to(self._device), indices.to(self._device))

    @contextlib.contextmanager
    def _load(self, tasks: list) -> Iterator[Iterator[Tensor]]:
        loader = DataLoader(
            self._pictures,
            sampler=tasks,
            batch_size=None,  # a task is a batch already
            num_workers=self._num_workers,
            worker_init_fn=_single_thread,
            generator=torch.Generator(),  # else the loader draws from the global one
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads; torch keeps its workers to one thread.
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
            loaded = iter(loader)
        try:
            yield loaded
        finally:
            # An exception's traceback can keep the iterator alive, and its workers with it.
            getattr(loaded, "_shutdown_workers", lambda: None)()


class _Pictures(torch.utils.data.Dataset):
    """What the workers hold: a task is a seed and the indices of one batch, its result uint8 (B, H, W, 3)."""

    def __init__(self, images: np.ndarray, transform: albumentations.Compose) -> None:
        self._images = images
        self._transform = transform

    def __getitem__(self, task: tuple[tuple[int, int, int], np.ndarray]) -> np.ndarray:
        seed, indices = task
        reseed(self._transform, seed)
        return np.stack([self._transform(image=self._images[index])["image"] for index in indices])

    def check(self) -> None:
        seed = (0, 0, 0)
        out = self[seed, np.zeros(1, np.int64)]
        if out.dtype != np.uint8 or out.shape[1:] != self._images.shape[1:]:
            raise SightlineError(
                f"the transform turns uint8 {self._images.shape[1:]} images into {out.dtype} {out.shape[1:]};"
                " it has to keep type and size (normalising is the model's first layer)"
            )


class _Plan:
    """How many steps an epoch has, and which images each of them takes."""

    def __init__(self, count: int, batch_size: int, seed: int, shuffle: bool, drop_last: bool) -> None:
        if batch_size < 1:
            raise SightlineError(f"batch_size is {batch_size}; it needs 1 or more")
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        full, rest = divmod(count, batch_size)
        self.steps = max(full, 1) if drop_last else full + bool(rest)

    def order(self, epoch: int) -> Tensor:
        """(N,) int64 on the CPU."""
        if not self.shuffle:
            return torch.arange(self.count)
        return torch.randperm(self.count, generator=random_generator(self.seed, epoch, _ORDER))

    def slice(self, step: int) -> slice:
        return slice(step * self.batch_size, (step + 1) * self.batch_size)


def _single_thread(worker: int) -> Any:
    import cv2  # comes with albumentations

    cv2.setNumThreads(0)  # the workers are the parallelism
