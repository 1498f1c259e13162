"""The training images that look most like a mistake to the model: exact nearest neighbors by cosine.

    near = nearest_neighbors(test_features[rows], train_features)
    data.train.labels[near.indices]  # (M, k)

Where the nearest training images bear the predicted class, the model did as it was taught; where they bear
the label, it had what it needed; where they are of all kinds, it had seen nothing like it.

Matrix products in blocks of a bounded size, no search index. Products in float32 find the few that can be
among the nearest; these are worked out again in float64, so that equal images have exactly equal similarities
and ties can be broken by index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sightline.errors import InputError

BLOCK = 2**24  # similarities held at once: 64 MB in float32
_GROUP = 32  # columns that are represented by their largest value
_SLACK = 1e-5  # more than a sum of float32 products of unit vectors can be off by


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return each row scaled to length 1 in float32; a row of zeros stays zero, alike to nothing.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    rows = np.asarray(rows, np.float32)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)  # first, so that no square overflows
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, lengths, out=scaled, where=lengths > 0)


def nearest_rows(queries: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (Q, k) and similarities (Q, k) of the k most similar keys, the most similar first.

    queries: (Q, D), keys: (N, D), unit rows. Equal similarities stand in the order of the keys.
    """
    indices = np.empty((len(queries), k), np.int64)
    similarities = np.empty((len(queries), k), np.float64)
    for start, block in _blocks(queries, keys):
        rows, columns = _candidates(block, k)
        exact = similarity_of(queries, keys, start + rows, columns)
        order = np.lexsort((columns, -exact, rows))
        first = np.searchsorted(rows, np.arange(len(block)))  # rows are sorted: where each one begins
        chosen = order[first[:, None] + np.arange(k)]
        indices[start : start + len(block)] = columns[chosen]
        similarities[start : start + len(block)] = exact[chosen]
    return indices, similarities


def _candidates(block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices, in order, of some values of each row (Q, N), the k largest among them.

    The columns are dealt out in groups. The k-th largest of the groups' maxima is not over the k-th largest
    value, as each maximum is a value; so only groups that reach it are looked into.
    """
    count, size = block.shape
    number = size // _GROUP
    whole = block[:, : number * _GROUP].reshape(count, _GROUP, number)  # group g: columns g, g + number, ...
    peaks = np.concatenate([whole.max(axis=1), block[:, number * _GROUP :]], axis=1) if number else block
    if k > peaks.shape[1]:
        peaks, number = block, 0
    cut = np.partition(peaks, peaks.shape[1] - k, axis=1)[:, peaks.shape[1] - k] - _SLACK
    rows, groups = np.nonzero(peaks >= cut[:, None])
    inside = groups < number
    members = groups[inside, None] + number * np.arange(_GROUP)  # (P, _GROUP)
    found, member = np.nonzero(block[rows[inside, None], members] >= cut[rows[inside], None])
    single = groups[~inside] + number * (_GROUP - 1)  # of the columns that no group has
    rows = np.concatenate([rows[inside][found], rows[~inside]])
    columns = np.concatenate([members[found, member], single])
    order = np.lexsort((columns, rows))
    return rows[order], columns[order]


def pairs_above(
    queries: np.ndarray, keys: np.ndarray, threshold: float, *, upper: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices (queries, keys) of all pairs whose similarity is at least `threshold`.

    upper: only pairs whose key comes after the query, of one set with itself; half of the work.
    """
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start, first, block in _tiles(queries, keys, upper):
        near = np.flatnonzero(block.ravel() >= threshold)
        row, column = np.divmod(near, block.shape[1])
        row, column = row + start, column + first
        kept = column > row if upper else slice(None)
        rows.append(row[kept])
        columns.append(column[kept])
    return np.concatenate(rows), np.concatenate(columns)


def similarity_of(queries: np.ndarray, keys: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the similarity of each pair (rows[i], columns[i]), (P,) float64, worked out in float64."""
    result = np.empty(len(rows), np.float64)
    step = max(1, BLOCK // (4 * max(queries.shape[1], 1)))
    for start in range(0, len(rows), step):
        chosen = slice(start, start + step)
        one, other = queries[rows[chosen]].astype(np.float64), keys[columns[chosen]].astype(np.float64)
        result[chosen] = np.einsum("pd,pd->p", one, other)
    return result


def _blocks(queries: np.ndarray, keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, BLOCK // max(len(keys), 1))
    for start in range(0, len(queries), step):
        yield start, queries[start : start + step] @ keys.T  # (step, N)


def _tiles(queries: np.ndarray, keys: np.ndarray, upper: bool) -> Iterator[tuple[int, int, np.ndarray]]:
    # Tiles that fit the processor's cache: what follows a product reads it again.
    side = 1024
    for start in range(0, len(queries), side):
        for first in range(start if upper else 0, len(keys), 4 * side):
            yield start, first, queries[start : start + side] @ keys[first : first + 4 * side].T


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest keys of some queries.

    Attributes:
        rows: (M,) int64, which queries, in ascending order.
        indices: (M, k) int64, rows of the keys, the most similar first.
        similarity: (M, k) cosines in [-1, 1].
    """

    rows: np.ndarray
    indices: np.ndarray
    similarity: np.ndarray


def nearest_neighbors(
    queries: np.ndarray, keys: np.ndarray, *, k: int = 5, rows: np.ndarray | None = None
) -> Neighbors:
    """Return the k rows of `keys` (N, D) with the largest cosine to each row of `queries` (M, D).

    Exact, by matrix products in blocks of a bounded size; equal cosines stand in the order of the keys. A
    row of zeros has cosine 0 with all others.

    Args:
        queries: (M, D).
        keys: (N, D).
        k: How many neighbors, 1 to N.
        rows: (M,) what the queries are called in the result; 0 to M - 1 by default.

    Raises:
        InputError: The arrays do not fit each other, k is not in 1..N, or a value is not finite.

    >>> near = nearest_neighbors(np.array([[1.0, 0.1]]), np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]), k=2)
    >>> near.indices.tolist(), near.similarity.round(2).tolist()
    ([[1, 2]], [[1.0, 0.77]])
    """
    queries, keys = np.asarray(queries), np.asarray(keys)
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise InputError(
            f"features are {queries.shape} and {keys.shape}; neighbors need (M, D) and (N, D) of one model"
        )
    if not 1 <= k <= len(keys):
        raise InputError(f"k is {k}; {len(keys)} rows to choose from allow 1 to {len(keys)}")
    for features in (queries, keys):
        bad = len(features) - int(np.isfinite(features).all(axis=1).sum())
        if bad:
            raise InputError(f"{bad} rows of features are not finite; predict with precision float32")
    rows = np.arange(len(queries)) if rows is None else rows
    return Neighbors(rows, *nearest_rows(unit_rows(queries), unit_rows(keys), k))
