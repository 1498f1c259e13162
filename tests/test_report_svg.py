"""Diagrams: values in their place, lines cut at the axes, ticks as matplotlib chooses them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.ticker import MaxNLocator

from sightline.report.svg import limits_of_losses, matrix_map, plane


def test_a_diagram_puts_values_in_their_place_and_says_its_ticks():
    flat = plane("", "", x=(0, 10), y=(0, 0.05), labels=("x", "y"), shares=(False, True), size=(300, 200))
    axes = flat.axes
    assert (flat.x(0), flat.x(10)) == (axes.left, axes.right)
    assert (flat.y(0), flat.y(0.05)) == (axes.bottom, axes.top)
    assert flat.x(2.5) == pytest.approx(axes.left + (axes.right - axes.left) / 4, abs=0.01)
    assert [text for _, text in axes.y_ticks] == [f"{k}\u00a0%" for k in range(6)]
    halves = plane("", "", x=(0, 1), y=(0, 0.1), labels=("", ""), shares=(True, True)).axes
    assert [text for _, text in halves.y_ticks] == [f"{k}\u00a0%" for k in (0, 2, 4, 6, 8, 10)]
    line = flat.line("", "accent", [0, 5, np.nan], [0.01, np.nan, 0.02], ["a", "b", "c"])
    assert [point.text for point in line.points] == ["a"]
    assert line.pieces == (((flat.x(0), flat.y(0.01)),),)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.03, 0.97), (-3, 7), (0, 2345), (0.1, 0.1234), (0, 0.26)]
)
def test_ticks_are_those_of_matplotlib(low, high):
    axes = plane("", "", x=(low, high), y=(0, 1), labels=("", "")).axes
    wide = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    expected = [tick for tick in wide if low - 1e-12 <= tick <= high + 1e-12]
    assert [float(text.replace(",", "")) for _, text in axes.x_ticks] == pytest.approx(expected)
    places = [place for place, _ in axes.x_ticks]
    scale = (axes.right - axes.left) / (high - low)
    assert places == pytest.approx([axes.left + scale * (tick - low) for tick in expected], abs=0.01)


def test_a_logarithmic_axis_gives_every_power_of_ten_the_same_room():
    flat = plane("", "", x=(1e-5, 10), y=(0, 1), labels=("", ""), log=True)
    assert [text for _, text in flat.axes.x_ticks] == ["0.00001", "0.0001", "0.001", "0.01", "0.1", "1", "10"]
    assert np.ptp(np.diff([place for place, _ in flat.axes.x_ticks])) < 0.02
    narrow = plane("", "", x=(0.03, 0.4), y=(0, 1), labels=("", ""), log=True)
    assert [text for _, text in narrow.axes.x_ticks] == ["0.05", "0.1", "0.2"]


def test_a_line_is_cut_where_it_leaves_the_axes_and_broken_where_it_is_not_finite():
    flat = plane("", "", x=(0, 4), y=(0, 1), labels=("", ""))
    line = flat.line("", "thin", [0, 1, 2, 3, 4], [0.5, 2.5, 0.5, np.nan, 1], list("abcde"))
    first, second, third = line.pieces
    top = flat.axes.top
    assert first == ((flat.x(0), flat.y(0.5)), (pytest.approx(flat.x(0.25), abs=0.02), top))
    assert second == ((pytest.approx(flat.x(1.75), abs=0.02), top), (flat.x(2), flat.y(0.5)))
    assert third == ((flat.x(4), flat.y(1)),)
    assert [point.text for point in line.points] == ["a", "c", "e"]
    assert line.path.count("M") == 3


def test_marks_stand_below_each_other_the_largest_value_highest():
    flat = plane("", "", x=(1, 100), y=(0, 1), labels=("", ""), log=True)
    marks = flat.marks([("a", 10), ("b", 50), ("c", 1.2), ("outside", 1000)], strong="a")
    assert [mark.label for mark in marks] == ["b", "a", "c"]
    assert [mark.anchor for mark in marks] == ["end", "end", "start"]
    assert [mark.strong for mark in marks] == [False, True, False]
    assert sorted(mark.y for mark in marks) == [mark.y for mark in marks]


def test_a_divergence_does_not_press_the_losses_flat():
    smoothed = np.array([2.0, 1.5, 1.0, 50.0, np.nan])
    low, high = limits_of_losses(smoothed, smoothed, start=2.0)
    assert low < 1.0
    assert high == pytest.approx(2.0 + 0.5 + 0.1)
    assert limits_of_losses(smoothed * np.nan, smoothed * np.nan, start=np.nan) is None


def test_a_map_of_a_matrix_has_a_square_for_every_mistake():
    shades = np.array([[0, 3, 0], [0, 0, 10], [3, 0, 0]])
    found = dict(matrix_map("", "", shades).shades)
    squares = {shade: re.findall(r"M(\d) (\d)h1v1h-1z", path) for shade, path in found.items()}
    assert squares == {0: [("0", "0"), ("1", "1"), ("2", "2")], 3: [("1", "0"), ("0", "2")], 10: [("2", "1")]}
