"""From a drawing to a file: the one place that knows matplotlib's settings and formats.

No global state is left behind and no window system is asked for: figures are made as objects,
inside a context that puts every setting back.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

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
