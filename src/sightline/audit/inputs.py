"""What an audit looks at: arrays, of a run or of anybody's model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.audit.robustness import Robustness
from sightline.data import Dataset
from sightline.errors import SightlineError
from sightline.predictions import Dynamics, Predictions


@dataclass(frozen=True)
class Evidence:
    """The data, predictions on its test split, and what else is known of the model; all in data order.

    train: predictions on the training split, by the model that was trained on it. features,
    train_features: (N, D) of both splits. views: (V, N, C) probabilities of V views of each test image, the
    image itself first. others: (R, N, C) probabilities by R other models, of other seeds say; with the views
    they tell what is ambiguous. maps_predicted, maps_true: (N, h, w) raw maps of the test images for the
    predicted and the true class. dynamics: of the training split. out_of_fold: (N_train, C) probabilities by
    models that were not trained on the image. robustness: of `robustness_table`. seed: of the halves on which
    a finding is made and checked.

    Raises SightlineError if an array is not about this data.
    """

    data: Dataset
    predictions: Predictions
    train: Predictions | None = None
    features: np.ndarray | None = None
    train_features: np.ndarray | None = None
    views: np.ndarray | None = None
    others: np.ndarray | None = None
    maps_predicted: np.ndarray | None = None
    maps_true: np.ndarray | None = None
    dynamics: Dynamics | None = None
    out_of_fold: np.ndarray | None = None
    robustness: Robustness | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        test, train = len(self.data.test), len(self.data.train)
        found = {
            "predictions": (len(self.predictions), test),
            "train": (_length(self.train), train),
            "features": (_length(self.features), test),
            "train_features": (_length(self.train_features), train),
            "views": (None if self.views is None else self.views.shape[1], test),
            "others": (None if self.others is None else self.others.shape[1], test),
            "maps_predicted": (_length(self.maps_predicted), test),
            "maps_true": (_length(self.maps_true), test),
            "dynamics": (_length(self.dynamics), train),
            "out_of_fold": (_length(self.out_of_fold), train),
        }
        for name, (came, fits) in found.items():
            if came not in (None, fits):
                raise SightlineError(
                    f"{name} has {came} rows and the data's split {fits}; both need the same"
                )
        if not np.array_equal(self.predictions.labels, self.data.test.labels):
            raise SightlineError(
                "the labels of the predictions are not those of data.test; predict this very data set"
            )


def _length(value: object) -> int | None:
    return None if value is None else len(value)  # pyright: ignore[reportArgumentType]
