"""Numbers about predictions: functions of arrays.

>>> confusion([0, 0, 1], [0, 1, 1], 2)
array([[1, 1],
       [0, 1]])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sightline.predictions.table import Predictions

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def accuracy(predictions: Predictions) -> float:
    """Share of images whose predicted class is the label, in [0, 1]."""
    return float(predictions.correct.mean())


def confusion(labels: ArrayLike, predicted: ArrayLike, num_classes: int) -> np.ndarray:
    """Count the images of each label (row) and predicted class (column): (C, C) int64."""
    cells = np.asarray(labels) * num_classes + np.asarray(predicted)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy_per_class(matrix: np.ndarray) -> np.ndarray:
    """Share of each row on the diagonal of a confusion matrix, (C,); NaN for a class with no image."""
    totals = matrix.sum(axis=1)
    return np.divide(matrix.diagonal(), totals, out=np.full(len(matrix), np.nan), where=totals > 0)


def confused_pairs(predictions: Predictions, most: int | None = 10) -> pd.DataFrame:
    """List the pairs (true class, predicted class) by how often they happen.

    Columns: true, predicted (names), count, share (of the true class's images), median_loss.
    Pairs with equal counts stand in descending order of median loss.
    """
    import pandas as pd

    wrong = ~predictions.correct
    mistakes = pd.DataFrame(
        {
            "label": predictions.labels[wrong],
            "guess": predictions.predicted[wrong],
            "loss": predictions.loss[wrong],
        }
    )
    pairs = mistakes.groupby(["label", "guess"], as_index=False).agg(
        count=("loss", "size"), median_loss=("loss", "median")
    )
    pairs = pairs.sort_values(["count", "median_loss"], ascending=False, kind="stable").iloc[:most]
    names = np.array(predictions.class_names, dtype=object)
    totals = np.bincount(predictions.labels, minlength=len(names))
    return pd.DataFrame(
        {
            "true": names[pairs["label"].to_numpy(int)],
            "predicted": names[pairs["guess"].to_numpy(int)],
            "count": pairs["count"].to_numpy(int),
            "share": pairs["count"].to_numpy(int) / totals[pairs["label"].to_numpy(int)],
            "median_loss": pairs["median_loss"].to_numpy(float),
        }
    )
