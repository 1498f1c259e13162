"""Sheets of pictures, rows of tiles under captions, and the PNG files of a run's `figures/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sightline.files import write_atomic
from sightline.predictions.metrics import confusion
from sightline.report import charts
from sightline.report.charts import INK, MUTED, Drawing, png
from sightline.report.formatting import number, percent, short_name
from sightline.report.gallery import map_message, maps_alone, maps_overlaid
from sightline.report.run_data import ExplainedImages, RunData

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
    margin = 0.95 if any(row.heading for row in rows) else 0.04  # a letter may begin left of its place
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


TILE_NAME = 13  # letters of a class name that fit above a tile


def _chart_drawings(run: RunData) -> dict[str, Drawing]:
    """Return, by name, a drawing for every chart that the run's files allow."""
    matrix = confusion(run.predictions.labels, run.predictions.predicted, len(run.class_names))
    result: dict[str, Drawing] = {
        "accuracy_per_class": partial(charts.accuracy_per_class, matrix=matrix, names=run.class_names),
        "confusion": partial(charts.confusion, matrix=matrix, names=run.class_names),
    }
    if run.history is not None:
        result["loss"] = partial(charts.curves, history=run.history, quantity="loss")
        result["accuracy"] = partial(charts.curves, history=run.history, quantity="accuracy")
    if run.steps is not None:
        result["learning_rate"] = partial(charts.learning_rate, steps=run.steps)
    if run.range_test is not None:
        result["range_test"] = partial(charts.range_test, table=run.range_test, card=run.range_card)
    return result


def write_figures(run: RunData, folder: Path) -> list[Path]:
    """Write every drawing as `folder/NAME.png` and return the paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name, drawing in (_chart_drawings(run) | _sample_sheets(run) | _explained_sheets(run)).items():
        picture = png(drawing)
        paths.append(folder / f"{name}.png")
        write_atomic(paths[-1], lambda file, picture=picture: file.write(picture))
    return paths


def _sample_sheets(run: RunData) -> dict[str, Drawing]:
    if run.samples is None:
        return {}
    samples = run.samples
    names = [short_name(run.class_names[label], limit=TILE_NAME) for label in samples.labels]
    again = ["original", *(f"draw {k}" for k in range(1, len(samples.augmented_one)))]
    pair = [Row("as it is", samples.images), Row("augmented", samples.augmented)]
    return {
        "samples": partial(sheet, rows=[Row("", samples.images)], captions=names),
        "augmented": partial(sheet, rows=pair, captions=names),
        "augmented_one": partial(sheet, rows=[Row("", samples.augmented_one)], captions=again),
    }


def _explained_sheets(run: RunData) -> dict[str, Drawing]:
    result: dict[str, Drawing] = {}
    if wrong := run.explained.get("mistakes"):
        captions = _captions(run, wrong)
        rows = [Row("picture", wrong.images)]
        result["mistakes"] = partial(sheet, rows=rows, captions=captions)
        for target in ("predicted", "label"):
            rows = rows + map_rows(
                f"{_WORDS[target]} class", wrong.images, wrong.maps[run.main_layer][target]
            )
        result["mistakes_maps"] = partial(sheet, rows=rows, captions=captions)
    if right := run.explained.get("correct"):
        rows = [Row("picture", right.images)]
        rows += map_rows("predicted class", right.images, right.maps[run.main_layer]["predicted"])
        result["correct_maps"] = partial(sheet, rows=rows, captions=_captions(run, right))
    return result


_WORDS = {"predicted": "predicted", "label": "true"}


def map_rows(heading: str, images: np.ndarray, raw: np.ndarray, words: Sequence[str] = ()) -> list[Row]:
    """Return the rows of raw maps (M, h, w) alone and over their images.

    words: what to say in place of each map that cannot be drawn, by default the reason.
    """
    reasons = [map_message(one) for one in raw]
    said = [word if reason else "" for word, reason in zip(words or reasons, reasons, strict=True)]
    return [
        Row(f"{heading}:\nmap", maps_alone(raw), said),
        Row(f"{heading}:\noverlay", maps_overlaid(images, raw), said),
    ]


def _captions(run: RunData, shown: ExplainedImages) -> list[str]:
    p = run.predictions
    return [
        tile_caption(
            run.class_names, int(p.labels[i]), int(p.predicted[i]), float(p.loss[i]), float(p.confidence[i])
        )
        for i in shown.index.tolist()
    ]


def tile_caption(names: Sequence[str], label: int, predicted: int, loss: float, confidence: float) -> str:
    """Return what stands above a test image: what it was taken for, what it is, loss and confidence.

    >>> tile_caption(["cat", "dog"], 0, 1, 2.4813, 0.913).splitlines()
    ['dog,', 'not cat', 'loss 2.48, 91\xa0%']
    """
    true, guess = (short_name(names[c], limit=TILE_NAME) for c in (label, predicted))
    sure = percent(confidence, digits=0)
    return f"{true}\n{sure}" if label == predicted else f"{guess},\nnot {true}\nloss {number(loss)}, {sure}"
