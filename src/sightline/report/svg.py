"""Diagrams as data: coordinates and words, worked out here and drawn as SVG by a template.

Unlike a picture of a chart they follow the page's colours, and every point says its values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from matplotlib.ticker import MaxNLocator

from sightline.report.formatting import percent

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 12, 42


@dataclass(frozen=True)
class Point:
    """A place in pixels and what it says when it is pointed at."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """points joined by a line; `style` names a class of the style sheet: accent, muted, dashed or none."""

    name: str
    style: str
    points: tuple[Point, ...]
    dots: bool = False

    @property
    def path(self) -> str:
        """The line as an SVG path."""
        return "M" + "L".join(f"{p.x:g} {p.y:g}" for p in self.points)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels and what it says; `style` is share or interval."""

    x: float
    y: float
    width: float
    height: float
    style: str = "share"
    text: str = ""


@dataclass(frozen=True)
class Diagram:
    """Axes with ticks (place in pixels, text), boxes below lines. alt: what the whole says, in words.

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

    def with_parts(self, *, boxes: Sequence[Box] = (), lines: Sequence[Line] = (), live: str = "") -> Diagram:
        """Return the same axes with boxes and lines on them."""
        return replace(self, boxes=tuple(boxes), lines=tuple(lines), live=live)


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
        texts: Sequence[str],
        dots: bool = False,
    ) -> Line:
        """Return a line through finite values; each point says its text."""
        points = [
            Point(self.x(x), self.y(y), text)
            for x, y, text in zip(xs, ys, texts, strict=True)
            if np.isfinite(x) and np.isfinite(y)
        ]
        return Line(name, style, tuple(points), dots)


def plane(
    caption: str,
    alt: str,
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    labels: tuple[str, str],
    shares: tuple[bool, bool] = (False, False),
    size: tuple[float, float] = (560, 300),
    names: Sequence[str] = (),
) -> Plane:
    """Return axes from `x` and `y`, the lowest and highest values on them.

    labels: of the two axes. shares: whether an axis counts in per cent. names: of rows 0, 1, ... from the
    top, in place of ticks on the y axis.
    """
    width, height = size
    left = _LEFT if not names else 150
    across = _scale(x, left, width - _RIGHT)
    down = _scale(y, height - _BOTTOM, _TOP)
    rows = tuple((down(k), name) for k, name in enumerate(names))
    axes = Diagram(
        caption,
        alt,
        width,
        height,
        *labels,
        x_ticks=_ticks(x, across, shares[0]),
        y_ticks=rows or _ticks(y, down, shares[1]),
        left=left,
    )
    return Plane(axes, across, down)


def _scale(values: tuple[float, float], start: float, stop: float) -> Callable[[float], float]:
    low, high = values
    span = (high - low) or 1.0
    return lambda value: round(float(start + (value - low) / span * (stop - start)), 2)


def _ticks(
    values: tuple[float, float], place: Callable[[float], float], share: bool
) -> tuple[tuple[float, str], ...]:
    low, high = values
    found = np.asarray(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    slack = 1e-9 * (abs(high - low) or 1)
    digits = max(0, int(np.ceil(-np.log10(100 * (found[1] - found[0])) - 1e-9))) if share else 0
    if share and not np.allclose(np.round(100 * found, digits), 100 * found):
        digits += 1  # steps of 2.5 %
    return tuple(
        (place(float(tick)), percent(float(tick), digits=digits) if share else f"{float(tick):,.10g}")
        for tick in found
        if low - slack <= tick <= high + slack
    )
