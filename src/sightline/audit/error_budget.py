"""Every mistake to one likely cause, so that the causes add up to the mistakes.

>>> correct = [True, False, False, False]
>>> flags = {Cause.LABEL_ISSUE: [True, True, False, False], Cause.AMBIGUOUS: [False, True, True, False]}
>>> primary, budget = assign_causes(correct, flags)
>>> [(one.cause.value, one.count, one.flagged) for one in budget.causes if one.flagged]
[('label issue', 1, 1), ('ambiguous', 1, 2), ('unexplained', 1, 1)]
>>> primary.tolist()
['', 'label issue', 'ambiguous', 'unexplained']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.result import Cause, CauseShare, ErrorBudget
from sightline.errors import InputError
from sightline.stats import wilson_intervals

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def assign_causes(correct: ArrayLike, flags: Mapping[Cause, ArrayLike]) -> tuple[np.ndarray, ErrorBudget]:
    """Assign each mistake to the first cause, in the order of `Cause`, that it has.

    Args:
        correct: (N,) bool.
        flags: Which images have which cause, (N,) bool each; a cause that is not given has none. Images that
            are right may have causes too: only mistakes count. "unexplained" is what is left, and not given.

    Returns:
        The cause of each mistake, (N,) of str, "" for images that are right; and the budget.

    Raises:
        InputError: Shapes differ, or a cause is not one that can be given.
    """
    wrong = ~np.asarray(correct, bool)
    causes = list(Cause)  # "unexplained" is the last
    having = np.zeros((len(causes), int(wrong.sum())), bool)  # (K, mistakes)
    for cause, values in flags.items():
        values = np.asarray(values, bool)
        if cause not in causes[:-1]:
            raise InputError(f"{str(cause)!r} is no cause to be flagged; those are {', '.join(causes[:-1])}")
        if values.shape != wrong.shape:
            raise InputError(f"cause {cause.value!r} is {values.shape}; each image needs one: {wrong.shape}")
        having[causes.index(cause)] = values[wrong]
    having[-1] = ~having[:-1].any(axis=0)
    first = having.argmax(axis=0)
    primary = np.full(len(wrong), "", object)
    primary[wrong] = np.array([cause.value for cause in causes], object)[first]
    return primary, _budget(first, having, causes)


def _budget(first: np.ndarray, having: np.ndarray, causes: list[Cause]) -> ErrorBudget:
    together = having.astype(np.int64) @ having.T  # (K, K)
    mistakes = having.shape[1]
    count = np.bincount(first, minlength=len(causes))
    low, high = wilson_intervals(count, mistakes)
    rows = [
        CauseShare(
            cause=cause,
            count=count[k],
            share=count[k] / max(mistakes, 1),
            interval=(low[k], high[k]),
            flagged=together[k, k],
            overlaps={other: together[k, j] for j, other in enumerate(causes) if j != k and together[k, j]},
        )
        for k, cause in enumerate(causes)
    ]
    return ErrorBudget(mistakes, tuple(rows))
