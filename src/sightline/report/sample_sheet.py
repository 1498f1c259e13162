"""A sheet with some images of every class, to see at a glance what a data set holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline.report.plot import check_images, plot_sheet
from sightline.report.sheets import Row
from sightline.report.wording import short_name

_PER_CLASS = 8
_CLASSES_IN_ROWS = 20
_MOST_CLASSES = 1000  # a sheet of more would be higher than a picture file can be
_NAME = 13  # letters of a class name that fit beside a row and above a tile


def write_sample_sheet(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path: str | Path
) -> Path:
    """Write a sheet of some images of every class, PNG or SVG; return its path.

    Up to 20 classes have a row of eight each; of more classes, each has one picture, and those after the
    first 1,000 none. Images are taken at even distances, for neighbours in a folder are often alike.
    images: uint8 (N, H, W, 3). labels: (N,) integers.

    Raises SightlineError if images and labels do not fit together, or the sheet cannot be written.
    """
    check_images(images, len(labels), "labels")
    names = [short_name(name, most=_NAME) for name in class_names[:_MOST_CLASSES]]
    in_rows = len(names) <= _CLASSES_IN_ROWS
    each = [_spread(images, labels == c, _PER_CLASS if in_rows else 1) for c in range(len(names))]
    if in_rows:
        rows = [Row(name, some) for name, some in zip(names, each, strict=True)]
        return plot_sheet(rows, per_line=_PER_CLASS).save(path)
    return plot_sheet([Row("", [some[0] for some in each])], names, per_line=10).save(path)


def _spread(images: np.ndarray, chosen: np.ndarray, number: int) -> list[np.ndarray]:
    """Return `number` images (H, W, 3) at even distances among the chosen, filled up with white."""
    members = np.flatnonzero(chosen)
    places = np.linspace(0, len(members) - 1, min(number, len(members))).astype(int)
    white = np.full((1, 1, 3), 255, np.uint8)
    return [*images[members[places]], *[white] * (number - len(places))]
