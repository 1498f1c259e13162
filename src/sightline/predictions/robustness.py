"""How a model predicts a sample of a split after each corruption: the passes behind a robustness table.

predict_split = functools.partial(predict, model, class_names=data.class_names)
found = predict_corrupted(predict_split, data.test)
found.clean.mean(), found.corrupted["fog", 3].mean()    # accuracy without, and with dense fog
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.data import CORRUPTIONS, Split, corrupt
from sightline.data.corruptions import SEVERITIES, Corruption
from sightline.errors import InputError
from sightline.models import to_float
from sightline.predictions.table import Predictions

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
    chosen = Split(split.images[index], split.labels[index])  # read once, where images are files
    return CorruptedPredictions(
        index,
        predict_split(chosen).correct,
        {
            (name, severity): predict_split(_corrupted(chosen, function, severity, seed)).correct
            for name, function in corruptions.items()
            for severity in severities
        },
    )


def _corrupted(split: Split, corruption: Corruption, severity: int, seed: int) -> Split:
    images = np.empty(split.images.shape, np.uint8)
    step = max(1, _FLOATS // int(np.prod(split.images.shape[1:])))
    for number, start in enumerate(range(0, len(split), step)):
        pictures = to_float(split.images[start : start + step])  # (B, 3, H, W)
        changed = corrupt(pictures, corruption, severity, seed=seed + number)
        bytes_ = (changed * 255).round().clamp(0, 255).byte()
        images[start : start + step] = bytes_.permute(0, 2, 3, 1).numpy()
    return Split(images, split.labels)
