"""Nearest neighbors: against sorts of every cosine, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit import nearest_neighbors, neighbors
from sightline.audit.neighbors import nearest_rows, pairs_above, unit_rows
from sightline.errors import SightlineError


@pytest.mark.parametrize(("k", "group"), [(6, 32), (40, 32), (40, 3), (1, 500)])
def test_nearest_rows_equal_a_sort_of_every_cosine_whatever_the_block(monkeypatch, k, group):
    rng = np.random.default_rng(0)
    queries, keys = unit_rows(rng.normal(size=(37, 9))), unit_rows(rng.normal(size=(211, 9)))
    monkeypatch.setattr(neighbors, "_GROUP", group)
    for block in (1, 1000, 2**24):
        monkeypatch.setattr(neighbors, "BLOCK", block)
        indices, similarities = nearest_rows(queries, keys, k)
        for query, row, values in zip(queries, indices, similarities, strict=True):
            cosines = [float(np.dot(query.astype(float), key.astype(float))) for key in keys]
            assert row.tolist() == sorted(range(211), key=lambda i: -cosines[i])[:k]
            np.testing.assert_allclose(values, [cosines[i] for i in row], rtol=1e-12)


def test_equal_rows_stand_in_the_order_of_the_keys():
    rng = np.random.default_rng(1)
    key = rng.normal(size=(1, 33))
    keys = unit_rows(np.concatenate([rng.normal(size=(500, 33)), np.repeat(key, 40, axis=0)]))
    indices, similarities = nearest_rows(unit_rows(np.repeat(key, 3, axis=0) * 7), keys, 5)
    assert indices.tolist() == [[500, 501, 502, 503, 504]] * 3
    assert (similarities == similarities[0, 0]).all()


def test_pairs_above_are_those_of_two_loops():
    rng = np.random.default_rng(2)
    one, other = unit_rows(rng.normal(size=(1500, 4))), unit_rows(rng.normal(size=(90, 4)))
    rows, columns = pairs_above(one, other, 0.97)
    expected = np.nonzero(one @ other.T >= 0.97)
    assert sorted(zip(rows, columns, strict=True)) == list(
        zip(*np.nonzero(one @ other.T >= 0.97), strict=True)
    )
    rows, columns = pairs_above(one, one, 0.999, upper=True)
    expected = np.nonzero(np.triu(one @ one.T >= 0.999, 1))
    assert sorted(zip(rows, columns, strict=True)) == list(zip(*expected, strict=True))
    assert len(rows) > 20


def test_a_row_of_zeros_stays_zero_and_huge_rows_do_not_overflow():
    rows = unit_rows(np.array([[0, 0], [3e30, 4e30], [3e-30, 4e-30]], np.float32))
    np.testing.assert_allclose(rows, [[0, 0], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


def test_neighbors_are_those_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(3)
    queries, keys = rng.normal(size=(40, 16)), rng.normal(size=(900, 16)) * rng.gamma(2, size=(900, 1))
    near = nearest_neighbors(queries, keys, k=7)
    distances, indices = NearestNeighbors(n_neighbors=7, metric="cosine").fit(keys).kneighbors(queries)
    np.testing.assert_array_equal(near.indices, indices)
    np.testing.assert_allclose(near.similarity, 1 - distances, atol=1e-6)


def test_neighbors_that_cannot_be_are_refused():
    features = np.ones((4, 3))
    with pytest.raises(SightlineError, match=r"\(4, 3\) and \(4, 2\); neighbors need \(M, D\) and \(N, D\)"):
        nearest_neighbors(features, features[:, :2])
    with pytest.raises(SightlineError, match="k is 5; 4 rows to choose from allow 1 to 4"):
        nearest_neighbors(features, features)
    with pytest.raises(SightlineError, match="1 rows of features are not finite"):
        nearest_neighbors(features, np.concatenate([features, [[1, np.nan, 1]]]))
