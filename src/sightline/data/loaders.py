"""Batches of a split, the same for the same seed and epoch, from whichever step one begins.

`ResidentBatches` keeps the images on the device and augments there. `StreamedBatches` has worker processes
read them, wherever they lie, and may put them through a Compose. Both follow one protocol: `len(batches)`
steps per epoch, and `batches.epoch(number, start)` yields them. Which images a step takes is a pure function
of the seed and the epoch.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sightline.data.augment import Augmentation, random_generator, reseed
from sightline.data.dataset import Dataset, Split, part_of
from sightline.data.image_files import ImageFiles
from sightline.data.photo_augment import OnDevice
from sightline.errors import DamagedFileError, InputError, SightlineError

if TYPE_CHECKING:
    import albumentations

_ORDER = 2  # the random stream, next to those of the augmentation


class Batch(NamedTuple):
    """images: float32 (B, 3, H, W) in [0, 1]. labels: (B,) int64. indices: (B,) int64, into the split."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class Plan:
    """How many steps an epoch has, and which images each of them takes."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        shard: tuple[int, int],
        balanced: np.ndarray | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it needs 1 or more")
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.shard = shard
        self._chances: Tensor | None = None  # of each image to be drawn; None: each comes once an epoch
        if balanced is not None:
            counts = np.bincount(balanced)
            self._chances = torch.from_numpy(1 / counts[balanced])
        self.stream = shard[:1] if shard[1] > 1 else ()  # tells this part's random stream from the others'
        full, rest = divmod(count, batch_size)
        self.steps = max(full, 1) if drop_last else full + bool(rest)

    def order(self, epoch: int) -> Tensor:
        """(N,) int64 on the CPU."""
        if self._chances is not None:
            generator = random_generator(self.seed, epoch, _ORDER)
            return torch.multinomial(self._chances, self.count, replacement=True, generator=generator)
        if not self.shuffle:
            return torch.arange(self.count)
        return torch.randperm(self.count, generator=random_generator(self.seed, epoch, _ORDER))

    def draws_in(self, order: Tensor) -> Tensor:
        """Which of an epoch's draws each place of the order gets: its image's own, wherever it comes.

        Of a balanced epoch, in which an image may come twice, each place has one of its own.
        """
        return order if self._chances is None else torch.arange(self.count)

    def slice(self, step: int) -> slice:
        start, part = step * self.batch_size, part_of(self.images(step), *self.shard)
        return slice(start + part.start, start + part.stop) if self.weight(step) else slice(start, start + 1)

    def weight(self, step: int) -> float:
        part, whole = part_of(self.images(step), *self.shard), self.images(step)
        return (part.stop - part.start) * self.shard[1] / whole

    def images(self, step: int) -> int:
        """Images in the batch of all parts together."""
        return min(self.batch_size, self.count - step * self.batch_size)


class StreamedBatches:
    """Batches whose images were read by worker processes, ahead of the training.

    transform: an albumentations.Compose, which is copied, goes over the images one by one in the workers; its
    random stream for each batch is a pure function of (seed, epoch, step), whatever the number of workers. An
    Augmentation, or None, is applied on the device to the whole batch, with the result that `ResidentBatches`
    has; one of engine "albumentations" is made a Compose. fill, shuffle, drop_last, shard and the order of
    the images are those of `ResidentBatches`; of a Compose, each part of a batch has a stream of its own.
    num_workers: 0 does the work in this process; by default one for each processor, 8 at most. Each has two
    batches ready or in the making, and no other image is in memory if they stay in their files. Workers live
    for an epoch and end with it, also when the consumer stops early or fails.

    Raises:
        InputError: A Compose does not return uint8 images of the split's size, or the augmentation does not
            fit the images.
        DamagedFileError: A file cannot be read.
    """

    def __init__(
        self,
        split: Split,
        transform: albumentations.Compose | OnDevice | None,
        *,
        batch_size: int,
        fill: Sequence[float],
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        drop_last: bool = True,
        num_workers: int | None = None,
        shard: tuple[int, int] = (0, 1),
        balanced: bool = False,
    ) -> None:
        labels = split.labels if balanced else None
        self._plan = Plan(len(split), batch_size, seed, shuffle, drop_last, shard, labels)
        if isinstance(transform, Augmentation) and transform.engine == "albumentations":
            height, width = split.images.shape[1:3]
            transform = transform.to_albumentations((height, width), fill=fill)
        if transform is None or isinstance(transform, OnDevice):
            self._augmentation, compose = transform or Augmentation(), None
        else:
            self._augmentation, compose = None, copy.deepcopy(transform)
        self._pictures = _Pictures(split.images, compose)
        self._fill = tuple(float(value) for value in fill)
        self._labels = torch.from_numpy(split.labels)
        self._device = torch.device(device)
        self._num_workers = min(os.cpu_count() or 1, 8) if num_workers is None else num_workers
        self._pictures.check()
        self._draw(0)  # what does not fit is an error now

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._plan.steps

    def weight(self, step: int) -> float:
        """As in `ResidentBatches`."""
        return self._plan.weight(step)

    def images(self, step: int) -> int:
        """As in `ResidentBatches`."""
        return self._plan.images(step)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of `epoch`, beginning with step `start`."""
        order = self._plan.order(epoch)
        steps = range(start, len(self))
        parts = [order[self._plan.slice(step)] for step in steps]
        stream = self._plan.stream
        tasks = [
            ((self._plan.seed, epoch, step, *stream), part.numpy())
            for step, part in zip(steps, parts, strict=True)
        ]
        draws, places = self._draw(epoch), self._plan.draws_in(order)
        chosen = [places[self._plan.slice(step)] for step in steps]
        with self._load(tasks) as loaded:
            for indices, own, pixels in zip(parts, chosen, loaded, strict=True):
                if isinstance(pixels, str):
                    raise DamagedFileError(pixels)
                images = self._finish(pixels.to(self._device, non_blocking=True), own, draws)
                yield Batch(images, self._labels[indices].to(self._device), indices.to(self._device))

    def _draw(self, epoch: int) -> Any:
        """What the augmentation draws for each image of the split in this epoch, as in `ResidentBatches`."""
        if self._augmentation is None:
            return None
        height, width = self._pictures.images.shape[1:3]
        return self._augmentation.draw(self._plan.count, (height, width), seed=self._plan.seed, epoch=epoch)

    def _finish(self, pixels: Tensor, places: Tensor, draws: Any) -> Tensor:
        """uint8 (B, H, W, 3) to float32 (B, 3, H, W), augmented by the draws at `places`."""
        if self._augmentation is None or draws is None:
            return pixels.float().div_(255).permute(0, 3, 1, 2)
        everyone, drawn = torch.arange(len(pixels), device=self._device), draws[places].to(self._device)
        return self._augmentation.apply(pixels, everyone, drawn, fill=self._fill)

    @contextlib.contextmanager
    def _load(self, tasks: list) -> Iterator[Iterator[Tensor]]:
        loader = DataLoader(
            self._pictures,
            sampler=tasks,
            batch_size=None,  # a task is a batch already
            num_workers=self._num_workers,
            pin_memory=self._device.type == "cuda",
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
    """What the workers hold: a task is a seed and the indices of one batch, its result uint8 (B, H, W, 3).

    An error is returned as its line: raised, it would arrive with the traceback of the worker in it.
    """

    def __init__(self, images: np.ndarray | ImageFiles, transform: albumentations.Compose | None) -> None:
        self.images = images
        self._transform = transform

    def __getitem__(self, task: tuple[tuple[int, ...], np.ndarray]) -> np.ndarray | str:
        seed, indices = task
        try:
            pixels = self._read(indices)  # (B, H, W, 3)
        except SightlineError as error:
            return str(error)
        if self._transform is None:
            return pixels
        reseed(self._transform, seed)
        return np.stack([self._transform(image=image)["image"] for image in pixels])

    def _read(self, indices: np.ndarray) -> np.ndarray:
        if not isinstance(self.images, ImageFiles):
            return self.images[indices]
        return self.images.read(indices, threads=1 if torch.utils.data.get_worker_info() else None)

    def check(self) -> None:
        seed = (0, 0, 0)
        out = self[seed, np.zeros(1, np.int64)]
        if isinstance(out, str):
            raise DamagedFileError(out)
        if out.dtype != np.uint8 or out.shape[1:] != self.images.shape[1:]:
            raise InputError(
                f"the transform turns uint8 {self.images.shape[1:]} images into {out.dtype} {out.shape[1:]};"
                " it has to keep type and size (normalising is the model's first layer)"
            )


def _single_thread(worker: int) -> Any:
    if "cv2" in sys.modules:  # comes with albumentations
        sys.modules["cv2"].setNumThreads(0)  # the workers are the parallelism


class ResidentBatches:
    """Batches of a data set that lies on the device whole, augmented there a batch at a time.

    fill: three values in [0, 1] for cutouts and padding, the mean of the training split. shuffle: a new
    order in each epoch. balanced: draw as many images as there are, with replacement, each class as often.
    drop_last: leave out a last batch that is not full, unless it is the only one.
    shard: (part, parts) yields that part of each batch, one of `parts` that together are the batch.
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
        augmentation: OnDevice | None = None,
        fill: Sequence[float],
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        drop_last: bool = True,
        shard: tuple[int, int] = (0, 1),
        balanced: bool = False,
    ) -> None:
        labels = split.labels if balanced else None
        self._plan = Plan(len(split), batch_size, seed, shuffle, drop_last, shard, labels)
        self._augmentation = augmentation or Augmentation()
        if self._augmentation.engine != "builtin":
            raise InputError(
                f"the engine {self._augmentation.engine!r} works on single images; use StreamedBatches"
            )
        self._fill = tuple(float(value) for value in fill)
        self._images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device)  # (N, H, W, 3)
        self._labels = torch.from_numpy(split.labels).to(device)
        self._augmentation.draw(0, self._image_size, seed=seed, epoch=0)  # what does not fit is an error now

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._plan.steps

    def weight(self, step: int) -> float:
        """Factor of the mean loss of this part of a step: its mean over the parts is that of the whole batch.

        1 where there is one part; 0 where no image is left for this one, which then repeats the first.
        """
        return self._plan.weight(step)

    def images(self, step: int) -> int:
        """Images of a step, all parts together."""
        return self._plan.images(step)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of `epoch`, beginning with step `start`."""
        order = self._plan.order(epoch)
        count, device = self._plan.count, self._images.device
        # Drawn per image, then brought into the order of the epoch: an image's flip alternates
        # wherever in the epoch it comes.
        draws: Any = self._augmentation.draw(count, self._image_size, seed=self._plan.seed, epoch=epoch)
        draws, order = draws[self._plan.draws_in(order)].to(device), order.to(device)
        for step in range(start, len(self)):
            part = self._plan.slice(step)
            indices = order[part]
            images = self._augmentation.apply(self._images, indices, draws[part], fill=self._fill)
            yield Batch(images, self._labels[indices], indices)

    @property
    def _image_size(self) -> tuple[int, int]:
        return self._images.shape[1], self._images.shape[2]


def preview_augmentation(
    data: Dataset,
    augmentation: OnDevice | albumentations.Compose,
    indices: np.ndarray | list[int],
    *,
    seed: int = 0,
) -> np.ndarray:
    """Return the training images at `indices` (M,), augmented as in an epoch: uint8 (M, H, W, 3).

    The same index may stand many times: each gets a draw of its own.

    >>> from sightline.data import load_data
    >>> preview_augmentation(load_data("shapes", limit=10), Augmentation(crop_padding=2), [3, 3]).shape
    (2, 32, 32, 3)
    """
    split = data.train.take(np.asarray(indices))
    if isinstance(augmentation, OnDevice) and augmentation.engine == "builtin":
        batches = ResidentBatches(
            split,
            augmentation=augmentation,
            fill=data.mean.tolist(),
            batch_size=len(split),
            seed=seed,
            shuffle=False,
        )
    else:
        batches = StreamedBatches(
            split,
            augmentation,
            fill=data.mean.tolist(),
            batch_size=len(split),
            seed=seed,
            shuffle=False,
            num_workers=0,
        )
    images = next(iter(batches.epoch(0))).images  # (M, 3, H, W)
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
