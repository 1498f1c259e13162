"""Pictures as data URIs: small ones kept to the bit, large ones reduced to what a page can show."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from sightline.report.sections import Picture

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
