"""What the page's script reads: one manifest as JSON, numbers as packed columns, pictures as sheets.

The galleries of the report as columns: every test image, and the training images that matter.

Many small pictures in few large ones: what a browser opens once and shows in parts.
"""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from sightline.attribution import display
from sightline.audit import curation
from sightline.audit.result import Action, Cause, DifficultyKind
from sightline.report.formatting import class_keys, page_name, short_name
from sightline.report.run_data import AuditFiles, ReportData

# Half of the 8,192 pixels that every browser can decode: a sheet then takes 64 MiB at most.
SHEET_SIDE = 4096
# Above this many pixels a sheet is stored at the lower quality, a third smaller.
_FINE_PIXELS = 12_000_000
_QUALITY, _LOWER_QUALITY = 75, 60


@dataclass(frozen=True)
class Sprites:
    """N pictures of `width` x `height` pixels, `across` in each row of a sheet and `per_sheet` on each.

    sheets: WebP files; picture i is on sheet i // per_sheet, there in row (i % per_sheet) // across.
    """

    width: int
    height: int
    across: int
    per_sheet: int
    sheets: tuple[bytes, ...]


def make_sprites(images: np.ndarray, *, most_pixels: int) -> Sprites:
    """Lay pictures, uint8 (N, h, w, 3), on sheets; reduced until all of them have `most_pixels` at most.

    Pixels are kept at their own size where they fit, so that a small picture can be enlarged pixel by pixel.
    """
    number, height, width = images.shape[:3]
    factor = math.sqrt(most_pixels / max(number * height * width, 1))
    if factor < 1:
        height, width = max(1, int(height * factor)), max(1, int(width * factor))
        images = _reduce(images, (width, height))
    across = min(SHEET_SIDE // width, max(1, math.ceil(math.sqrt(number))))
    per_sheet = across * min(SHEET_SIDE // height, across)
    quality = _QUALITY if number * height * width <= _FINE_PIXELS else _LOWER_QUALITY
    parts = [images[start : start + per_sheet] for start in range(0, number, per_sheet)]
    sheets = tuple(_encode(_lay(part, across), quality) for part in parts)
    return Sprites(width, height, across, per_sheet, sheets)


def _reduce(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (N, h, w, 3) to `size`, width and height, with a filter that averages what falls together."""
    small = [Image.fromarray(one).resize(size, Image.Resampling.LANCZOS) for one in images]
    return np.stack([np.asarray(one) for one in small])


def _lay(images: np.ndarray, across: int) -> np.ndarray:
    """Return one picture with (M, h, w, 3) in reading order; the rest of the last row is black."""
    number, height, width = images.shape[:3]
    down = -(-number // across)
    sheet = np.zeros((down * across, height, width, 3), np.uint8)
    sheet[:number] = images
    grid = sheet.reshape(down, across, height, width, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(down * height, across * width, 3)


def _encode(sheet: np.ndarray, quality: int) -> bytes:
    # Of 10,000 CIFAR images WebP takes 3.2 MB at 80, and JPEG of the same fidelity (31.7 dB) 3.6 MB; method 4
    # saves 3 % for twice the time.
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue()


# Pictures of 10,000 test images at 32 pixels are kept as they are; of more, or larger ones, reduced.
TEST_PIXELS, TRAIN_PIXELS = 12_000_000, 5_000_000
MAP_BYTES = 1_600_000
MOST_TEST, MOST_TRAIN = 20_000, 5_000
# The first is the one that a page opens with.
COLORS = ("inferno", "viridis", "cividis")
# A column holds the place of a cause here plus one, and 0 for none; so do kinds of difficulty.
ALL_CAUSES = tuple(Cause)
KINDS = tuple(DifficultyKind)
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
    for name in COLORS:
        columns.add(f"colors.{name}", colormaps[name](np.arange(256), bytes=True)[:, :3])


def kept_tests(data: ReportData) -> np.ndarray:
    """Return the rows of the gallery in ascending order: all, or the ones with the highest loss."""
    loss = data.predictions.loss
    return np.sort(np.argsort(-loss, kind="stable")[:MOST_TEST])


_TOP = 5
_EPOCHS = 64  # points of a curve; of a longer training every k-th epoch is shown


def gallery_payload(data: ReportData) -> Payload:
    """Return what the script of the page needs of a run with an audit."""
    audit = data.audit
    assert audit is not None
    columns, blobs = Columns(), {}
    tests, trains = kept_tests(data), _kept_trainings(audit)
    add_colors(columns)
    _add_tests(columns, data, audit, tests)
    epochs = _add_trainings(columns, audit, trains)
    grids = _add_maps(columns, data, audit, tests)
    _add_neighbours(columns, audit)
    kept = np.argsort(audit.arrays["train_rows"], kind="stable")
    place = kept[np.searchsorted(audit.arrays["train_rows"], trains, sorter=kept)]
    train_pictures = audit.arrays["train_thumbnails"][place]
    manifest = {
        "names": [page_name(name) for name in data.class_names],
        "keys": class_keys(data.class_names),
        "run": data.name,
        "layer": data.main_layer,
        "tests": len(data.predictions),
        "trainings": len(audit.train),
        "epochs": epochs,
        "grids": grids,
        "slices": [_slice(one) for one in audit.facts.get("slices", ())],
        "fixes": [_fix(one) for one in audit.facts.get("fixes", ())],
        "data": data.data.get("fingerprint"),
        "sprites": {
            "test": add_sprites(
                blobs, "test", make_sprites(audit.arrays["thumbnails"][tests], most_pixels=TEST_PIXELS)
            ),
            "train": add_sprites(blobs, "train", make_sprites(train_pictures, most_pixels=TRAIN_PIXELS)),
        },
        "columns": columns.places,
        "enums": page_enums(),
    }
    return Payload(manifest, {"columns": columns.base64, **blobs})


def page_enums() -> dict[str, Any]:
    """The closed lists that the script reads, so that each has one definition."""
    return {
        "causes": ALL_CAUSES,
        "kinds": KINDS,
        "actions": tuple(Action),
        "fixes_format": curation.FORMAT,
        "fixes_version": curation.VERSION,
        "colors": COLORS,
    }


def _slice(facts: dict[str, Any]) -> dict[str, str]:
    return {"name": short_name(str(facts["name"]), most=120), "evidence": str(facts.get("evidence", ""))}


def _fix(facts: dict[str, Any]) -> dict[str, Any]:
    images = [int(index) for index in facts.get("images", ())]
    return {
        "title": short_name(str(facts["title"]), most=120),
        "split": facts.get("split", "test"),
        "images": images,
    }


def _add_tests(columns: Columns, data: ReportData, audit: AuditFiles, rows: np.ndarray) -> None:
    table = audit.test.iloc[rows]
    columns.add_integers("test.index", rows)
    for name in ("label", "predicted", "suggested", "slice", "twin", "set_size"):
        columns.add_integers(f"test.{name}", table[name].to_numpy())
    for name in ("loss", "confidence", "margin", "ambiguity", "suspicion"):
        columns.add_floats(f"test.{name}", table[name].to_numpy())
    causes = pd.Categorical(table["cause"].fillna(""), categories=["", *ALL_CAUSES])
    columns.add("test.cause", np.maximum(np.asarray(causes.codes), 0).astype(np.uint8))
    kinds = pd.Categorical(table["difficulty"], categories=["", *KINDS])
    columns.add("test.difficulty", np.maximum(np.asarray(kinds.codes), 0).astype(np.uint8))
    shares = data.predictions.probabilities[rows]  # (N, C)
    best = np.argsort(-shares, axis=1, kind="stable")[:, :_TOP]
    columns.add_integers("test.top", best)
    columns.add("test.top_share", np.rint(65535 * np.take_along_axis(shares, best, axis=1)).astype(np.uint16))


def _add_trainings(columns: Columns, audit: AuditFiles, rows: np.ndarray) -> int:
    """Add the training images of the page; return how many points their curves have."""
    table = audit.train.iloc[rows]
    columns.add_integers("train.index", rows)
    for name in ("label", "suggested", "twin"):
        columns.add_integers(f"train.{name}", table[name].to_numpy())
    for name in ("suspicion", "aum", "forgetting", "p_mean", "p_std"):
        columns.add_floats(f"train.{name}", table[name].to_numpy())
    if audit.probability is None or not len(audit.probability):
        return 0
    step = -(-len(audit.probability) // _EPOCHS)
    curves = audit.probability[::step][:, rows].T.astype(np.float32)  # (R, E)
    shown = np.where(np.isfinite(curves), np.rint(254 * np.clip(curves, 0, 1)), 255)
    columns.add("train.curve", shown.astype(np.uint8))
    columns.add_integers("epoch", np.arange(1, len(audit.probability) + 1, step))
    return curves.shape[1]


def _add_maps(
    columns: Columns, data: ReportData, audit: AuditFiles, rows: np.ndarray
) -> dict[str, list[int]]:
    """Add the maps for the predicted class, and for the true class where it is another; return their size."""
    if "maps_predicted" not in audit.arrays:
        return {}
    wrong = rows[~data.predictions.correct[rows]]
    number = len(rows) + len(wrong)
    predicted = reduced_maps(audit.arrays["maps_predicted"][rows], number)
    add_maps(columns, "predicted", predicted)
    add_maps(columns, "true", reduced_maps(audit.arrays["maps_true"][wrong], number))
    return {name: list(predicted.shape[1:]) for name in ("predicted", "true")}


def _add_neighbours(columns: Columns, audit: AuditFiles) -> None:
    if "neighbours" not in audit.arrays:
        return
    columns.add_integers("neighbour.row", audit.arrays["neighbour_rows"])
    columns.add_integers("neighbour.index", audit.arrays["neighbours"])
    columns.add_floats("neighbour.similarity", audit.arrays["neighbour_similarity"])


def suspects_of(audit: AuditFiles, split: str) -> list[int]:
    """Return the images of a split whose label is suspected, the most suspicious first."""
    found = (audit.facts.get("suspects") or {}).get(split) or {}
    return [int(row["index"]) for row in found.get("top", ())]


def _kept_trainings(audit: AuditFiles) -> np.ndarray:
    """Return the training images of the page in ascending order.

    Those that a fix, a suspicion or a pair names come first, then neighbours of the costliest mistakes.
    """
    arrays, facts = audit.arrays, audit.facts
    named: list[int] = []
    for fix in facts.get("fixes") or ():
        named += fix.get("images", ()) if fix.get("split") == "train" else ()
    named += suspects_of(audit, "train")
    for pair in facts.get("duplicates", {}).get("pairs", ()):
        named += [pair[side] for side in ("a", "b") if pair[f"{side}_split"] == "train"]
    order = [np.asarray(named, np.int64), audit.test["twin"].to_numpy(np.int64)]
    if "neighbours" in arrays:
        by_cost = np.argsort(-audit.test["loss"].to_numpy()[arrays["neighbour_rows"]], kind="stable")
        order.append(arrays["neighbours"][by_cost].ravel().astype(np.int64))
    order.append(arrays["train_rows"].astype(np.int64))
    wanted = pd.unique(np.concatenate(order))
    pictured = wanted[np.isin(wanted, arrays["train_rows"])]
    return np.sort(pictured[:MOST_TRAIN])
