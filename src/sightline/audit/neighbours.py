"""The training images that look most like a mistake to the model, and what their labels say.

    near = nearest_neighbours(test_features[rows], train_features)
    evidence = neighbour_evidence(near.indices, data.train.labels, labels[rows], predicted[rows], class_names)

Where the nearest training images bear the predicted class, the model did as it was taught; where they bear
the label, it had what it needed; where they are of all kinds, it had seen nothing like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.search import nearest_rows, unit_rows
from sightline.errors import SightlineError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Neighbours:
    """indices: (M, k) int64, rows of the keys, the most similar first. similarity: (M, k) in [-1, 1]."""

    indices: np.ndarray
    similarity: np.ndarray


def nearest_neighbours(queries: np.ndarray, keys: np.ndarray, *, k: int = 5) -> Neighbours:
    """Return the k rows of `keys` (N, D) with the largest cosine to each row of `queries` (M, D).

    Exact, by matrix products in blocks of a bounded size; equal cosines stand in the order of the keys. A
    row of zeros has cosine 0 with all others.

    Raises SightlineError if the arrays do not fit each other, k is not in 1..N, or a value is not finite.

    >>> near = nearest_neighbours(np.array([[1.0, 0.1]]), np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]), k=2)
    >>> near.indices.tolist(), near.similarity.round(2).tolist()
    ([[1, 2]], [[1.0, 0.77]])
    """
    queries, keys = np.asarray(queries), np.asarray(keys)
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise SightlineError(
            f"features are {queries.shape} and {keys.shape}; neighbours need (M, D) and (N, D) of one model"
        )
    if not 1 <= k <= len(keys):
        raise SightlineError(f"k is {k}; {len(keys)} rows to choose from allow 1 to {len(keys)}")
    for features in (queries, keys):
        bad = len(features) - int(np.isfinite(features).all(axis=1).sum())
        if bad:
            raise SightlineError(f"{bad} rows of features are not finite; predict with precision float32")
    return Neighbours(*nearest_rows(unit_rows(queries), unit_rows(keys), k))


def neighbour_evidence(
    indices: np.ndarray,
    train_labels: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """Return what the labels of the neighbours say of each image.

    indices: (M, k) training images near it. labels, predicted: (M,) of the image itself.
    Columns: majority (the commonest label among the neighbours, the nearest one's among equals), votes (how
    many bear it), for_label, for_predicted (how many bear the image's label, the predicted class), and
    evidence, a sentence such as "4 of 5 nearest training images are labelled “dog”, as predicted".
    """
    import pandas as pd

    near = np.asarray(train_labels)[indices]  # (M, k)
    k = near.shape[1]
    counts = (near[:, :, None] == near[:, None, :]).sum(axis=2)  # (M, k): votes for each neighbour's label
    leader = counts.argmax(axis=1)  # the first of equals, which is the nearest
    rows = np.arange(len(near))
    majority, votes = near[rows, leader], counts[rows, leader]
    ending = np.where(majority == predicted, ", as predicted", "")
    ending = np.where(majority == labels, np.where(majority == predicted, "", ", as labelled"), ending)
    evidence = [
        f"{count} of {k} nearest training images are labelled “{class_names[label]}”{end}"
        for label, count, end in zip(majority, votes, ending, strict=True)
    ]
    return pd.DataFrame(
        {
            "majority": majority,
            "votes": votes,
            "for_label": (near == np.asarray(labels)[:, None]).sum(axis=1),
            "for_predicted": (near == np.asarray(predicted)[:, None]).sum(axis=1),
            "evidence": evidence,
        }
    )
