"""Numbers about predictions: functions of arrays.

>>> confusion([0, 0, 1], [0, 1, 1], 2)
array([[1, 1],
       [0, 1]])

Mistakes in the order in which they cost most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sightline.predictions.table import Predictions

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def rank_mistakes(predictions: Predictions, most: int | None = None) -> pd.DataFrame:
    """Return the misclassified images in descending order of loss; equal losses in data order.

    Columns: index (position in the split), label, predicted, loss, confidence, margin, entropy.

    >>> p = Predictions(np.array([[0.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), np.array([0, 0, 0]), ("a", "b"))
    >>> rank_mistakes(p)["index"].tolist()
    [1, 0]
    """
    table = predictions.to_frame()
    wrong = np.flatnonzero(~predictions.correct)
    order = np.argsort(-predictions.loss[wrong], kind="stable")
    return table.iloc[wrong[order][:most]].reset_index(drop=True)


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


def pair_counts(predictions: Predictions, most: int | None = None) -> pd.DataFrame:
    """List the pairs (true class, predicted class) by how often they happen, as class numbers.

    Columns: true, predicted (ints), count, share (of the true class's images), median_loss.
    Pairs with equal counts stand in descending order of median loss.
    """
    import pandas as pd

    wrong = ~predictions.correct
    mistakes = pd.DataFrame(
        {
            "true": predictions.labels[wrong],
            "predicted": predictions.predicted[wrong],
            "loss": predictions.loss[wrong],
        }
    )
    pairs = mistakes.groupby(["true", "predicted"], as_index=False).agg(
        count=("loss", "size"), median_loss=("loss", "median")
    )
    pairs = pairs.sort_values(["count", "median_loss"], ascending=False, kind="stable").iloc[:most]
    totals = np.bincount(predictions.labels, minlength=len(predictions.class_names))
    pairs.insert(3, "share", pairs["count"] / totals[pairs["true"].to_numpy(int)])
    return pairs.reset_index(drop=True)


def confused_pairs(predictions: Predictions, most: int | None = 10) -> pd.DataFrame:
    """List the pairs (true class, predicted class) as :func:`pair_counts` does, with the classes' names."""
    pairs = pair_counts(predictions, most)
    names = np.array(predictions.class_names, dtype=object)
    for column in ("true", "predicted"):
        pairs[column] = names[pairs[column].to_numpy(int)]
    return pairs
