"""The rules of the range test against slow loops of their definitions, and on curves with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.training import LR_RULES, RangeTest
from sightline.training.lr_range_test import falling_range, minimum_tenth, slide, steepest, valley

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


LR = np.geomspace(1e-4, 1, 81)  # 20 steps for each power of ten


def a_sweep(begin: float, end: float, *, scatter: float = 0.0, fall: float = 1.0) -> np.ndarray:
    """A loss of 2.3 that falls evenly over log(lr) from `begin` to `end`, then turns up."""
    x, a, b = np.log10(LR), np.log10(begin), np.log10(end)
    share = np.clip((x - a) / (b - a), 0, 1)
    noise = np.random.default_rng(3).normal(0, scatter, len(LR)) if scatter else 0.0
    return 2.3 - fall * share + 2 * np.maximum(x - b, 0) + noise


def test_a_sweep_falls_from_a_tenth_of_the_way_down_to_the_lowest_loss():
    loss = a_sweep(1e-3, 0.1)
    low, high = falling_range(LR, loss, loss)
    assert high == pytest.approx(0.1)
    assert low == pytest.approx(1e-3 * 100**0.1, rel=0.13)  # within a step
    ended = np.where(LR > 0.3, np.nan, loss)
    assert falling_range(LR, ended, ended) == (low, high)


def test_a_fall_within_the_scatter_of_the_steps_is_no_fall():
    for fall, clear in ((0.05, False), (1.0, True)):
        loss = a_sweep(1e-3, 0.1, scatter=0.05, fall=fall)
        assert (falling_range(LR, loss, loss) is not None) is clear
    rising = np.linspace(2, 3, len(LR))
    assert falling_range(LR, rising, rising) is None
    assert falling_range(LR, np.full(81, np.nan), np.full(81, np.nan)) is None


def test_the_suggestion_is_a_quarter_of_the_edge_that_all_sweeps_share():
    rows = np.stack([a_sweep(1e-3, 0.1), a_sweep(2e-3, 0.2)])
    low, high = falling_range(LR, rows[1], rows[1])[0], falling_range(LR, rows[0], rows[0])[1]
    found = RangeTest(LR, rows, rows, (0, 1), usual=0.5)
    assert found.falling == (low, high)
    assert (found.edge, found.suggestion, found.recommended) == (high, pytest.approx(0.025), "sweep")
    assert found.suggestions == {"sweep": found.suggestion}
    assert found.range == (float(f"{low:.2g}"), float(f"{high:.2g}"))
    assert found.reason == "a quarter of 0.1, where the loss is lowest"
    assert RangeTest(LR, rows, rows, (0, 1), divisor=10.0).suggestion == pytest.approx(0.01)


def test_the_rules_have_their_median_and_their_range_over_the_seeds():
    rows = np.stack([a_sweep(1e-3, 0.1), a_sweep(1e-3, 0.1), a_sweep(1e-3, 0.4)])
    middle, low, high = RangeTest(LR, rows, rows, (0, 1, 2)).rules["minimum/10"]
    assert (middle, low) == pytest.approx((0.01, 0.01))
    assert high == pytest.approx(0.04, rel=0.13)


def test_a_suggestion_stays_in_the_range():
    rows = a_sweep(0.05, 0.1)[None]  # falls over a factor of two alone: a quarter of the lowest is before it
    found = RangeTest(LR, rows, rows)
    assert found.suggestion == pytest.approx(found.falling[0], rel=5e-3)


def test_where_the_sweeps_are_unclear_the_default_stands_with_a_wide_range():
    flat = a_sweep(1e-3, 1.0, fall=0.0)[None]
    found = RangeTest(LR, flat, flat, usual=0.02)
    assert (found.suggestion, found.recommended, found.range) == (0.02, "default", (0.0025, 0.16))
    assert found.reason.startswith("the default of network and optimizer; the sweep shows no clear fall")
    clear = np.stack([flat[0], a_sweep(1e-3, 0.1)])
    assert RangeTest(LR, clear, clear, (0, 1), usual=0.5).recommended == "default"  # one of two is not enough
    assert RangeTest(LR, flat, flat).suggestion == 0.25  # of what was tried, where there is no default


def test_a_default_near_where_the_sweeps_ran_away_gives_way():
    flat = np.stack([np.where(LR < 0.04, 2.3, np.nan), np.where(LR < 0.08, 2.3, np.nan)])
    edge = LR[LR >= 0.04][0]
    found = RangeTest(LR, flat, flat, (0, 1), usual=0.02)
    assert found.edge == edge
    assert (found.suggestion, found.recommended) == (float(f"{edge / 4:.3g}"), "sweep")
    assert found.range == (float(f"{found.suggestion / 8:.2g}"), float(f"{edge:.2g}"))
    assert "where it ran away; the sweep shows no clear fall" in found.reason
    assert RangeTest(LR, flat, flat, (0, 1), usual=0.009).suggestion == 0.009  # far enough below
