"""Numbers about predictions, and mistakes in the order in which they cost most.

>>> confusion([0, 0, 1], [0, 1, 1], 2)
array([[1, 1],
       [0, 1]])

A metric is a function from predictions to one number. `METRICS` has some by name, and `measure` takes any.

>>> p = Predictions(np.array([[2.0, 0.0], [1.0, 1.5]]), np.array([0, 0]), ("cat", "dog"))
>>> measure(p, "accuracy"), measure(p, lambda predictions: float(len(predictions)))
(0.5, 2.0)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import InputError
from sightline.extensions import resolve
from sightline.predictions.table import Predictions

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def accuracy(predictions: Predictions) -> float:
    """Share of images whose predicted class is the label, in [0, 1]."""
    return float(predictions.correct.mean())


def balanced_accuracy(predictions: Predictions) -> float:
    """Mean over the classes of the share that is right, in [0, 1]; a class without images does not count.

    >>> balanced_accuracy(Predictions(np.eye(2)[[0, 0, 0, 0]], np.array([0, 0, 0, 1]), ("cat", "dog")))
    0.5
    """
    counts = confusion(predictions.labels, predictions.predicted, len(predictions.class_names))
    return float(np.nanmean(accuracy_per_class(counts)))


def mean_loss(predictions: Predictions) -> float:
    """Mean cross-entropy in nats."""
    return float(predictions.loss.mean())


def _scored(name: str) -> Callable[[Predictions], float]:
    """Return the function of a metric of `score_predictions`; NaN where it is not defined."""

    def metric(predictions: Predictions) -> float:
        from sightline.predictions.scores import measured

        ranks = name in ("roc_auc", "average_precision")
        found = measured(predictions, np.ones((1, len(predictions)), np.float32), ranks=ranks)
        return float(found[name][0]) if name in found else float("nan")

    metric.__name__ = name
    return metric


METRICS: dict[str, Callable[[Predictions], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "loss": mean_loss,
    **{
        name: _scored(name)
        for name in (
            *("macro_precision", "macro_f1", "weighted_f1", "matthews", "kappa", "brier", "top_2_accuracy"),
            *("top_5_accuracy", "roc_auc", "average_precision"),
        )
    },
}
"""Metrics by name."""


def measure(
    predictions: Predictions,
    metric: str | Callable[[Predictions], float],
    *,
    trust: Collection[str] | None = None,
) -> float:
    """Return what a metric says of predictions.

    Args:
        predictions: Of N images.
        metric: A key of :data:`METRICS`, a plugin's name, "package.module:function", or a function.
        trust: Modules that may be imported for a name that stands in a file; None for a name of your own.

    Raises:
        InputError: An unknown name, or a metric that returns something else than one number.
        UntrustedError: The name would import a module that is not in `trust`.
    """
    value = resolve("metric", metric, METRICS, trust=trust)(predictions)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"metric {metric!r} returned {type(value).__name__}; it has to return one number"
        ) from None


def confusion(labels: ArrayLike, predicted: ArrayLike, num_classes: int) -> np.ndarray:
    """Count the images of each label (row) and predicted class (column): (C, C) int64."""
    cells = np.asarray(labels) * num_classes + np.asarray(predicted)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy_per_class(matrix: np.ndarray) -> np.ndarray:
    """Share of each row on the diagonal of a confusion matrix, (C,); NaN for a class with no image."""
    totals = matrix.sum(axis=1)
    return np.divide(matrix.diagonal(), totals, out=np.full(len(matrix), np.nan), where=totals > 0)


def rank_mistakes(predictions: Predictions, *, limit: int | None = None) -> pd.DataFrame:
    """Return the misclassified images in descending order of loss; equal losses in data order.

    Args:
        predictions: Of N images.
        limit: At most so many rows; None for all.

    Returns:
        A table with the columns index (position in the split), label, predicted, loss, confidence, margin,
        entropy.

    >>> p = Predictions(np.array([[0.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), np.array([0, 0, 0]), ("a", "b"))
    >>> rank_mistakes(p)["index"].tolist()
    [1, 0]
    """
    table = predictions.to_frame()
    wrong = np.flatnonzero(~predictions.correct)
    order = np.argsort(-predictions.loss[wrong], kind="stable")
    return table.iloc[wrong[order][:limit]].reset_index(drop=True)


def pair_counts(predictions: Predictions, *, limit: int | None = None) -> pd.DataFrame:
    """List the pairs (true class, predicted class) by how often they happen, as class numbers.

    Args:
        predictions: Of N images.
        limit: At most so many pairs; None for all.

    Returns:
        A table with the columns true, predicted (ints), count, share (of the true class's images) and
        median_loss. Pairs with equal counts stand in descending order of median loss.
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
    pairs = pairs.sort_values(["count", "median_loss"], ascending=False, kind="stable").iloc[:limit]
    totals = np.bincount(predictions.labels, minlength=len(predictions.class_names))
    pairs.insert(3, "share", pairs["count"] / totals[pairs["true"].to_numpy(int)])
    return pairs.reset_index(drop=True)


def confused_pairs(predictions: Predictions, *, limit: int | None = 10) -> pd.DataFrame:
    """List the pairs (true class, predicted class) as :func:`pair_counts` does, with the classes' names."""
    pairs = pair_counts(predictions, limit=limit)
    names = np.array(predictions.class_names, dtype=object)
    for column in ("true", "predicted"):
        pairs[column] = names[pairs[column].to_numpy(int)]
    return pairs
