"""Pictures as data URIs: small ones kept to the bit, large ones reduced to what a page can show.

Raw maps made visible, or said in words where there is nothing to see.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from sightline.attribution import display
from sightline.report.blocks import Picture

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


# Up to this side a picture is stored without loss and enlarged pixel by pixel; above it, it is reduced.
LOSSLESS_SIDE = 64
LARGEST_SIDE = 160


def data_uri(data: bytes, kind: str) -> str:
    """Return `data:image/KIND;base64,...`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def tile(image: np.ndarray, alt: str) -> Picture:
    """Return an image (H, W, 3) uint8 as a picture for the page."""
    buffer = io.BytesIO()
    if max(image.shape[:2]) <= LOSSLESS_SIDE:
        Image.fromarray(image).save(buffer, "PNG", optimize=True)
        return Picture(data_uri(buffer.getvalue(), "png"), alt)
    reduced = Image.fromarray(image)
    reduced.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    reduced.save(buffer, "JPEG", quality=85)
    return Picture(data_uri(buffer.getvalue(), "jpeg"), alt)
