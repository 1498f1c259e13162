"""One pass of a model over a split, for everybody: the training loop, the analysis, a notebook.

Views of a test image: the image itself and slight changes of it, with the weight that each has.

A function of views takes images (B, 3, H, W) and yields pairs of a weight and images of the same
shape; the weights sum to 1, and the images themselves come first.

    >>> [weight for weight, _ in mirror_shifts(torch.zeros(1, 3, 4, 4))]
    [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]

Predictions made by all processes of a job together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sightline import distributed
from sightline.data import Split
from sightline.data.splits import part_of
from sightline.errors import SightlineError, nearest
from sightline.models import autocast, device_of, evaluating, to_float
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


def predict(
    model: nn.Module,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = 500,
    precision: str = "float32",
) -> Predictions:
    """Return the logits of every image of `split`, in its order, on the device the model is on.

    The model runs in evaluation mode without gradients, and is left in the modes it was in.
    class_names: defaults to "0", "1", ... precision: "float32", "bfloat16" or "float16" (autocast);
    logits are float32 in any case.

    Raises SightlineError if the model does not return (B, C) logits with one column per class, or
    returns a value that is not finite.
    """
    return predict_views(
        model, split, views=none, class_names=class_names, batch_size=batch_size, precision=precision
    ).plain


def predict_views(
    model: nn.Module,
    split: Split,
    *,
    views: str | Views = "mirror",
    class_names: Sequence[str] | None = None,
    batch_size: int = 500,
    precision: str = "float32",
) -> ViewPredictions:
    """Return the predictions of every image of `split` in each of its views, among them the plain ones.

    views: a name of :data:`VIEWS`, or a function like those. All else as in :func:`predict`; a pass
    over the split per view.

    Raises SightlineError as `predict` does, or for views that are not known.
    """
    if isinstance(views, str) and views not in VIEWS:
        raise SightlineError(f"views {views!r} are not known; {nearest(views, list(VIEWS))}")
    function = VIEWS[views] if isinstance(views, str) else views
    device = device_of(model)
    weights: list[float] = []
    blocks: list[torch.Tensor] = []
    with torch.inference_mode(), evaluating(model):
        for block in split.blocks(batch_size):
            images = torch.from_numpy(block)  # (B, H, W, 3) uint8
            pairs = list(function(to_float(images.to(device))))
            with autocast(device, precision):
                logits = [_checked(model(view), len(images)).float() for _, view in pairs]  # V times (B, C)
            weights = [weight for weight, _ in pairs]
            blocks.append(torch.stack(logits))
    logits = torch.cat(blocks, dim=1).cpu().numpy()  # (V, N, C)
    tables = [_table(view, split, class_names) for view in logits]
    return ViewPredictions(np.array(weights), tuple(tables))


def _table(logits: np.ndarray, split: Split, class_names: Sequence[str] | None) -> Predictions:
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(logits.shape[1])))
    if logits.shape[1] != len(names):
        raise SightlineError(
            f"the model has {logits.shape[1]} outputs and the data {len(names)} classes; "
            f"create the model with num_classes={len(names)}"
        )
    if split.labels.max() >= len(names):
        raise SightlineError(f"label {split.labels.max()} has no output: the model has {len(names)}")
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise SightlineError(
            f"the model's logits are not finite for {bad} of {len(split)} images; "
            "its weights are damaged or training diverged: lower the learning rate"
        )
    return Predictions(logits, split.labels, names)


def _checked(logits: object, count: int) -> torch.Tensor:
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != count:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise SightlineError(f"the model returned {got}; predict needs a tensor of logits ({count}, C)")
    return logits


def predict_shared(
    model: nn.Module, split: Split, *, class_names: Sequence[str], precision: str = "float32"
) -> Predictions:
    """Return what :func:`predict` returns, each process having done its part of the rows.

    Every process of the group has to call it, with the same weights, and gets the whole table, in data
    order; without a group it is `predict`. Raises what `predict` raises, in all processes.
    """
    return predict_views_shared(
        model, split, views="none", class_names=class_names, precision=precision
    ).plain


def predict_views_shared(
    model: nn.Module, split: Split, *, views: str, class_names: Sequence[str], precision: str = "float32"
) -> ViewPredictions:
    """Return what :func:`predict_views` returns, each process having done its part of the rows."""

    def of(rows: Split) -> ViewPredictions:
        return predict_views(model, rows, views=views, class_names=class_names, precision=precision)

    if distributed.size() == 1:
        return of(split)
    rows = np.arange(len(split))[part_of(len(split), distributed.rank(), distributed.size())]
    parts = distributed.all_do(lambda: _logits(of(split.take(rows))) if len(rows) else None)
    found = [part for part in parts if part is not None]
    logits = np.concatenate([part for _, part in found], axis=1)  # (V, N, C)
    tables = tuple(Predictions(view, split.labels, tuple(class_names)) for view in logits)
    return ViewPredictions(found[0][0], tables)


def _logits(viewed: ViewPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Weights (V,) and logits (V, n, C)."""
    return viewed.weights, np.stack([view.logits for view in viewed.views])
