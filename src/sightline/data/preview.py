"""Pictures as the model meets them in training, to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sightline.data.augment import Augmentation
from sightline.data.batches import ResidentBatches
from sightline.data.dataset import Dataset
from sightline.data.streamed import StreamedBatches

if TYPE_CHECKING:
    import albumentations


def preview_augmentation(
    data: Dataset,
    augmentation: Augmentation | albumentations.Compose,
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
    if isinstance(augmentation, Augmentation):
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
