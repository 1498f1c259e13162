"""What two pictures have in common whatever their brightness, contrast and colour cast.

A fingerprint is the picture on a 16x16 grid, each channel without its mean, scaled to unit length, and then
whitened: projected onto the leading principal components of the data set and divided by their standard
deviations. Pictures share their coarse light and shade with thousands of others; whitening takes away
what is common, so that the cosine of two unrelated fingerprints is near 0 and that of two copies near 1.

Average pictures and maps over a coarse grid of equal cells, whatever their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.neighbors import unit_rows
from sightline.data import ImageFiles

if TYPE_CHECKING:
    from sightline.data import ImageFiles


def area_weights(size: int, cells: int) -> np.ndarray:
    """Return (cells, size) float32: which share of each cell is covered by each pixel; rows sum to 1.

    A pixel that lies across a border is shared out by area, so that any size fits any grid.

    >>> area_weights(3, 2).round(3).tolist()
    [[0.6669999957084656, 0.3330000042915344, 0.0], [0.0, 0.3330000042915344, 0.6669999957084656]]
    """
    edges = np.arange(cells + 1) * size / cells  # in pixels
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0, None) * cells / size).astype(np.float32)


def pool(images: np.ndarray, cells: int) -> np.ndarray:
    """Return the mean of each cell of a `cells` x `cells` grid, (B, cells, cells, 3) float32.

    images: (B, H, W, 3), any kind of number.
    """
    count, height, width, channels = images.shape
    down, right = area_weights(height, cells), area_weights(width, cells)
    rows = np.matmul(
        down, images.reshape(count, height, width * channels).astype(np.float32)
    )  # (B, cells, W * 3)
    columns = np.matmul(right, rows.reshape(count * cells, width, channels))  # (B * cells, cells, 3)
    return columns.reshape(count, cells, cells, channels)


GRID = 16  # cells to a side
COMPONENTS = 128
CHUNK = 2**22  # pixels of pictures held as floats at once
_MARGIN = 1 / 8  # of each side, left out of the comparison of pixels: frames and vignettes are no likeness


def fingerprints(pictures: Sequence[np.ndarray | ImageFiles]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the fingerprints of all pictures, of their mirror images, and of them upside down: (N, K) each.

    pictures: arrays of uint8 (., H, W, 3) of one size, taken together in this order. Rows have unit
    length in float32; a picture of one colour has none and is a row of zeros.
    """
    pooled = np.concatenate([in_chunks(_pooled, part) for part in pictures])  # (N, 16, 16, 3)
    flat = unit_rows(pooled.reshape(len(pooled), -1))  # (N, 768)
    # Turning a picture is a change of the order of its cells: moments and projections need no copy of it.
    order = np.arange(flat.shape[1]).reshape(pooled.shape[1:])
    mirror, upside_down = order[:, ::-1].ravel(), order[::-1].ravel()
    mean, moments = flat.mean(axis=0), flat.T @ flat / max(len(flat), 1)
    # Both handednesses count alike, so that a pair is as alike when both of its pictures are mirrored.
    mean, moments = (mean + mean[mirror]) / 2, (moments + moments[np.ix_(mirror, mirror)]) / 2
    values, vectors = np.linalg.eigh((moments - np.outer(mean, mean)).astype(np.float64))
    kept = min(COMPONENTS, max(8, len(flat) // 8))  # fewer pictures do not determine more directions
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-6 * values[0] + 1e-12))).astype(np.float32)  # (768, K)
    blank = ~flat.any(axis=1)
    prints = []
    for turned in (order.ravel(), mirror, upside_down):
        rows = unit_rows(flat @ whiten[turned] - mean @ whiten)
        rows[blank] = 0
        prints.append(rows)
    return prints[0], prints[1], prints[2]


def _pooled(images: np.ndarray) -> np.ndarray:
    cells = pool(images, min(GRID, *images.shape[1:3]))
    return cells - cells.mean(axis=(1, 2), keepdims=True)


def in_chunks(function: Callable[[np.ndarray], np.ndarray], images: np.ndarray | ImageFiles) -> np.ndarray:
    """Return `function(images)`, worked out for so many images at once that their floats stay few."""
    return np.concatenate([function(block) for block in blocks_of(images)])


def blocks_of(images: np.ndarray | ImageFiles) -> Iterator[np.ndarray]:
    """Yield the images in order, some at a time; one block without any where there are none."""
    step = max(1, CHUNK // (images.shape[1] * images.shape[2]))
    for start in range(0, max(len(images), 1), step):
        yield images[start : start + step]


def correlation(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the correlation of the pixels of each pair of pictures, (P,) in [-1, 1].

    ones, others: (P, H, W, 3). Each channel is taken without its mean; one scale serves all three. A
    margin of an eighth of the size is left out on every side. 0 where a picture is of one colour.
    """
    height, width = ones.shape[1:3]
    down, right = int(height * _MARGIN), int(width * _MARGIN)
    inner = np.s_[:, down : height - down, right : width - right]
    return centred_cosine(ones[inner].astype(np.float32), others[inner].astype(np.float32))


def centred_cosine(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of floats (P, h, w, 3) once each channel's mean is taken away, (P,)."""
    count = len(ones)
    one = (ones - ones.mean(axis=(1, 2), keepdims=True)).reshape(count, -1)
    other = (others - others.mean(axis=(1, 2), keepdims=True)).reshape(count, -1)
    product = np.einsum("pd,pd->p", one, other, dtype=np.float64)
    squares = [np.einsum("pd,pd->p", half, half, dtype=np.float64) for half in (one, other)]
    length = np.sqrt(squares[0] * squares[1])
    return np.divide(product, length, out=np.zeros(count), where=length > 0)
