"""Copies that were moved, cropped, enlarged a little or framed: near in features, then matched by edges.

No fingerprint of a whole picture outlasts a shift, but features of a trained model do. So each picture's
nearest neighbours in features are the candidates, and nothing more: pictures of one class are all near each
other there. What decides is whether the edges agree. Both pictures are averaged over 16x16 cells; the
differences between neighbouring cells of the middle of the one are held against the other at every shift
of up to an eighth of the size, and the best correlation counts. The same candidates with one of the two
upside down are the decoys. Where objects of one kind stand upright, outlines agree more often than decoys
show, so a pair has to stand out from the other candidates, too.
"""

from __future__ import annotations

import numpy as np

from sightline.audit.duplicates.candidates import AlikePairs, Pictures
from sightline.audit.duplicates.decoys import chance_threshold
from sightline.audit.duplicates.fingerprints import GRID, in_chunks, pool
from sightline.audit.neighbors import nearest_rows, unit_rows

_NEAR = 3  # neighbours of each picture that are looked at
_OWN_SHARE = 0.05
_PAIRS = 500  # worked on at once: their edges fit a processor's cache


def shifted_pairs(pictures: Pictures, chosen: np.ndarray, features: np.ndarray) -> AlikePairs:
    """Return the pairs among the pictures at `chosen` whose edges agree at some small shift.

    features: (N, D) of all pictures.
    """
    rows = unit_rows(features[chosen])
    near, _ = nearest_rows(rows, rows, min(_NEAR + 1, len(rows)))  # the picture itself is one of them
    ends = np.stack([np.repeat(np.arange(len(rows)), near.shape[1]), near.ravel()], axis=1)
    a, b = np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0).T
    cells = np.concatenate([in_chunks(coarse, part) for part in pictures.parts])[chosen]
    similarity = best_shift(cells, a, b)
    decoys = best_shift(cells, a, b, upside_down=True)
    threshold, expected = chance_threshold(similarity, decoys, own_share=_OWN_SHARE)
    kept = similarity >= threshold
    return AlikePairs(
        chosen[a[kept]], chosen[b[kept]], similarity[kept], np.zeros(kept.sum(), bool), expected
    )


def coarse(images: np.ndarray) -> np.ndarray:
    """Return pictures (B, H, W, 3) on a grid of at most 16x16 cells, (B, g, g, 3) float32."""
    return pool(images, min(GRID, *images.shape[1:3]))


def _edges(cells: np.ndarray) -> np.ndarray:
    """Differences between neighbouring cells, (B, g - 1, g - 1, 6): downwards, then to the right."""
    down, right = cells[:, 1:, :-1] - cells[:, :-1, :-1], cells[:, :-1, 1:] - cells[:, :-1, :-1]
    return np.concatenate([down, right], axis=3)


def best_shift(cells: np.ndarray, a: np.ndarray, b: np.ndarray, *, upside_down: bool = False) -> np.ndarray:
    """Return the best correlation of the edges in the middle of each a with those of b at any shift, (P,).

    cells: (N, g, g, 3). a, b: (P,) indices of it. upside_down: turn a over first.
    """
    side = cells.shape[1] - 1
    reach = cells.shape[1] // 8  # cells
    inner = side - 2 * reach
    result = np.empty(len(a))
    for start in range(0, len(a), _PAIRS):
        one, other = cells[a[start : start + _PAIRS]], cells[b[start : start + _PAIRS]]
        one, other = _edges(one[:, ::-1] if upside_down else one), _edges(other)
        middle = one[:, reach : reach + inner, reach : reach + inner].reshape(len(one), -1)
        best = np.full(len(one), -1.0)
        for down in range(2 * reach + 1):
            for right in range(2 * reach + 1):
                window = other[:, down : down + inner, right : right + inner].reshape(len(one), -1)
                best = np.maximum(best, _cosine(middle, window))
        result[start : start + _PAIRS] = best
    return result


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    product = np.einsum("pd,pd->p", one, other)
    length = np.sqrt(np.einsum("pd,pd->p", one, one) * np.einsum("pd,pd->p", other, other))
    return np.divide(product, length, out=np.zeros(len(one), np.float32), where=length > 0)
