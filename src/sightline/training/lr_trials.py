"""Short trainings along the schedule itself, to choose a learning rate by what it is for.

A range test raises the rate without ever lowering it, and what it shows of a network that warms up, decays
and regularises is its edge rather than its best. A trial squeezes the whole schedule into some tens of
steps; the loss at its end, over several rates, has one lowest point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

_LONGER = 2.0  # a training of full length does best at about half of the best rate of a short one


def climb(loss_at: Callable[[float], float], start: float, *, most: int = 10) -> dict[float, float]:
    """Return rate -> loss, from `start` on by factors of two until the lowest has a higher one on each side.

    `loss_at` returns infinity where training runs away. At most `most` rates are tried.

    >>> import math
    >>> climb(lambda lr: abs(math.log2(lr)), 0.25)
    {0.125: 3.0, 0.25: 2.0, 0.5: 1.0, 1.0: 0.0, 2.0: 1.0}
    """
    tried = {0: loss_at(start)}
    while len(tried) < most:
        best = min(tried, key=lambda k: (tried[k], k))
        ahead = [k for k in (best - 1, best + 1) if k not in tried]
        if not ahead:
            break
        tried[ahead[0]] = loss_at(start * 2.0 ** ahead[0])
    return {start * 2.0**k: tried[k] for k in sorted(tried)}


def best_of_trials(trials: Mapping[float, float]) -> float:
    """Half of the rate at the vertex of the parabola through the lowest loss and its two neighbours.

    The parabola is one of log(rate); without two finite neighbours the vertex is the lowest itself.

    >>> best_of_trials({1.0: 3.0, 2.0: 1.0, 4.0: 3.0})
    1.0
    """
    rates, losses = np.array(list(trials)), np.array(list(trials.values()))
    k = int(losses.argmin())
    shift = 0.0
    if 0 < k < len(losses) - 1 and np.isfinite(losses[k - 1 : k + 2]).all():
        left, middle, right = losses[k - 1 : k + 2]
        bend = left - 2 * middle + right
        shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(rates[k] * 2.0**shift / _LONGER)
