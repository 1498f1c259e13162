"""Charts for notebooks and PNG files."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from sightline.report import charts
from sightline.report.charts import png, svg


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    png(lambda figure: charts.confusion(figure, np.eye(2, dtype=int), ["a", "b"]), dpi=40)
    assert dict(mpl.rcParams) == before


def test_a_drawing_follows_the_theme_and_keeps_names_as_text():
    def draw(figure: Figure) -> None:
        charts.accuracy_per_class(figure, np.diag([3, 4]), ["$x$", "<b>"])

    text = svg(draw).decode()
    assert "$x$" in text
    assert "&lt;b&gt;" in text
    assert "prefers-color-scheme:dark" in text
    assert "fill: var(--" in text
    assert "#b9460f" not in text.split("</style>", 1)[1]


@pytest.mark.parametrize("n", [0, 7])
def test_the_chart_of_a_perfect_or_empty_matrix_draws(n):
    def draw(figure: Figure) -> None:
        charts.confusion(figure, n * np.eye(3, dtype=int), ["a", "b", "c"])
        charts.accuracy_per_class(Figure(), n * np.eye(3, dtype=int), ["a", "b", "c"])

    assert png(draw, dpi=40).startswith(b"\x89PNG")
