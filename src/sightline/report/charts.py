"""Charts with matplotlib, for notebooks and PNG files: each draws numbers into a figure and keeps no state.

The page draws its own, see `svg`. No global state is left behind and no window system is asked for: figures
are made as objects, inside a context that puts every setting back. Colours stand for roles (ink, accent),
which a drawing saved as SVG takes from the reader's light or dark setting.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from sightline.report.formatting import count, percent, short_name
from sightline.report.svg import limits_of_losses
from sightline.stats import wilson_interval

Drawing = Callable[[Figure], None]

INK, MUTED, RULE, ACCENT = "#1c1f24", "#5d6670", "#dde1e6", "#b9460f"
_DARK = {INK: "#e8eaed", MUTED: "#9aa3ad", RULE: "#333a42", ACCENT: "#f79b62"}

_SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: the reader's fonts, searchable, any script
    "svg.hashsalt": "sightline",  # same data, same bytes
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x$
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def png(drawing: Drawing, *, dpi: int = 160) -> bytes:
    """Return a drawing as PNG on white."""
    return _save(drawing, format="png", dpi=dpi, facecolor="white")


def svg(drawing: Drawing) -> bytes:
    """Return a drawing as SVG without background that follows the reader's light or dark setting.

    It holds no script and names nothing outside itself.
    """
    text = _save(drawing, format="svg", transparent=True, metadata={"Date": None}).decode()
    names = {color: f"c{i}" for i, color in enumerate(_DARK)}
    for color, name in names.items():
        text = re.sub(rf"(fill|stroke): {color}\b", rf"\1: var(--{name})", text)
    light = "".join(f"--{name}:{color};" for color, name in names.items())
    dark = "".join(f"--{name}:{_DARK[color]};" for color, name in names.items())
    style = f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    text = text.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', 'DejaVu Sans'")
    start = text.index("<svg")
    head = text.index(">", start) + 1
    return (text[start:head] + style + text[head:]).encode()


def _save(drawing: Drawing, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with _settings():
        figure = Figure()
        drawing(figure)
        figure.savefig(buffer, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    # A name in a script that the font lacks is drawn as boxes; that is no fault of the run.
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


# Above this many classes a cell is too small for a number.
NUMBERED_CLASSES = 20
_STYLES = {
    "train": {"color": MUTED, "linewidth": 1.4},
    "validation": {"color": ACCENT, "linewidth": 1.2, "linestyle": (0, (3, 2))},
    "test": {"color": ACCENT, "linewidth": 2.0},
}


def curves(figure: Figure, history: pd.DataFrame, quantity: str) -> None:
    """Draw a `quantity` ("loss" or "accuracy") per epoch for train, validation if there, and test."""
    axes = _axes(figure, (5.0, 3.2), "epoch", "")
    shares = quantity == "accuracy"
    for split, style in _STYLES.items():
        if f"{split}_{quantity}" in history:
            values = history[f"{split}_{quantity}"].to_numpy(float)
            last = percent(values[-1]) if shares else f"{values[-1]:.3f}"
            marker = "o" if len(values) <= 30 else None
            axes.plot(history["epoch"], values, label=f"{split} {last}", marker=marker, markersize=3, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if shares:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}\u00a0%"))
    axes.legend(loc="best", frameon=False, labelcolor=INK)


def learning_rate(figure: Figure, steps: pd.DataFrame) -> None:
    """Draw the learning rate of every iteration."""
    axes = _axes(figure, (7.5, 2.8), "iteration", "learning rate")
    axes.plot(steps["step"], steps["lr"], color=ACCENT, linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))


def range_test(figure: Figure, table: pd.DataFrame, card: Mapping[str, Any]) -> None:
    """Draw the loss of every sweep against the learning rate (log axis), and where the rules point.

    table: lr, loss, smoothed and, where there are several sweeps, seed. card: the content of
    `range_test.json`; the `recommended` one of its `suggestions` is a solid line, its range over the
    seeds a band.
    """
    recommended = card.get("recommended", "")
    axes = _axes(figure, (7.5, 4.0), "learning rate (log scale)", "loss")
    sweeps = [part for _, part in table.groupby("seed", sort=False)] if "seed" in table else [table]
    raw = f"loss of each batch, {len(sweeps)} sweeps" if len(sweeps) > 1 else "loss of each batch"
    for k, sweep in enumerate(sweeps):
        label = raw if k == 0 else None
        axes.plot(sweep["lr"], sweep["loss"], color=MUTED, linewidth=0.7, alpha=0.45, label=label)
    for k, sweep in enumerate(sweeps):
        label = "smoothed" if k == 0 else None
        axes.plot(sweep["lr"], sweep["smoothed"], color=ACCENT, linewidth=1.8, alpha=0.85, label=label)
    start = max(sweep["smoothed"].iloc[0] for sweep in sweeps)
    losses, smoothed = (table[name].to_numpy(float) for name in ("loss", "smoothed"))
    if limits := limits_of_losses(losses, smoothed, start=start):
        axes.set_ylim(limits[0], limits[1] + 0.5 * (limits[1] - limits[0]) + 1e-3)  # room for labels on top
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = card.get("ranges", {}).get(recommended, (0, 0))
    if high > low:
        axes.axvspan(low, high, color=ACCENT, alpha=0.13, linewidth=0)
    _mark_rates(axes, card.get("suggestions", {}), recommended)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, labelcolor=INK)


def _mark_rates(axes: Axes, suggestions: Mapping[str, float], recommended: str) -> None:
    left, right = np.log(axes.get_xlim())
    for level, (name, value) in enumerate(sorted(suggestions.items(), key=lambda item: -item[1])):
        height = 0.98 - 0.075 * level  # the larger the taller, labelled on the left: no line crosses a label
        chosen = name == recommended
        style = "-" if chosen else (0, (2, 2))
        axes.axvline(value, ymax=height, color=INK, linewidth=1.8 if chosen else 1, linestyle=style)
        side = -1 if (np.log(value) - left) / (right - left) > 0.3 else 1  # where the label has room
        axes.annotate(
            f"{short_name(name, limit=24)} {value:.3g}{', recommended' if chosen else ''}",
            (value, height),
            xycoords=axes.get_xaxis_transform(),
            xytext=(4 * side, 0),
            textcoords="offset points",
            fontsize=9,
            fontweight="bold" if chosen else "normal",
            color=INK,
            ha="right" if side < 0 else "left",
            va="top",
        )


def accuracy_per_class(figure: Figure, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Draw a bar per class, the weakest on top, with 95 % Wilson intervals. matrix: (C, C) counts."""
    totals, right = matrix.sum(axis=1), matrix.diagonal()
    order = sorted(np.flatnonzero(totals).tolist(), key=lambda c: right[c] / totals[c])
    shares = np.array([right[c] / totals[c] for c in order])
    limits = np.array([wilson_interval(int(right[c]), int(totals[c])) for c in order]).reshape(-1, 2)
    axes = _axes(figure, (7.0, 1.2 + 0.26 * len(order)), "share of the class's test images that is right", "")
    rows = np.arange(len(order))
    axes.barh(rows, shares, height=0.62, color=ACCENT, alpha=0.35)
    axes.hlines(rows, limits[:, 0], limits[:, 1], color=INK, linewidth=1.2)
    for row, (share, high) in enumerate(zip(shares, limits[:, 1], strict=True)):
        axes.text(high + 0.008, row, percent(share), va="center", fontsize=8, color=MUTED)
    axes.set_yticks(rows, [short_name(names[c], limit=28) for c in order], fontsize=9)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}\u00a0%"))
    axes.grid(axis="y", visible=False)


def confusion(figure: Figure, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Draw a confusion matrix (C, C) of counts, rows true: mistakes in colour, the diagonal in grey.

    A colour is the share of the true class's images, on a scale that ends at the largest mistake: the
    diagonal would drown all mistakes on a scale of its own size.
    """
    classes = len(matrix)
    side = 2.2 + (0.46 * classes if classes <= NUMBERED_CLASSES else max(0.1 * classes, 5.0))
    axes = _axes(figure, (side + 0.8, side), "predicted class", "true class")
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (C, C)
    diagonal = np.eye(classes, dtype=bool)
    top = float(shares[~diagonal].max(initial=0)) or 1.0
    nothing = np.ma.masked_array(np.zeros((classes, classes)), mask=~diagonal)
    axes.imshow(nothing, cmap="gray", vmin=-7, vmax=1, interpolation="nearest")
    mistakes = np.ma.masked_array(shares, mask=diagonal | (matrix == 0))
    image = axes.imshow(mistakes, cmap="magma_r", vmin=0, vmax=top, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class's images", pad=0.02)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}\u00a0%"))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    if classes <= NUMBERED_CLASSES:
        for (row, column), value in np.ndenumerate(matrix):
            dark = row != column and shares[row, column] > 0.55 * top
            color = "white" if dark else MUTED if value == 0 else INK
            axes.text(column, row, count(value), ha="center", va="center", fontsize=8, color=color)
    _name_classes(axes, [short_name(name, limit=20) for name in names])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    few = len(names) <= NUMBERED_CLASSES
    size = 9 if few else 5.5
    axes.set_xticks(range(len(names)), names, rotation=45 if few else 90, fontsize=size)
    if few:  # a slanted name ends under its column
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names, fontsize=size)


def _axes(figure: Figure, size: tuple[float, float], x: str, y: str) -> Axes:
    """Return the figure's only axes; size in inches."""
    figure.set_size_inches(size)
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0)
    return axes
