"""Batches whose pictures are mixtures of two: mixup and cutmix.

A mix takes a batch and a random generator, and returns pictures of which each is one image's own for the
`share` and that of another image for the rest. The own part is never the smaller one, so that accuracy and
margins against an image's own label keep their sense; by symmetry of the pairs, the batches are
distributed as in the papers all the same.

    >>> mixed = mixup(alpha=1.0)(torch.eye(2).view(2, 1, 1, 2), np.random.default_rng(0))
    >>> 0.5 <= mixed.share <= 1
    True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sightline.signatures import Positive

_STREAM = 3  # the random stream, next to those of order and augmentation


@dataclass(frozen=True)
class Mixed:
    """A batch of mixtures.

    images: (B, 3, H, W). partners: (B,) int64, index within the batch of each image's other one. share: of
    the own images, in [0.5, 1].
    """

    images: torch.Tensor
    partners: torch.Tensor
    share: float


Mix = Callable[[torch.Tensor, np.random.Generator], Mixed]


def mixup(*, alpha: Positive = 1.0) -> Mix:
    """Every picture is share * own + (1 - share) * other (Zhang et al. 2018, arXiv:1710.09412).

    The share is drawn from Beta(alpha, alpha), once for a batch, as in the authors' code.
    """

    def mix(images: torch.Tensor, generator: np.random.Generator) -> Mixed:
        drawn = generator.beta(alpha, alpha)
        share = max(drawn, 1 - drawn)
        partners = _partners(images, generator)
        return Mixed(images.lerp(images[partners], 1 - share), partners, share)

    return mix


def cutmix(*, alpha: Positive = 1.0) -> Mix:
    """Every picture has a rectangle of another one (Yun et al. 2019, arXiv:1905.04899, algorithm 1).

    The rectangle has the picture's aspect and the area 1 - Beta(alpha, alpha), its centre lies anywhere,
    what hangs over the edge is cut, and the share counts the pixels that are left. One rectangle
    for a batch, as in the authors' code.
    """

    def mix(images: torch.Tensor, generator: np.random.Generator) -> Mixed:
        height, width = images.shape[-2:]
        side = np.sqrt(1 - generator.beta(alpha, alpha))
        rows = _span(height, int(height * side), generator)
        columns = _span(width, int(width * side), generator)
        partners = _partners(images, generator)
        inside = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        others = images[partners]
        base, patch = (images, others) if inside <= 0.5 else (others, images)
        mixed = base.clone()
        mixed[:, :, rows, columns] = patch[:, :, rows, columns]
        return Mixed(mixed, partners, max(inside, 1 - inside))

    return mix


def mix_generator(seed: int, epoch: int, step: int) -> np.random.Generator:
    """Return the generator of one batch: a function of its arguments, so that a resumed run draws alike."""
    return np.random.default_rng([seed, epoch, _STREAM, step])


def _span(size: int, length: int, generator: np.random.Generator) -> slice:
    centre = int(generator.integers(size))
    return slice(max(0, centre - length // 2), min(size, centre - length // 2 + length))


def _partners(images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(generator.permutation(len(images))).to(images.device)


MIXES: dict[str, Callable[..., Mix | None]] = {"none": lambda: None, "mixup": mixup, "cutmix": cutmix}
"""Mixes by name: functions that return a mix, or None."""
