"""Pictures and numbers for the page: single tiles, sheets of many small pictures, the payload of its script.

The payload is one manifest as JSON, numbers as packed columns, and pictures as sheets: every test image, and
the training images that the findings name.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sightline.attribution import display
from sightline.audit import curation
from sightline.audit.record import MAP_COLUMNS
from sightline.audit.result import Action, Cause, DifficultyKind, SplitName
from sightline.report.blocks import Picture
from sightline.report.formatting import class_keys, page_name, short_name
from sightline.report.run_data import Pictures, RunData

NO_EVIDENCE = "no positive evidence"
NOT_FINITE = "not finite"
# Up to this side a picture is stored without loss and enlarged pixel by pixel; above it, it is reduced.
LOSSLESS_SIDE = 64
LARGEST_SIDE = 160


def tile_picture(image: np.ndarray, alt: str) -> Picture:
    """Return an image (H, W, 3) uint8 as a picture of its own for the page."""
    buffer = io.BytesIO()
    if max(image.shape[:2]) <= LOSSLESS_SIDE:
        Image.fromarray(image).save(buffer, "PNG", optimize=True)
        return Picture(f"data:image/png;base64,{encode(buffer.getvalue())}", alt)
    reduced = Image.fromarray(image)
    reduced.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    reduced.save(buffer, "JPEG", quality=85)
    return Picture(f"data:image/jpeg;base64,{encode(buffer.getvalue())}", alt)


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def map_message(raw: np.ndarray) -> str:
    """Return why a raw map (h, w) cannot be drawn, or nothing if it can.

    >>> [map_message(np.array(raw)) for raw in ([[-1.0, 0.0]], [[np.nan, 1.0]], [[2.0]])]
    ['no positive evidence', 'not finite', '']
    """
    if not np.isfinite(raw).all():
        return NOT_FINITE
    return "" if raw.max() > 0 else NO_EVIDENCE


def maps_alone(raw: np.ndarray) -> np.ndarray:
    """Colour raw maps (M, h, w) at their own resolution: (M, h, w, 3) uint8, one cell per pixel."""
    return display.colorize(display.heatmap(raw, raw.shape[1:]))


def maps_overlaid(images: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Lay raw maps (M, h, w) over images (M, H, W, 3) uint8, enlarged to their size."""
    return display.overlay(images, display.heatmap(raw, images.shape[1:3]))


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


def make_sprites(images: np.ndarray, *, limit: int) -> Sprites:
    """Lay pictures, uint8 (N, h, w, 3), on sheets; reduced until all of them have `limit` pixels at most.

    Pixels are kept at their own size where they fit, so that a small picture can be enlarged pixel by pixel.
    """
    number, height, width = images.shape[:3]
    factor = math.sqrt(limit / max(number * height * width, 1))
    if factor < 1:
        height, width = max(1, int(height * factor)), max(1, int(width * factor))
        images = _reduce(images, (width, height))
    across = min(SHEET_SIDE // width, max(1, math.ceil(math.sqrt(number))))
    per_sheet = across * min(SHEET_SIDE // height, across)
    quality = _QUALITY if number * height * width <= _FINE_PIXELS else _LOWER_QUALITY
    parts = [images[start : start + per_sheet] for start in range(0, number, per_sheet)]
    sheets = tuple(_encode(_lay(part, across), quality) for part in parts)
    return Sprites(width, height, across, per_sheet, sheets)


def blank_sprites() -> Sprites:
    """Return one transparent line in place of any number of pictures: without them the script is the same."""
    buffer = io.BytesIO()
    Image.new("RGBA", (1, 1)).save(buffer, "WEBP", lossless=True)
    return Sprites(32, 1, 1, 2**31 - 1, (buffer.getvalue(),))


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
TEST_LIMIT, TRAIN_LIMIT = 20_000, 5_000  # images
# The first is the one that a page opens with.
COLORS = ("inferno", "viridis", "cividis")
_TYPES = {"u1": "u8", "u2": "u16", "u4": "u32", "i1": "i8", "i2": "i16", "i4": "i32", "f4": "f32"}


@dataclass(frozen=True)
class Payload:
    """manifest: what is named. blobs: base64 by the id of its element. pictures: whether there are any."""

    manifest: dict[str, Any]
    blobs: dict[str, str]
    pictures: bool = True

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

    def add_choices(self, name: str, values: pd.Series, choices: tuple[str, ...]) -> None:
        """Add words of a closed list as their place in it plus one; 0 for any other word."""
        places = {choice: place for place, choice in enumerate(choices, 1)}
        self.add(name, np.array([places.get(value, 0) for value in values], np.uint8))

    @property
    def base64(self) -> str:
        return encode(b"".join(self._parts))


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
    from matplotlib import colormaps  # only where a page is made: the import takes longer than the page's own

    for name in COLORS:
        columns.add(f"colors.{name}", colormaps[name](np.arange(256), bytes=True)[:, :3])


_TOP = 5
_EPOCHS = 64  # points of a curve; of a longer training every k-th epoch is shown


def gallery_payload(run: RunData, *, most: int | None = None) -> Payload:
    """Return what the script of a run's page needs, with `most` images of each split at most."""
    columns, blobs = Columns(), {}
    tests, trains = kept_tests(run, most=most), kept_trainings(run, most=most)
    add_colors(columns)
    _add_tests(columns, run, tests)
    epochs = _add_trainings(columns, run, trains)
    manifest = {
        "names": [page_name(name) for name in run.class_names],
        "keys": class_keys(run.class_names),
        "run": run.name,
        "layer": run.main_layer,
        "tests": len(run.predictions),
        "trainings": len(run.audit.train),
        "epochs": epochs,
        "grids": _add_maps(columns, run, tests),
        "slices": [
            {"name": short_name(one.name, limit=120), "evidence": one.evidence} for one in run.audit.slices
        ],
        "fixes": [
            {"title": short_name(fix.title, limit=120), "split": fix.split, "images": fix.images}
            for fix in run.audit.fixes
        ],
        "data": run.data.fingerprint if run.data else None,
        "files": {"test": _files(run.audit.test, tests), "train": _files(run.audit.train, trains)},
        "sprites": {
            name: add_sprites(blobs, name, sprites)
            for name, sprites in _sprites(run.pictures, tests, trains).items()
        },
        "enums": page_enums(),
    }
    _add_neighbors(columns, run)
    manifest["columns"] = columns.places
    return Payload(manifest, {"columns": columns.base64, **blobs}, pictures=run.pictures is not None)


def _files(table: pd.DataFrame, rows: np.ndarray) -> dict[str, list[str]] | None:
    """Path and hash of the images of the page; None for a run that kept none."""
    if not {"path", "hash"} <= set(table):
        return None
    some = table.iloc[rows]
    return {"path": some["path"].tolist(), "hash": some["hash"].tolist()}


def page_enums() -> dict[str, Any]:
    """The closed lists that the script reads, so that each has one definition."""
    return {
        "causes": tuple(Cause),
        "kinds": tuple(DifficultyKind),
        "actions": tuple(Action),
        "fixes_format": curation.FORMAT,
        "fixes_version": curation.VERSION,
        "colors": COLORS,
    }


def kept_tests(run: RunData, *, most: int | None = None) -> np.ndarray:
    """Return the test images of the page in ascending order: all, or at most `most` (`TEST_LIMIT`).

    Of more, mistakes come first, the costliest before all, then the images that a fix, a label issue, a pair
    or a slice names, then a sample of the rest that is the same each time.
    """
    p, audit, most = run.predictions, run.audit, TEST_LIMIT if most is None else most
    if len(p) <= most:
        return np.arange(len(p))
    wrong = np.flatnonzero(~p.correct)
    named: list[Iterable[int]] = [wrong[np.argsort(-p.loss[wrong], kind="stable")]]
    named += [fix.images for fix in audit.fixes if fix.split is SplitName.TEST]
    named.append(issue.index for issue in audit.label_issues.test.rows)
    for pair in audit.duplicates.pairs if audit.duplicates else ():
        named.append(
            i for i, split in ((pair.a, pair.a_split), (pair.b, pair.b_split)) if split is SplitName.TEST
        )
    named += [one.rows for one in audit.slices]
    named.append(np.random.default_rng(0).permutation(len(p)))
    wanted = pd.unique(np.array([int(i) for images in named for i in images], np.int64))
    return np.sort(wanted[:most])


def kept_trainings(run: RunData, *, most: int | None = None) -> np.ndarray:
    """Return the training images of the page in ascending order, at most `most` (`TRAIN_LIMIT`).

    Those that a fix, a label issue or a pair names come first, then neighbours of the costliest mistakes.
    """
    audit = run.audit
    named: list[Iterable[int]] = [fix.images for fix in audit.fixes if fix.split is SplitName.TRAIN]
    if audit.label_issues.train:
        named.append(issue.index for issue in audit.label_issues.train.rows)
    for pair in audit.duplicates.pairs if audit.duplicates else ():
        named.append(
            i for i, split in ((pair.a, pair.a_split), (pair.b, pair.b_split)) if split is SplitName.TRAIN
        )
    order = [np.array([i for images in named for i in images], np.int64)]
    order.append(audit.test["near_duplicate"].to_numpy(np.int64))
    if near := audit.neighbors:
        by_cost = np.argsort(-run.predictions.loss[near.rows], kind="stable")
        order.append(near.indices[by_cost].ravel().astype(np.int64))
    if run.pictures:
        order.append(run.pictures.train_rows.astype(np.int64))
    wanted = pd.unique(np.concatenate(order))
    wanted = wanted[wanted >= 0]
    if run.pictures:
        wanted = wanted[np.isin(wanted, run.pictures.train_rows)]
    return np.sort(wanted[: TRAIN_LIMIT if most is None else min(most, TRAIN_LIMIT)])


def _sprites(pictures: Pictures | None, tests: np.ndarray, trains: np.ndarray) -> dict[str, Sprites]:
    if pictures is None:
        return {"test": blank_sprites(), "train": blank_sprites()}
    kept = np.argsort(pictures.train_rows, kind="stable")
    place = kept[np.searchsorted(pictures.train_rows, trains, sorter=kept)]
    return {
        "test": make_sprites(pictures.thumbnails[tests], limit=TEST_PIXELS),
        "train": make_sprites(pictures.train_thumbnails[place], limit=TRAIN_PIXELS),
    }


def _add_tests(columns: Columns, run: RunData, rows: np.ndarray) -> None:
    table = run.audit.test.iloc[rows]
    columns.add_integers("test.index", rows)
    for name in ("label", "predicted", "suggested", "slice", "near_duplicate", "set_size"):
        columns.add_integers(f"test.{name}", table[name].to_numpy())
    for name in ("loss", "confidence", "margin", "ambiguity", "label_quality"):
        columns.add_floats(f"test.{name}", table[name].to_numpy())
    columns.add_choices("test.cause", table["cause"], tuple(Cause))
    columns.add_choices("test.difficulty", table["difficulty"], tuple(DifficultyKind))
    for name in MAP_COLUMNS:
        if name in table:
            places = np.clip(np.nan_to_num(table[name].to_numpy(float)), 0, 1)
            columns.add(f"test.{name}", np.rint(65535 * places).astype(np.uint16))
    shares = run.predictions.probabilities[rows]  # (N, C)
    best = np.argsort(-shares, axis=1, kind="stable")[:, :_TOP]
    columns.add_integers("test.top", best)
    columns.add("test.top_share", np.rint(65535 * np.take_along_axis(shares, best, axis=1)).astype(np.uint16))


def _add_trainings(columns: Columns, run: RunData, rows: np.ndarray) -> int:
    """Add the training images of the page; return how many points their curves have."""
    table, probability = run.audit.train.iloc[rows], run.probability
    columns.add_integers("train.index", rows)
    for name in ("label", "suggested", "near_duplicate"):
        columns.add_integers(f"train.{name}", table[name].to_numpy())
    for name in ("label_quality", "aum", "forgetting", "p_mean", "p_std"):
        columns.add_floats(f"train.{name}", table[name].to_numpy())
    if probability is None or not len(probability):
        return 0
    step = -(-len(probability) // _EPOCHS)
    curves = probability[::step][:, rows].T.astype(np.float32)  # (R, E)
    shown = np.where(np.isfinite(curves), np.rint(254 * np.clip(curves, 0, 1)), 255)
    columns.add("train.curve", shown.astype(np.uint8))
    columns.add_integers("epoch", np.arange(1, len(probability) + 1, step))
    return curves.shape[1]


def _add_maps(columns: Columns, run: RunData, rows: np.ndarray) -> dict[str, list[int]]:
    """Add the maps for the predicted class, and for the true class where it is another; return their size."""
    pictures = run.pictures
    if pictures is None or pictures.maps_predicted is None or pictures.maps_true is None:
        return {}
    wrong = rows[~run.predictions.correct[rows]]
    number = len(rows) + len(wrong)
    predicted = reduced_maps(pictures.maps_predicted[rows], number)
    add_maps(columns, "predicted", predicted)
    add_maps(columns, "true", reduced_maps(pictures.maps_true[wrong], number))
    return {name: list(predicted.shape[1:]) for name in ("predicted", "true")}


def _add_neighbors(columns: Columns, run: RunData) -> None:
    if near := run.audit.neighbors:
        columns.add_integers("neighbour.row", near.rows)
        columns.add_integers("neighbour.index", near.indices)
        columns.add_floats("neighbour.similarity", near.similarity)
