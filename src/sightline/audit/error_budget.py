"""Every mistake to one likely cause, so that the causes add up to the mistakes.

>>> correct = [True, False, False, False]
>>> causes = {"label suspect": [True, True, False, False], "ambiguous": [False, True, True, False]}
>>> error_budget(correct, causes).table[["cause", "count", "flagged"]].values.tolist()
[['label suspect', 1, 1], ['ambiguous', 1, 2], ['unexplained', 1, 1]]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import SightlineError
from sightline.stats import wilson_intervals

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

UNEXPLAINED = "unexplained"

CAUSES = ("label suspect", "leaked twin", "shortcut", "ambiguous", "confused pair")
"""The order in which a mistake with several causes is assigned: what has to be settled first comes first.

Faults of the data come before faults of the model: if the label is wrong there is no mistake to explain, and
what has a twin in training should not have been counted. Then a narrow cause before a broad one: a shortcut
is confirmed evidence about few images; doubt about the image says more than belonging to a pair of classes
that is often confused, which is true of many images for many reasons.
"""


@dataclass(frozen=True)
class ErrorBudget:
    """The mistakes by cause.

    primary: (N,) the one cause each mistake is assigned to, "" for images that are right. table: a row
    for each cause, "unexplained" last: cause, count (mistakes assigned to it; they add up to `mistakes`),
    share, interval_low, interval_high (of the mistakes; Wilson, 95 %), flagged (mistakes that have the cause
    at all, assigned or not). overlaps: flagged mistakes by pairs of causes; the diagonal is `flagged`.
    """

    mistakes: int
    primary: np.ndarray
    table: pd.DataFrame
    overlaps: pd.DataFrame


def error_budget(correct: ArrayLike, causes: Mapping[str, ArrayLike]) -> ErrorBudget:
    """Assign each mistake to the first of `causes` that it has.

    correct: (N,) bool. causes: name -> (N,) bool, in order of priority; `CAUSES` is the order that we use
    and why. Images that are right may have causes too: only mistakes count. Raises SightlineError where
    shapes differ, or a name is empty or "unexplained".
    """
    import pandas as pd

    wrong = ~np.asarray(correct, bool)
    names = [*causes, UNEXPLAINED]
    if "" in causes or UNEXPLAINED in causes:
        raise SightlineError(f"a cause cannot be named '' or {UNEXPLAINED!r}; the budget uses these itself")
    flags = np.empty((len(names), int(wrong.sum())), bool)  # (K + 1, mistakes)
    for row, (name, having) in enumerate(causes.items()):
        having = np.asarray(having, bool)
        if having.shape != wrong.shape:
            raise SightlineError(f"cause {name!r} is {having.shape}; one value per image is {wrong.shape}")
        flags[row] = having[wrong]
    flags[-1] = ~flags[:-1].any(axis=0)
    overlaps = flags.astype(np.int64) @ flags.T
    first = flags.argmax(axis=0)
    primary = np.full(len(wrong), "", object)
    primary[wrong] = np.array(names, object)[first]
    count, mistakes = np.bincount(first, minlength=len(names)), flags.shape[1]
    low, high = wilson_intervals(count, mistakes)
    table = pd.DataFrame(
        {
            "cause": names,
            "count": count,
            "share": count / max(mistakes, 1),
            "interval_low": low,
            "interval_high": high,
            "flagged": overlaps.diagonal(),
        }
    )
    return ErrorBudget(mistakes, primary, table, pd.DataFrame(overlaps, index=names, columns=names))
