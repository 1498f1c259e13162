"""Charts as data: coordinates and words, worked out here and drawn as SVG by a template.

Unlike a picture of a chart they follow the page's colours, and every point says its values. No drawing
library is needed for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sightline.report.formatting import learning_rate, percent

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 12, 42
_NAMES_LEFT = 150  # room for names in place of numbers
_MARK_STEP = 17  # from the label of one mark to the next


@dataclass(frozen=True)
class Point:
    """A place in pixels and what it says when it is pointed at."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line in one piece or more; `style` names a class of the style sheet: accent, muted, thin, dashed.

    pieces: places in pixels, joined within a piece. points: what can be pointed at. dots: whether points
    show.
    """

    name: str
    style: str
    pieces: tuple[tuple[tuple[float, float], ...], ...]
    points: tuple[Point, ...]
    dots: bool = False

    @property
    def path(self) -> str:
        """The line as an SVG path."""
        return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in piece) for piece in self.pieces)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels and what it says; `style` is share, interval or band."""

    x: float
    y: float
    width: float
    height: float
    style: str = "share"
    text: str = ""


@dataclass(frozen=True)
class Mark:
    """A vertical line from the x axis up to `y`, with a label at its left (`anchor` end) or right (start)."""

    x: float
    y: float
    label: str
    anchor: str
    strong: bool = False


@dataclass(frozen=True)
class Diagram:
    """Axes with ticks (place in pixels, text); boxes below lines below marks. alt: the whole in words.

    live: the id by which the page's script finds it to move a marker along.
    """

    caption: str
    alt: str
    width: float
    height: float
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    left: float = _LEFT
    boxes: tuple[Box, ...] = ()
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    live: str = ""
    kind: ClassVar[str] = "diagram"

    @property
    def right(self) -> float:
        return self.width - _RIGHT

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM

    @property
    def top(self) -> float:
        return _TOP

    @property
    def legend(self) -> tuple[Line, ...]:
        """The lines that have a name."""
        return tuple(line for line in self.lines if line.name)


@dataclass(frozen=True)
class Plane:
    """Axes and the two functions that place a value on them, in pixels."""

    axes: Diagram
    x: Callable[[float], float]
    y: Callable[[float], float]

    def line(
        self,
        name: str,
        style: str,
        xs: Sequence[float],
        ys: Sequence[float],
        texts: Sequence[str] = (),
        *,
        dots: bool = False,
    ) -> Line:
        """Return a line through values, cut where they leave the axes and broken where they are not finite.

        texts: what each point says, "" for one that says nothing; none at all for a line without points.
        """
        places = [
            (self.x(x), self.y(y)) if math.isfinite(x) and math.isfinite(y) else None
            for x, y in zip(xs, ys, strict=True)
        ]
        low, high = self.axes.top, self.axes.bottom
        points = [
            Point(*place, text)
            for place, text in zip(places, texts, strict=bool(texts))
            if place is not None and low - 1 <= place[1] <= high + 1
        ]
        return Line(name, style, _pieces(places, low, high), tuple(points), dots)

    def marks(self, values: Sequence[tuple[str, float]], *, strong: str = "") -> tuple[Mark, ...]:
        """Return a labelled vertical line for each value inside the axes, the largest value highest.

        No line crosses a label: a label stands at the left of its own line, or at the right near the left
        edge.
        """
        inside = [one for one in values if self.axes.left <= self.x(one[1]) <= self.axes.right]
        marks = []
        for level, (label, value) in enumerate(sorted(inside, key=lambda one: -one[1])):
            x = self.x(value)
            roomy = x - self.axes.left > 0.3 * (self.axes.right - self.axes.left)
            y = self.axes.top + 6 + level * _MARK_STEP
            marks.append(Mark(x, y, label, "end" if roomy else "start", label == strong))
        return tuple(marks)

    def drawn(
        self,
        *,
        boxes: Sequence[Box] = (),
        lines: Sequence[Line] = (),
        marks: Sequence[Mark] = (),
        live: str = "",
    ) -> Diagram:
        """Return the axes with these on them."""
        return replace(self.axes, boxes=tuple(boxes), lines=tuple(lines), marks=tuple(marks), live=live)


def _pieces(
    places: Sequence[tuple[float, float] | None], low: float, high: float
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Cut a line at the heights `low` and `high` in pixels, and at places that are None."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for before, after in zip([None, *places], places, strict=False):
        if after is None:
            pieces.append([])
            continue
        if before is not None and (cut := _cut(before, after, low, high)):
            if not pieces[-1] or pieces[-1][-1] != cut[0]:
                pieces.append([cut[0]])
            pieces[-1].append(cut[1])
        elif before is None and low <= after[1] <= high:
            pieces.append([after])
    return tuple(tuple(piece) for piece in pieces if piece)


def _cut(
    a: tuple[float, float], b: tuple[float, float], low: float, high: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the part of the segment from a to b that lies between two heights, None if there is none."""
    if max(a[1], b[1]) < low or min(a[1], b[1]) > high:
        return None

    def inside(place: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
        y = min(max(place[1], low), high)
        if y == place[1]:
            return place
        share = (y - place[1]) / (other[1] - place[1])
        return round(place[0] + share * (other[0] - place[0]), 2), y

    return inside(a, b), inside(b, a)


def plane(
    caption: str,
    alt: str,
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    labels: tuple[str, str],
    shares: tuple[bool, bool] = (False, False),
    log: bool = False,
    whole: bool = False,
    size: tuple[float, float] = (560, 300),
    names: Sequence[str] = (),
) -> Plane:
    """Return axes from `x` and `y`, the lowest and highest values on them.

    labels: of the two axes. shares: whether an axis counts in per cent. log: whether the x axis is
    logarithmic. whole: whether its ticks are whole numbers. names: of rows 0, 1, ... from the top, in place
    of ticks on the y axis.
    """
    width, height = size
    left = _NAMES_LEFT if names else _LEFT
    across = _scale(x, left, width - _RIGHT, log=log)
    down = _scale(y, height - _BOTTOM, _TOP)
    rows = tuple((down(k), name) for k, name in enumerate(names))
    x_ticks = _log_ticks(*x) if log else _ticks(*x, share=shares[0], whole=whole)
    y_ticks = rows or tuple((down(value), text) for value, text in _ticks(*y, share=shares[1]))
    axes = Diagram(
        caption,
        alt,
        width,
        height,
        *labels,
        x_ticks=tuple((across(value), text) for value, text in x_ticks),
        y_ticks=y_ticks,
        left=left,
    )
    return Plane(axes, across, down)


def _scale(
    values: tuple[float, float], start: float, stop: float, *, log: bool = False
) -> Callable[[float], float]:
    low, high = (math.log10(value) for value in values) if log else values
    span = (high - low) or 1.0

    def place(value: float) -> float:
        value = math.log10(max(value, 1e-300)) if log else value
        return round(float(start + (value - low) / span * (stop - start)), 2)

    return place


def _ticks(low: float, high: float, *, share: bool = False, whole: bool = False) -> list[tuple[float, str]]:
    """Return round values between two others, at most seven, with their texts.

    >>> [text for _, text in _ticks(0, 2300)], [text for _, text in _ticks(0, 0.9, share=True)][:2]
    (['0', '500', '1,000', '1,500', '2,000'], ['0\\xa0%', '20\\xa0%'])
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 6))
    steps = [factor * power for factor in (1, 2, 2.5, 5, 10)]
    step = next(step for step in steps if step >= span / 6 * (1 - 1e-9))
    if whole:
        step = math.ceil(step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    found = [k * step for k in range(first, last + 1)]
    shown = 100 * step if share else step
    digits = next(k for k in range(12) if math.isclose(round(shown, k), shown, rel_tol=1e-9) or k == 11)
    return [(value, percent(value, digits=digits) if share else f"{value:,.{digits}f}") for value in found]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return powers of ten between two values, at most seven; between close ones their twos and fives too."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, -(-(last - first + 1) // 7))
    found = [10.0**k for k in range(first, last + 1, every)]
    if len(found) < 3:
        wide = [factor * 10.0**k for k in range(first - 1, last + 1) for factor in (1, 2, 5)]
        found = [value for value in wide if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return [(value, learning_rate(value)) for value in found]


@dataclass(frozen=True)
class MatrixMap:
    """A confusion matrix of too many classes for a table: one unit a cell, true classes down.

    shades: for each strength (0: the diagonal, 1 to 10) the path of its cells.
    """

    caption: str
    alt: str
    classes: int
    shades: tuple[tuple[int, str], ...]
    kind: ClassVar[str] = "matrix_map"


def matrix_map(caption: str, alt: str, shades: np.ndarray) -> MatrixMap:
    """Return the drawing of shades (C, C) of mistakes, 0 for none; the diagonal is a path of its own."""
    paths = []
    for shade in np.unique(shades[shades > 0]).tolist():
        rows, columns = np.nonzero(shades == shade)
        cells = zip(columns.tolist(), rows.tolist(), strict=True)
        paths.append((int(shade), "".join(f"M{x} {y}h1v1h-1z" for x, y in cells)))
    diagonal = "".join(f"M{k} {k}h1v1h-1z" for k in range(len(shades)))
    return MatrixMap(caption, alt, len(shades), ((0, diagonal), *paths))


def limits_of_losses(losses: np.ndarray, smoothed: np.ndarray, *, start: float) -> tuple[float, float] | None:
    """Return the lowest and the highest loss to draw: a divergence would press everything else flat.

    start: the largest smoothed loss that a sweep begins with. None if no loss is finite.
    """
    smoothed, losses = smoothed[np.isfinite(smoothed)], losses[np.isfinite(losses)]
    if not len(smoothed) or not len(losses) or not np.isfinite(start):
        return None
    low = float(min(smoothed.min(), losses.min()))
    high = float(min(smoothed.max(), start + 0.5 * (start - smoothed.min()) + 0.1))
    return low - 0.05 * (high - low) - 1e-3, high
