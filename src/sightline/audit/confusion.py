"""Which class is taken for which, how sure that is, and whether it goes one way only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.result import ConfusedPair
from sightline.predictions import Predictions, pair_counts
from sightline.stats import holm, wilson_intervals

if TYPE_CHECKING:
    import pandas as pd


_LISTED = 200  # pairs


def confusion_pairs(predictions: Predictions, limit: int | None = None) -> pd.DataFrame:
    """List the pairs (true class, predicted class) that occur, the most frequent first.

    Args:
        predictions: Of N images.
        limit: Return this many pairs at most.

    Returns:
        Columns: true, predicted (class numbers), count, share (of the true class's images), interval_low,
        interval_high (Wilson, 95 %), median_loss, reverse (how often predicted was taken for true),
        p_direction.

    p_direction is the two-sided p of "both ways are equally likely for an image of their class": given the
    sum of both counts, count is binomial with the first class's share of the two classes' images
    (Przyborowski & Wilenski 1940), and the smaller tail is doubled. It is not corrected for the number of
    pairs.

    >>> p = Predictions(np.log([[0.2, 0.8]] * 5 + [[0.1, 0.9]] * 5), np.array([0] * 5 + [1] * 5), ("a", "b"))
    >>> confusion_pairs(p)[["true", "predicted", "count", "reverse", "p_direction"]].values.tolist()
    [[0.0, 1.0, 5.0, 0.0, 0.0625]]
    """
    from scipy.stats import binom

    pairs = pair_counts(predictions)
    true, predicted, count = (pairs[name].to_numpy(int) for name in ("true", "predicted", "count"))
    totals = np.bincount(predictions.labels, minlength=len(predictions.class_names))
    low, high = wilson_intervals(count, totals[true])
    reverse = pairs.merge(
        pairs, left_on=["true", "predicted"], right_on=["predicted", "true"], how="left", validate="1:1"
    )["count_y"].fillna(0)
    reverse = reverse.to_numpy(int)
    both, share = count + reverse, totals[true] / (totals[true] + totals[predicted])
    tail = np.minimum(binom.cdf(count, both, share), binom.sf(count - 1, both, share))
    pairs.insert(4, "interval_low", low)
    pairs.insert(5, "interval_high", high)
    return pairs.assign(reverse=reverse, p_direction=np.minimum(1, 2 * tail)).iloc[:limit]


def frequent_pairs(predictions: Predictions, pairs: pd.DataFrame, *, level: float = 0.05) -> np.ndarray:
    """Return the mistakes in pairs of classes that are confused more often than expected by chance.

    By chance each mistake of a class goes to any other class alike, so that a pair's count is binomial with
    1 / (C - 1). The one-sided p-values are corrected by Holm's method for all pairs that could occur. With
    two classes there is but one pair, and none stands out.

    Args:
        predictions: Of N images.
        pairs: Of `confusion_pairs`, all of them.
        level: The chance of any pair at all where mistakes go anywhere alike.

    Returns:
        (N,) bool.
    """
    from scipy.stats import binom

    classes = len(predictions.class_names)
    wrong = np.bincount(predictions.labels[~predictions.correct], minlength=classes)
    true, predicted, count = (pairs[name].to_numpy(int) for name in ("true", "predicted", "count"))
    p_values = binom.sf(count - 1, wrong[true], 1 / max(1, classes - 1))
    unseen = np.ones(classes * (classes - 1) - len(p_values))
    frequent = holm(np.concatenate([p_values, unseen]))[: len(p_values)] <= level
    table = np.zeros((classes, classes), bool)
    table[true[frequent], predicted[frequent]] = True
    return table[predictions.labels, predictions.predicted]


def describe_pairs(pairs: pd.DataFrame) -> tuple[ConfusedPair, ...]:
    """Return the most frequent of `confusion_pairs`."""
    return tuple(
        ConfusedPair(
            true=row["true"],
            predicted=row["predicted"],
            count=row["count"],
            share=row["share"],
            interval=(row["interval_low"], row["interval_high"]),
            median_loss=row["median_loss"],
            reverse=row["reverse"],
            p_direction=row["p_direction"],
        )
        for row in pairs.head(_LISTED).to_dict("records")
    )
