"""The rules of the range test against slow loops of their definitions, and on curves with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.training import LR_RULES
from sightline.training.lr_range_test import minimum_tenth, slide, steepest, valley

GENERATOR = np.random.default_rng(0)


def some_curve() -> tuple[np.ndarray, np.ndarray]:
    """A fall at some rate, of some depth, with some noise, before a rise."""
    lr = np.geomspace(1e-5, 10, int(GENERATOR.integers(20, 95)))
    x = np.linspace(0, 1, len(lr))
    depth, steepness, where, end = GENERATOR.uniform([0, 5, 0.2, 0.8], [2, 40, 0.8, 1.1])
    noise = GENERATOR.normal(0, GENERATOR.choice([0, 0.01, 0.1]), len(lr))
    return lr, 2.3 - depth / (1 + np.exp(-steepness * (x - where))) + noise + np.exp(30 * (x - end))


def steepest_of_a_loop(lr, losses):
    found, lowest = None, np.inf
    for i in range(len(lr) - 1):
        slope = (losses[i + 1] - losses[i]) / (np.log(lr[i + 1]) - np.log(lr[i]))
        if slope < lowest:
            found, lowest = lr[i], slope
    return found


def valley_of_a_loop(lr, losses):
    longest = [1] * len(losses)
    start = end = 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and longest[i] < longest[j] + 1:
                longest[i] = longest[j] + 1
        if longest[end] < longest[i]:
            end = i
            start = end - longest[end]
    third = (end - start) / 3
    return lr[start + int(third) + int(third / 2)]


def slide_of_a_loop(lr, losses):
    slope = np.gradient(losses)
    right, left = -1, -16
    found = lr[left]
    while left >= -len(losses) and abs(slope[right] - slope[left]) > 0.005:
        found = lr[left]
        right -= 1
        left -= 1
    return found


def minimum_of_a_loop(lr, losses):
    lowest = min(range(len(lr)), key=lambda i: losses[i])
    return lr[lowest] / 10


LOOPS = {
    "steepest": steepest_of_a_loop,
    "valley": valley_of_a_loop,
    "slide": slide_of_a_loop,
    "minimum/10": minimum_of_a_loop,
}


@pytest.mark.parametrize("name", LR_RULES)
def test_a_rule_equals_a_slow_loop_of_its_definition(name):
    for _ in range(100):
        lr, losses = some_curve()
        assert LR_RULES[name](lr, losses) == pytest.approx(LOOPS[name](lr, losses), rel=1e-12)


def test_the_rules_on_a_curve_whose_answers_are_known():
    lr = np.geomspace(1e-4, 10, 101)  # 20 steps for each power of ten
    x = np.log10(lr)
    losses = 2.3 - 1.5 / (1 + np.exp(-4 * (x + 1.5))) + np.where(x > 0, 3 * x**2, 0)
    assert steepest(lr, losses) == pytest.approx(10**-1.5, rel=0.13)  # within a step
    lowest = np.argmin(losses)
    assert minimum_tenth(lr, losses) == lr[lowest] / 10
    # It falls from the first point to the minimum: half of the way along is the middle of the valley.
    assert abs(np.log10(valley(lr, losses)) - (x[0] + x[lowest]) / 2) < 0.11


def test_the_valley_is_the_longest_fall_and_not_the_deepest():
    lr = np.geomspace(1e-3, 1, 30)
    losses = np.concatenate([np.linspace(3, 2.9, 18), [9.0], np.linspace(8.0, 0.1, 11)])
    # 18 falling ones, then only the last can go on from them, three lower ones after it
    assert valley(lr, losses) == pytest.approx(valley_of_a_loop(lr, losses))
    assert valley(lr, losses[:18]) == lr[17 - 18 + 6 + 3]


def test_the_slide_stops_where_the_slope_becomes_even():
    lr = np.geomspace(1e-4, 10, 100)
    losses = np.where(np.arange(100) < 60, 2.0, 2.0 + 0.01 * (np.arange(100) - 60) ** 2)
    # The slope is 0 up to 59 and 0.02 (i - 60) after it (0.01 at 61 / 2 at 60): a window of 15 steps whose
    # right end is at 61 is the last with more than 0.005 between its ends.
    slope = np.gradient(losses)
    assert (slope[59], slope[60]) == (0, pytest.approx(0.005))
    assert slide(lr, losses, threshold=0.006) == lr[61 - 15]


def test_a_curve_that_is_even_everywhere_gives_the_last_window():
    lr = np.geomspace(1e-3, 1, 40)
    assert slide(lr, np.linspace(3, 1, 40)) == lr[40 - 1 - 15]
    assert slide(lr[:10], np.linspace(3, 1, 10)) == lr[0]  # shorter than a window: as wide as it can be
