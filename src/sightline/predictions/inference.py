"""One pass of a model over a split, for everybody: the training loop, the analysis, a notebook.

    predictions = predict(model, data.test, class_names=data.class_names)
    augmented = predict_tta(model, data.test, tta="mirror")     # test-time augmentation
    augmented.mean                                              # by the weighted mean of the logits

A test-time augmentation is a function of images (B, 3, H, W) that yields pairs of a weight and images of the
same shape. The weights sum to 1, and the images as they are come first.

    >>> [weight for weight, _ in mirror_shifts(torch.zeros(1, 3, 4, 4))]
    [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]

Where several processes work on one job, `predict_shared` and `predict_tta_shared` give each a part of
the rows.

`predict_corrupted` predicts a sample of a split after each corruption: the passes behind a robustness table.

    predict_split = functools.partial(predict, model, class_names=data.class_names)
    found = predict_corrupted(predict_split, data.test)
    found.clean.mean(), found.corrupted["fog", 3].mean()    # accuracy without, and with dense fog
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sightline import distributed, logs
from sightline.data import CORRUPTIONS, Split, corrupt
from sightline.data.corruptions import SEVERITIES, Corruption
from sightline.data.dataset import part_of
from sightline.errors import InputError
from sightline.extensions import resolve
from sightline.models import autocast, device_of, evaluating, to_float
from sightline.predictions.table import Predictions

_PIXELS = 2**22  # of pictures in one forward pass
_FLOATS = 2**24  # of pictures that are worked on at once: 64 MB


@dataclass(frozen=True, eq=False)
class CorruptedPredictions:
    """Which of a sample of n images are predicted right.

    Attributes:
        index: (n,), their indices in the split, ascending.
        clean: (n,) bool, right as they are.
        corrupted: The same after each (name of a corruption, severity).
    """

    index: np.ndarray
    clean: np.ndarray
    corrupted: dict[tuple[str, int], np.ndarray]


def predict_corrupted(
    predict_split: Callable[[Split], Predictions],
    split: Split,
    *,
    corruptions: Mapping[str, Corruption] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    sample: int | None = 500,
    seed: int = 0,
) -> CorruptedPredictions:
    """Return which images of a sample are right as they are and after each corruption and severity.

    It costs one pass over the sample for each corruption and severity.

    Args:
        predict_split: From a split to its predictions, such as `predict` with a model; it sees corrupted
            images rounded to uint8, as they would be stored.
        split: The images.
        corruptions: By name.
        severities: Of 1, 2 and 3.
        sample: How many images, drawn without replacement; None, or more than there are, for all.
        seed: Of the sample and of the corruptions.

    Raises:
        InputError: A sample of no images, or another severity.
    """
    if sample is not None and sample < 1:
        raise InputError(f"sample is {sample}; robustness needs at least one image, or None for all")
    order = np.random.default_rng(seed).permutation(len(split))
    index = np.sort(order[:sample])
    chosen = Split(
        split.images[index], split.labels[index], split.files.iloc[index]
    )  # read once, where images are files
    kinds = [(name, severity) for name in corruptions for severity in severities]
    clean, found = predict_split(chosen).correct, {}
    with logs.stage("corruptions", total=len(kinds)) as progress:
        for name, severity in kinds:
            corrupted = _corrupted(chosen, corruptions[name], severity, seed)
            found[name, severity] = predict_split(corrupted).correct
            progress.advance()
    return CorruptedPredictions(index, clean, found)


def _corrupted(split: Split, corruption: Corruption, severity: int, seed: int) -> Split:
    images = np.empty(split.images.shape, np.uint8)
    step = max(1, _FLOATS // int(np.prod(split.images.shape[1:])))
    for number, start in enumerate(range(0, len(split), step)):
        pictures = to_float(split.images[start : start + step])  # (B, 3, H, W)
        changed = corrupt(pictures, corruption, severity, seed=seed + number)
        bytes_ = (changed * 255).round().clamp(0, 255).byte()
        images[start : start + step] = bytes_.permute(0, 2, 3, 1).numpy()
    return Split(images, split.labels, split.files)


TestTimeAugmentation = Callable[[torch.Tensor], Iterator[tuple[float, torch.Tensor]]]


def none(images: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
    """The images alone."""
    yield 1.0, images


def mirror(images: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
    """The images and their mirror images."""
    yield 0.5, images
    yield 0.5, images.flip(-1)


def mirror_shifts(images: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
    """The images, the same moved by a pixel down and right, and up and left, and the mirror images of all.

    Six versions; the two that are not moved weigh as much as the other four (Jordan 2024,
    arXiv:2404.00498, section 3.5). Pixels that a move uncovers are filled by reflection.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")  # (B, 3, H + 2, W + 2)
    yield from ((weight / 2, version) for weight, version in mirror(images))
    for corner in (0, 2):
        moved = padded[:, :, corner : corner + height, corner : corner + width]
        yield from ((weight / 4, version) for weight, version in mirror(moved))


TTA: dict[str, TestTimeAugmentation] = {"none": none, "mirror": mirror, "mirror_shifts": mirror_shifts}
"""Test-time augmentations by name."""


@dataclass(frozen=True)
class TtaPredictions:
    """Predictions of V versions of the same images, the first of which are the images as they are.

    Attributes:
        weights: (V,), summing to 1.
        tables: V tables of predictions in the same order.
    """

    weights: np.ndarray
    tables: tuple[Predictions, ...]

    @property
    def plain(self) -> Predictions:
        """Predictions of the images as they are, equal to those of `predict`."""
        return self.tables[0]

    @functools.cached_property
    def mean(self) -> Predictions:
        """Predictions by the weighted mean of the versions' logits."""
        stacked = np.stack([table.logits.astype(np.float64) for table in self.tables])  # (V, N, C)
        logits = np.tensordot(self.weights, stacked, axes=1)  # (N, C)
        plain = self.plain
        return Predictions(logits.astype(np.float32), plain.labels, plain.class_names, plain.files)

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of each version's logits, (V, N, C) float64."""
        return np.stack([table.probabilities for table in self.tables])


def predict(
    model: nn.Module,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "float32",
) -> Predictions:
    """Return the logits of every image of `split`, in its order, on the device the model is on.

    The model runs in evaluation mode without gradients, and is left in the modes it was in.

    Args:
        model: Takes images (B, 3, H, W) in [0, 1] and returns logits (B, C), or a
            table or an object that has them as `logits`.
        split: N images with their labels.
        class_names: C names; by default "0", "1", ...
        batch_size: Images in one forward pass; "auto" as `fitting_batch` says.
        precision: "float32", "bfloat16" or "float16" (autocast); logits are float32 in any case.

    Raises:
        InputError: The model does not return one column of logits per class, or a value is not finite.
    """
    return predict_tta(
        model, split, tta=none, class_names=class_names, batch_size=batch_size, precision=precision
    ).plain


def predict_tta(
    model: nn.Module,
    split: Split,
    *,
    tta: str | TestTimeAugmentation = "mirror",
    class_names: Sequence[str] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "float32",
) -> TtaPredictions:
    """Return the predictions of every image of `split` with test-time augmentation, and the plain ones.

    It costs one pass over the split for each version of the images.

    Args:
        model: As of :func:`predict`, as are all arguments but `tta`.
        split: N images with their labels.
        tta: A name of :data:`TTA`, of a plugin, "package.module:function", or a function like those.
        class_names: C names.
        batch_size: Images in one forward pass; "auto" as `fitting_batch` says.
        precision: "float32", "bfloat16" or "float16".

    Raises:
        InputError: As `predict` does, or for an unknown name.
    """
    function = resolve("tta", tta, TTA)
    device = device_of(model)
    weights: list[float] = []
    blocks: list[torch.Tensor] = []
    with (
        logs.stage("predicting", total=len(split)) as progress,
        torch.inference_mode(),
        evaluating(model),
    ):
        size = fitting_batch(split.images.shape) if batch_size == "auto" else batch_size
        for block in split.blocks(size):
            images = torch.from_numpy(block)  # (B, H, W, 3) uint8
            pairs = list(function(to_float(images.to(device))))
            with autocast(device, precision):
                logits = [_checked(model(version), len(images)).float() for _, version in pairs]
            weights = [weight for weight, _ in pairs]
            blocks.append(torch.stack(logits))  # (V, B, C)
            progress.advance(len(block))
    logits = torch.cat(blocks, dim=1).cpu().numpy()  # (V, N, C)
    tables = [_table(version, split, class_names) for version in logits]
    return TtaPredictions(np.array(weights), tuple(tables))


def _table(logits: np.ndarray, split: Split, class_names: Sequence[str] | None) -> Predictions:
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(logits.shape[1])))
    if logits.shape[1] != len(names):
        raise InputError(
            f"the model has {logits.shape[1]} outputs and the data {len(names)} classes; "
            f"create the model with num_classes={len(names)}"
        )
    if split.labels.max() >= len(names):
        raise InputError(f"label {split.labels.max()} has no output: the model has {len(names)}")
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise InputError(
            f"the model's logits are not finite for {bad} of {len(split)} images; "
            "its weights are damaged or training diverged: lower the learning rate"
        )
    return Predictions(logits, split.labels, names, split.files)


def fitting_batch(shape: Sequence[int]) -> int:
    """Return how many images fit one forward pass: 500 small ones, fewer of large ones, at least one.

    shape: (N, H, W, 3). What a network keeps of an image grows with its pixels: 4 million of them at once.

    >>> fitting_batch((1, 32, 32, 3)), fitting_batch((1, 224, 224, 3))
    (500, 83)
    """
    return max(1, min(500, _PIXELS // max(1, shape[1] * shape[2])))


def _checked(output: object, count: int) -> torch.Tensor:
    """The logits (count, C): what the model returned, its `logits` where that is a table or an object."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != count:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(output).__name__
        raise InputError(f"the model returned {got}; predict needs a tensor of logits ({count}, C)")
    if _are_probabilities(logits):
        raise InputError(
            "the model returned probabilities: each row sums to 1; return what it has before the softmax, or "
            "use Predictions.from_probabilities(probabilities, labels, class_names)"
        )
    return logits


def _are_probabilities(logits: torch.Tensor) -> bool:
    """Whether these are rows of softmax: between 0 and 1, with the sum 1, and not mere zeros and ones."""
    rows = logits.detach().double()
    if not len(rows) or rows.shape[1] < 2 or rows.min() < 0 or ((rows == 0) | (rows == 1)).all():
        return False
    tolerance = 1e-4 if logits.dtype in (torch.float32, torch.float64) else 0.02
    return bool((rows.sum(1) - 1).abs().max() < tolerance)


def predict_shared(
    model: nn.Module, split: Split, *, class_names: Sequence[str], precision: str = "float32"
) -> Predictions:
    """Return what :func:`predict` returns, each process having done its part of the rows.

    Every process of the group has to call it, with the same weights, and gets the whole table, in data
    order; without a group it is `predict`. Raises what `predict` raises, in all processes.
    """
    return predict_tta_shared(model, split, tta="none", class_names=class_names, precision=precision).plain


def predict_tta_shared(
    model: nn.Module,
    split: Split,
    *,
    tta: str | TestTimeAugmentation,
    class_names: Sequence[str],
    precision: str = "float32",
) -> TtaPredictions:
    """Return what :func:`predict_tta` returns, each process having done its part of the rows."""

    def of(rows: Split) -> TtaPredictions:
        return predict_tta(model, rows, tta=tta, class_names=class_names, precision=precision)

    if distributed.size() == 1:
        return of(split)
    rows = np.arange(len(split))[part_of(len(split), distributed.rank(), distributed.size())]
    parts = distributed.all_do(lambda: _logits(of(split.take(rows))) if len(rows) else None)
    found = [part for part in parts if part is not None]
    logits = np.concatenate([part for _, part in found], axis=1)  # (V, N, C)
    names = tuple(class_names)
    tables = tuple(Predictions(version, split.labels, names, split.files) for version in logits)
    return TtaPredictions(found[0][0], tables)


def _logits(augmented: TtaPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Weights (V,) and logits (V, n, C)."""
    return augmented.weights, np.stack([table.logits for table in augmented.tables])
