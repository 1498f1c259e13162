"""Average pictures and maps over a coarse grid of equal cells, whatever their size."""

from __future__ import annotations

import numpy as np


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
    rows = np.matmul(down, images.reshape(count, height, -1).astype(np.float32))  # (B, cells, W * 3)
    columns = np.matmul(right, rows.reshape(count * cells, width, channels))  # (B * cells, cells, 3)
    return columns.reshape(count, cells, cells, channels)
