"""Mistakes in the order in which they cost most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sightline.predictions.table import Predictions

if TYPE_CHECKING:
    import pandas as pd


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
