"""Rules that read one learning rate off the smoothed loss of a range test, as fastai defines them.

Each takes the rates (n,), growing by one factor, and the losses (n,), and returns one of those rates,
or in the case of the minimum a tenth of one. Who runs the test leaves out its start and its end first.

    >>> lr = np.array([0.001, 0.01, 0.1, 1.0, 10.0])
    >>> losses = np.array([2.3, 2.2, 1.0, 0.9, 4.0])
    >>> steepest(lr, losses), minimum_tenth(lr, losses)
    (0.01, 0.1)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RateRule = Callable[[np.ndarray, np.ndarray], float]


def steepest(lr: np.ndarray, losses: np.ndarray) -> float:
    """The rate from which one step takes the loss down most, by slope over log(lr)."""
    return float(lr[np.argmin(np.diff(losses) / np.diff(np.log(lr)))])


def valley(lr: np.ndarray, losses: np.ndarray) -> float:
    """The middle of the longest valley: half of the way down the longest falling subsequence of the losses.

    With L members, the last of them at index e (the first such, where several are as long), the rate
    is that at e - L + floor(L/3) + floor(L/6).
    """
    lengths = np.ones(len(losses), int)
    for i in range(1, len(losses)):  # the longest one that ends at i
        lengths[i] += lengths[:i][losses[:i] > losses[i]].max(initial=0)
    end = int(lengths.argmax())
    length = int(lengths[end])
    return float(lr[max(0, end - length + length // 3 + length // 6)])


def slide(lr: np.ndarray, losses: np.ndarray, *, width: int = 15, threshold: float = 0.005) -> float:
    """Slide a window of `width` steps down from the largest rate until the loss's slope is even over it.

    The slope is that per step; it is even once it differs by no more than `threshold` between the two
    ends of the window. The rate is that at the left end of the last window where it did.
    """
    width = min(width, len(lr) - 1)
    slope = np.gradient(losses)
    left = np.arange(len(lr) - width)[::-1]  # of every window, from the largest rate down
    even = np.abs(slope[left + width] - slope[left]) <= threshold
    uneven = int(even.argmax()) if even.any() else len(left)
    return float(lr[left[max(uneven - 1, 0)]])


def minimum_tenth(lr: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the rate at which the loss is lowest."""
    return float(lr[losses.argmin()] / 10)


RATE_RULES: dict[str, RateRule] = {
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum/10": minimum_tenth,
}
