"""How alike two sets of maps are, image by image. A similarity is a function `(a, b) -> (B,)`, 1 if alike."""

from __future__ import annotations

import numpy as np
import pandas as pd

WINDOW = 7  # Wang 2004 with a uniform window, as most implementations have it


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each pair of maps, from two (B, h, w): (B,) in [-1, 1].

    Equal values share their mean rank. A flat map has no ranks: 0, and 1 against an equal map.

    >>> spearman(np.array([[[1, 2], [3, 4]]]), np.array([[[10, 20], [40, 30]]])).round(1)
    array([0.8])
    """
    first, second = (pd.DataFrame(maps.reshape(len(maps), -1)).rank(axis=1).to_numpy() for maps in (a, b))
    first, second = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (first, second))
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    same = (a == b).all(axis=(1, 2)).astype(float)
    return np.divide((first * second).sum(axis=1), scale, out=same, where=scale > 0)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the structural similarity of each pair of maps, from two (B, h, w): (B,) in [-1, 1].

    Wang 2004, equation 13: the mean over all windows of 7x7 (less where the map is smaller), with each
    map divided by its largest magnitude and a range of 1.
    """
    a, b = (_scaled(maps) for maps in (a, b))
    side = (min(WINDOW, a.shape[1]), min(WINDOW, a.shape[2]))
    first, second = (np.lib.stride_tricks.sliding_window_view(maps, side, axis=(1, 2)) for maps in (a, b))
    across = (3, 4)
    mean_a, mean_b = first.mean(axis=across), second.mean(axis=across)  # (B, h', w')
    both = (first * second).mean(axis=across) - mean_a * mean_b
    spread = first.var(axis=across) + second.var(axis=across)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))).mean(axis=(1, 2))


def _scaled(maps: np.ndarray) -> np.ndarray:
    top = np.abs(maps).max(axis=(1, 2), keepdims=True).astype(np.float64)
    return maps / np.where(top > 0, top, 1)
