"""What the page's script reads: one manifest as JSON, numbers as packed columns, pictures as sheets."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps

from sightline.explain import display
from sightline.report.load import ReportData
from sightline.report.sprites import Sprites

# Pictures of 10,000 test images at 32 pixels are kept as they are; of more, or larger ones, reduced.
TEST_PIXELS, TRAIN_PIXELS = 12_000_000, 5_000_000
MAP_BYTES = 1_600_000
MOST_TEST, MOST_TRAIN = 20_000, 5_000
_TYPES = {"u1": "u8", "u2": "u16", "u4": "u32", "i1": "i8", "i2": "i16", "i4": "i32", "f4": "f32"}


@dataclass(frozen=True)
class Payload:
    """manifest: what is named. blobs: base64 by the id of the element that holds it."""

    manifest: dict[str, Any]
    blobs: dict[str, str]

    @property
    def json(self) -> str:
        """The manifest as JSON that cannot end the script element that it stands in."""
        text = json.dumps(self.manifest, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


class Columns:
    """Arrays one after another, little-endian, each at a multiple of 8 bytes."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, int, int]] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, name: str, array: np.ndarray) -> None:
        """Add an array of 1 to 4 bytes a value, under a name."""
        array = np.ascontiguousarray(array)
        kind = array.dtype.str[1:]
        raw = array.astype(f"<{kind}").tobytes()
        self.places[name] = (_TYPES[kind], self._size, array.size)
        self._parts.append(raw + bytes(-len(raw) % 8))
        self._size += len(self._parts[-1])

    def add_integers(self, name: str, values: np.ndarray) -> None:
        """Add integers in the fewest bytes that hold them all."""
        values = np.asarray(values, np.int64)
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        kinds = (np.int8, np.int16, np.int32) if low < 0 else (np.uint8, np.uint16, np.uint32)
        self.add(
            name, values.astype(next(k for k in kinds if np.iinfo(k).min <= low <= high <= np.iinfo(k).max))
        )

    def add_floats(self, name: str, values: np.ndarray) -> None:
        """Add numbers as 32-bit floats; what is not finite becomes NaN."""
        values = np.asarray(values, np.float64)
        self.add(name, np.where(np.isfinite(values), values, np.nan).astype(np.float32))

    @property
    def base64(self) -> str:
        return encode(b"".join(self._parts))


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def add_sprites(blobs: dict[str, str], name: str, sprites: Sprites) -> dict[str, Any]:
    """Put the sheets into `blobs` and return what the manifest says of them."""
    ids = [f"sheet-{name}-{k}" for k in range(len(sprites.sheets))]
    blobs |= {key: encode(sheet) for key, sheet in zip(ids, sprites.sheets, strict=True)}
    size = {"width": sprites.width, "height": sprites.height}
    return size | {"across": sprites.across, "per_sheet": sprites.per_sheet, "sheets": ids}


def add_maps(columns: Columns, name: str, maps: np.ndarray) -> None:
    """Add signed maps (N, h, w) as int8, each on the scale of its own largest value.

    The value of a cell is its byte times the map's scale; a scale of NaN marks a map that is not finite.
    """
    maps = maps.astype(np.float32)
    top = np.abs(maps).max(axis=(1, 2), initial=0)  # (N,)
    finite = np.isfinite(top)
    scale = np.where(finite & (top > 0), top / 127, 1).astype(np.float32)
    grids = np.rint(np.where(finite[:, None, None], maps, 0) / scale[:, None, None])
    columns.add(f"{name}.grid", np.clip(grids, -127, 127).astype(np.int8))
    columns.add(f"{name}.scale", np.where(finite, scale, np.nan).astype(np.float32))


def reduced_maps(maps: np.ndarray, number: int) -> np.ndarray:
    """Return maps (N, h, w) coarse enough that `number` of them fit into the page."""
    height, width = maps.shape[1:]
    factor = np.sqrt(number * height * width / MAP_BYTES)
    if factor <= 1:
        return maps
    size = (max(1, int(height / factor)), max(1, int(width / factor)))
    return display.resize_maps(maps.astype(np.float32), size)


def add_colors(columns: Columns) -> None:
    """Add the colour maps that the page paints heat with: 256 colours of three bytes each."""
    for name in ("inferno", "viridis", "cividis"):
        columns.add(f"colors.{name}", colormaps[name](np.arange(256), bytes=True)[:, :3])


def kept_tests(data: ReportData) -> np.ndarray:
    """Return the rows of the gallery in ascending order: all, or the ones with the highest loss."""
    loss = data.predictions.loss
    return np.sort(np.argsort(-loss, kind="stable")[:MOST_TEST])
