"""The pictures of `figures/`: which ones a run allows, and their files.

Sheets of pictures: rows of tiles under captions, in one drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sightline.files import write_atomic
from sightline.predictions.metrics import confusion
from sightline.report import charts, pictures
from sightline.report.charts import INK, MUTED, Drawing, png
from sightline.report.formatting import percent, short_name
from sightline.report.run_data import Gallery, ReportData

_TILE_INCHES = 1.0
_GAP = 0.06  # of a tile


@dataclass(frozen=True)
class Row:
    """One row of a sheet: a heading at its left, M pictures (H, W, 3) uint8, or words for a missing one."""

    heading: str
    images: np.ndarray | Sequence[np.ndarray]
    messages: Sequence[str] = ()


def sheet(figure: Figure, rows: Sequence[Row], captions: Sequence[str], *, per_line: int = 10) -> None:
    """Draw rows of M tiles; more than `per_line` of them continue below, with all rows again.

    captions: M texts, each of a line or more, above the first row.
    """
    number = len(rows[0].images)
    across = min(per_line, number)
    caption_height = 0.05 + 0.16 * max((text.count("\n") + 1 for text in captions if text), default=0)
    line_height = caption_height + len(rows) * (1 + _GAP) + 0.12
    lines = -(-number // per_line)
    margin = 0.95 if any(row.heading for row in rows) else 0.0
    width, height = margin + across * (1 + _GAP), lines * line_height
    figure.set_size_inches(width * _TILE_INCHES, height * _TILE_INCHES)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    for m in range(number):
        line, column = divmod(m, per_line)
        left, top = margin + column * (1 + _GAP), line * line_height
        if captions:
            axes.text(
                left, top + caption_height - 0.04, captions[m], fontsize=6.5, va="baseline", linespacing=1.1
            )
        for r, row in enumerate(rows):
            y = top + caption_height + r * (1 + _GAP)
            if row.heading and column == 0:
                axes.text(
                    margin - 0.08, y + 0.5, row.heading, fontsize=7.5, ha="right", va="center", color=MUTED
                )
            message = row.messages[m] if row.messages else ""
            _tile(axes, row.images[m], message, left, y)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    axes.axis("off")


def _tile(axes, image: np.ndarray, message: str, left: float, top: float) -> None:
    # A picture that is not square keeps its shape inside the square of its tile.
    height, width = np.array(image.shape[:2]) / max(image.shape[:2])
    x, y = left + (1 - width) / 2, top + (1 - height) / 2
    if message:
        image = np.full((1, 1, 3), 238, np.uint8)
    axes.imshow(image, extent=(x, x + width, y + height, y), interpolation="nearest", aspect="auto")
    if message:
        words = message.replace(" ", "\n")
        axes.text(left + 0.5, top + 0.5, words, fontsize=7, ha="center", va="center", color=INK)


_SHEET_NAME = 13  # letters of a class name that fit above a tile


def chart_drawings(data: ReportData) -> dict[str, Drawing]:
    """Return, by name, a drawing for every chart that the run's files allow."""
    matrix = confusion(data.predictions.labels, data.predictions.predicted, len(data.class_names))
    result: dict[str, Drawing] = {
        "accuracy_per_class": partial(charts.accuracy_per_class, matrix=matrix, names=data.class_names),
        "confusion": partial(charts.confusion, matrix=matrix, names=data.class_names),
    }
    if data.history is not None:
        result["loss"] = partial(charts.curves, history=data.history, quantity="loss")
        result["accuracy"] = partial(charts.curves, history=data.history, quantity="accuracy")
    if data.steps is not None:
        result["learning_rate"] = partial(charts.learning_rate, steps=data.steps)
    if data.range_test is not None:
        result["range_test"] = partial(charts.range_test, table=data.range_test, card=data.range_card)
    return result


def write_figures(data: ReportData, folder: Path) -> list[Path]:
    """Write every drawing as `folder/NAME.png` and return the paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name, drawing in (chart_drawings(data) | _sample_sheets(data) | _gallery_sheets(data)).items():
        picture = png(drawing)
        paths.append(folder / f"{name}.png")
        write_atomic(paths[-1], lambda file, picture=picture: file.write(picture))
    return paths


def _sample_sheets(data: ReportData) -> dict[str, Drawing]:
    if data.samples is None:
        return {}
    samples = data.samples
    names = [short_name(data.class_names[label], most=_SHEET_NAME) for label in samples.labels]
    again = ["original", *(f"draw {k}" for k in range(1, len(samples.augmented_one)))]
    pair = [Row("as it is", samples.images), Row("augmented", samples.augmented)]
    return {
        "samples": partial(sheet, rows=[Row("", samples.images)], captions=names),
        "augmented": partial(sheet, rows=pair, captions=names),
        "augmented_one": partial(sheet, rows=[Row("", samples.augmented_one)], captions=again),
    }


def _gallery_sheets(data: ReportData) -> dict[str, Drawing]:
    result: dict[str, Drawing] = {}
    if wrong := data.galleries.get("mistakes"):
        captions = [_caption(data, i) for i in wrong.index]
        rows = [Row("picture", wrong.images)]
        both = _map_rows(wrong, data.main_layer, "predicted") + _map_rows(wrong, data.main_layer, "label")
        result["mistakes"] = partial(sheet, rows=rows, captions=captions)
        result["mistakes_maps"] = partial(sheet, rows=rows + both, captions=captions)
    if right := data.galleries.get("correct"):
        rows = [Row("picture", right.images), *_map_rows(right, data.main_layer, "predicted")]
        captions = [_caption(data, i) for i in right.index]
        result["correct_maps"] = partial(sheet, rows=rows, captions=captions)
    return result


def _map_rows(gallery: Gallery, layer: str, target: str) -> list[Row]:
    raw = gallery.maps[layer][target]
    messages = [pictures.message(one) for one in raw]
    word = "predicted" if target == "predicted" else "true"
    return [
        Row(f"{word} class:\nmap", pictures.alone(raw), messages),
        Row(f"{word} class:\noverlay", pictures.overlaid(gallery.images, raw), messages),
    ]


def _caption(data: ReportData, index: np.int64) -> str:
    label, predicted = data.predictions.labels[index], data.predictions.predicted[index]
    true, guess = (short_name(data.class_names[c], most=_SHEET_NAME) for c in (label, predicted))
    sure = percent(data.predictions.confidence[index], digits=0)
    if label == predicted:
        return f"{true}\n{sure} sure"
    return f"{guess},\nnot {true}\nloss {data.predictions.loss[index]:.2f}, {sure}"
