"""Which images each step of an epoch takes: a pure function of the seed and the epoch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sightline.data.augment import random_generator
from sightline.data.splits import part_of
from sightline.errors import SightlineError

_ORDER = 2  # the random stream, beside those of the augmentation


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
    ) -> None:
        if batch_size < 1:
            raise SightlineError(f"batch_size is {batch_size}; it needs 1 or more")
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.shard = shard
        self.stream = shard[:1] if shard[1] > 1 else ()  # tells this part's random stream from the others'
        full, rest = divmod(count, batch_size)
        self.steps = max(full, 1) if drop_last else full + bool(rest)

    def order(self, epoch: int) -> Tensor:
        """(N,) int64 on the CPU."""
        if not self.shuffle:
            return torch.arange(self.count)
        return torch.randperm(self.count, generator=random_generator(self.seed, epoch, _ORDER))

    def slice(self, step: int) -> slice:
        start, part = step * self.batch_size, part_of(self._whole(step), *self.shard)
        return slice(start + part.start, start + part.stop) if self.weight(step) else slice(start, start + 1)

    def weight(self, step: int) -> float:
        part, whole = part_of(self._whole(step), *self.shard), self._whole(step)
        return (part.stop - part.start) * self.shard[1] / whole

    def _whole(self, step: int) -> int:
        """Images in the batch of all parts."""
        return min(self.batch_size, self.count - step * self.batch_size)
