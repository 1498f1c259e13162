"""Sheets of pictures: rows of tiles under captions, in one drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from sightline.report.canvas import INK, MUTED

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
