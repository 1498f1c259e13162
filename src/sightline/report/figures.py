"""The pictures of `figures/`: which ones a run allows, and their files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from sightline.files import write_atomic
from sightline.predictions.metrics import confusion
from sightline.report import charts, maps
from sightline.report.canvas import Drawing, png
from sightline.report.load import Gallery, ReportData
from sightline.report.sheets import Row, sheet
from sightline.report.wording import percent, short_name

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
    messages = [maps.message(one) for one in raw]
    word = "predicted" if target == "predicted" else "true"
    return [
        Row(f"{word} class:\nmap", maps.alone(raw), messages),
        Row(f"{word} class:\noverlay", maps.overlaid(gallery.images, raw), messages),
    ]


def _caption(data: ReportData, index: np.int64) -> str:
    label, predicted = data.predictions.labels[index], data.predictions.predicted[index]
    true, guess = (short_name(data.class_names[c], most=_SHEET_NAME) for c in (label, predicted))
    sure = percent(data.predictions.confidence[index], digits=0)
    if label == predicted:
        return f"{true}\n{sure} sure"
    return f"{guess},\nnot {true}\nloss {data.predictions.loss[index]:.2f}, {sure}"
