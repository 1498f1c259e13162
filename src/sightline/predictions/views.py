"""Views of a test image: the image itself and slight changes of it, with the weight that each has.

A function of views takes images (B, 3, H, W) and yields pairs of a weight and images of the same
shape; the weights sum to 1, and the images themselves come first.

    >>> [weight for weight, _ in mirror_shifts(torch.zeros(1, 3, 4, 4))]
    [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from sightline.predictions.table import Predictions

Views = Callable[[torch.Tensor], Iterator[tuple[float, torch.Tensor]]]


def none(images: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
    """The images alone."""
    yield 1.0, images


def mirror(images: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
    """The images and their mirror images."""
    yield 0.5, images
    yield 0.5, images.flip(-1)


def mirror_shifts(images: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
    """The images, the same moved by a pixel down and right, and up and left, and the mirror images of all.

    Six views; the two that are not moved weigh as much as the other four (Jordan 2024,
    arXiv:2404.00498, section 3.5). Pixels that a move uncovers are filled by reflection.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")  # (B, 3, H + 2, W + 2)
    yield from ((weight / 2, view) for weight, view in mirror(images))
    for corner in (0, 2):
        moved = padded[:, :, corner : corner + height, corner : corner + width]
        yield from ((weight / 4, view) for weight, view in mirror(moved))


VIEWS: dict[str, Views] = {"none": none, "mirror": mirror, "mirror_shifts": mirror_shifts}


@dataclass(frozen=True)
class ViewPredictions:
    """Predictions of V views of the same images, of which the first are the images as they are.

    weights: (V,), summing to 1. views: V tables of predictions in the same order.
    """

    weights: np.ndarray
    views: tuple[Predictions, ...]

    @property
    def plain(self) -> Predictions:
        """Predictions of the images as they are, equal to those of `predict`."""
        return self.views[0]

    @functools.cached_property
    def mean(self) -> Predictions:
        """Predictions by the weighted mean of the views' logits."""
        stacked = np.stack([view.logits.astype(np.float64) for view in self.views])  # (V, N, C)
        logits = np.tensordot(self.weights, stacked, axes=1)  # (N, C)
        return Predictions(logits.astype(np.float32), self.plain.labels, self.plain.class_names)

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of each view's logits, (V, N, C) float64."""
        return np.stack([view.probabilities for view in self.views])
