"""Batches of a split, the same for the same seed and epoch, from whichever step one begins.

`ResidentBatches` keeps the images on the device and augments there; `StreamedBatches` has worker processes
read them. Both follow one protocol: `len(batches)` steps per epoch, `batches.epoch(number, start)` yields.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch

from sightline.data.augment import Augmentation
from sightline.data.dataset import Split
from sightline.data.plan import Batch, Plan


class ResidentBatches:
    """Batches of a data set that lies on the device whole, augmented there a batch at a time.

    fill: three values in [0, 1] for holes and padding, the mean of the training split. shuffle: a new
    order in each epoch. drop_last: leave out a last batch that is not full, unless it is the only one.
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
        augmentation: Augmentation | None = None,
        fill: Sequence[float],
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        drop_last: bool = True,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._plan = Plan(len(split), batch_size, seed, shuffle, drop_last, shard)
        self._augmentation = augmentation or Augmentation()
        self._fill = tuple(float(value) for value in fill)
        self._images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device)  # (N, H, W, 3)
        self._labels = torch.from_numpy(split.labels).to(device)
        self._augmentation.draw(0, self._image_size, seed=seed, epoch=0)  # what does not fit is told now

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._plan.steps

    def weight(self, step: int) -> float:
        """Factor of the mean loss of this part of a step: its mean over the parts is that of the whole batch.

        1 where there is one part; 0 where no image is left for this one, which then repeats the first.
        """
        return self._plan.weight(step)

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
