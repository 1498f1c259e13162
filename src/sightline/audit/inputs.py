"""What an audit looks at: arrays, of a run or of anybody's model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.audit.result import Robustness
from sightline.data import Dataset
from sightline.errors import InputError
from sightline.predictions import Dynamics, Predictions


@dataclass(frozen=True, eq=False)
class Evidence:
    """The data, predictions on its test split, and what else is known of the model; all in data order.

    Only the predictions are needed. Each thing more gives the audit parts more.

    Attributes:
        data: Both splits with their images; None where there are none.
        predictions: On the test split.
        train: Predictions on the training split, by the model that was trained on it.
        features: (N, D) of the test split.
        train_features: (N_train, D) of the training split.
        tta: (V, N, C) probabilities of V versions of each test image (test-time augmentation), the image
            itself first.
        others: (R, N, C) probabilities by R other models, of other seeds say; where they and this one differ,
            an image is ambiguous.
        maps: (N, h, w) raw signed maps of the test images for the predicted class.
        dynamics: Of the training split.
        out_of_fold: (N_train, C) probabilities by models that were not trained on the image.
        robustness: Of `measure_robustness`.
        seed: Of the halves on which a finding is made and checked.

    Raises:
        InputError: An array is not about this data.
    """

    data: Dataset | None
    predictions: Predictions
    train: Predictions | None = None
    features: np.ndarray | None = None
    train_features: np.ndarray | None = None
    tta: np.ndarray | None = None
    others: np.ndarray | None = None
    maps: np.ndarray | None = None
    dynamics: Dynamics | None = None
    out_of_fold: np.ndarray | None = None
    robustness: Robustness | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        test, train = len(self.predictions), None if self.data is None else len(self.data.train)
        found = {
            "predictions": (test, test if self.data is None else len(self.data.test)),
            "train": (_length(self.train), train),
            "features": (_length(self.features), test),
            "train_features": (_length(self.train_features), train),
            "tta": (None if self.tta is None else self.tta.shape[1], test),
            "others": (None if self.others is None else self.others.shape[1], test),
            "maps": (_length(self.maps), test),
            "dynamics": (_length(self.dynamics), train),
            "out_of_fold": (_length(self.out_of_fold), train),
        }
        for name, (came, fits) in found.items():
            if came is not None and fits is None:
                raise InputError(f"{name} is about training images and there is no data; give data as well")
            if came not in (None, fits):
                raise InputError(f"{name} has {came} rows and the data's split {fits}; both need the same")
        if not test:
            raise InputError("there are no predictions; an audit needs at least one test image")
        if self.data is not None and not np.array_equal(self.predictions.labels, self.data.test.labels):
            raise InputError(
                "the labels of the predictions are not those of data.test; predict this very data set"
            )


def _length(value: object) -> int | None:
    return None if value is None else len(value)  # pyright: ignore[reportArgumentType]
