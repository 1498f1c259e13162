"""Raw maps made visible, or said in words where there is nothing to see."""

from __future__ import annotations

import numpy as np

from sightline.explain import display

NO_EVIDENCE = "no positive evidence"
NOT_FINITE = "not finite"


def message(raw: np.ndarray) -> str:
    """Return why a raw map (h, w) cannot be drawn, or nothing if it can.

    >>> message(np.array([[-1.0, 0.0]])), message(np.array([[np.nan, 1.0]])), message(np.array([[2.0]]))
    ('no positive evidence', 'not finite', '')
    """
    if not np.isfinite(raw).all():
        return NOT_FINITE
    return "" if raw.max() > 0 else NO_EVIDENCE


def alone(raw: np.ndarray) -> np.ndarray:
    """Colour raw maps (M, h, w) at their own resolution: (M, h, w, 3) uint8, one cell per pixel."""
    return display.colorize(display.heatmap(raw, raw.shape[1:]))


def overlaid(images: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Lay raw maps (M, h, w) over images (M, H, W, 3) uint8, enlarged to their size."""
    return display.overlay(images, display.heatmap(raw, images.shape[1:3]))
