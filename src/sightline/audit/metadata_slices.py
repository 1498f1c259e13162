"""Slices by what is declared of the images: the columns of their metadata, each value tested on all images.

    found = find_declared(predicted != labels, metadata_conditions(data.test.metadata))

A declared column is named before anything is measured, so nothing has to be held out: each value is tested
once on all images, by Fisher's exact test (one-sided, mid-p: Lancaster 1961) against all others, and the
p-values are corrected by Holm's method for the number of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.slices import Condition, FoundSlice, expected_share, p_value, p_words
from sightline.stats import holm, wilson_interval

if TYPE_CHECKING:
    import pandas as pd

METADATA = "metadata"  # the beginning of the kind of such a condition; the column's name follows
_NOT_DECLARED = {"path", "hash", "given_hash", "split", "group", "index", "label", "row"}
_VALUES = 20  # of a column of words, or 12 numbers: more are no kinds of images
_NUMBERS = 12
_FEWEST = 5  # images that are left to compare with


def metadata_conditions(table: pd.DataFrame, *, share: float = 0.2, min_size: int = 10) -> list[Condition]:
    """Return a condition for each value of each column, of a column of many numbers for its ends.

    Args:
        table: N rows, as `Split.metadata` has them.
        share: Of the images that a low and a high end have.
        min_size: Images of a condition.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"camera": ["phone"] * 5 + ["slr"] * 6})
    >>> [one.words for one in metadata_conditions(table, min_size=2)]
    ['with camera = phone', 'with camera = slr']
    """
    found = []
    for name in map(str, table.columns):
        if name in _NOT_DECLARED:
            continue
        column = table[name]
        known = column.notna().to_numpy()
        values = set(column.to_numpy()[known].tolist())
        if column.dtype.kind in "iuf" and len(values) > _NUMBERS:
            numbers = column.to_numpy(float)
            low, high = np.quantile(numbers[known], [share, 1 - share])
            ends = ((f"of low {name}", numbers <= low), (f"of high {name}", numbers >= high))
            found += [Condition(f"{METADATA} {name}", *end) for end in ends]
        elif len(values) <= _VALUES:
            found += [
                Condition(f"{METADATA} {name}", f"with {name} = {value}", (column == value).to_numpy(bool))
                for value in sorted(values, key=str)
            ]
    return [one for one in found if one.members.sum() >= min_size and (~one.members).sum() >= _FEWEST]


def find_declared(
    wrong: np.ndarray,
    conditions: Sequence[Condition],
    *,
    expected: np.ndarray | None = None,
    level: float = 0.05,
) -> list[FoundSlice]:
    """Return the conditions whose images are wrong more often than all others, the surest first.

    Args:
        wrong: (N,) bool.
        conditions: Of `metadata_conditions`.
        expected: (N,) probability of a mistake by the model's own confidence, which is told beside.
        level: The chance of reporting anything where errors are random.
    """
    wrong = np.asarray(wrong, bool)
    if not conditions or not wrong.any():
        return []
    corrected = holm([p_value(wrong, one.members, ~one.members, mid=True) for one in conditions])
    found = [
        _described(one, wrong, float(p), expected)
        for one, p in zip(conditions, corrected, strict=True)
        if p <= level
    ]
    return sorted(found, key=lambda one: one.p)


def _described(condition: Condition, wrong: np.ndarray, p: float, expected: np.ndarray | None) -> FoundSlice:
    inside = condition.members
    error, rest = float(wrong[inside].mean()), float(wrong[~inside].mean())
    low, high = interval = wilson_interval(int(wrong[inside].sum()), int(inside.sum()))
    evidence = (
        f"{100 * error:.0f} % wrong ({100 * low:.0f} to {100 * high:.0f}) against {100 * rest:.1f} % of the "
        f"rest, among all its {int(inside.sum())} images ({p_words(p)})"
    )
    if expected is not None:
        evidence += (
            f"; by the model's confidence it would be {100 * expected_share(wrong, expected, inside):.0f} %"
        )
    return FoundSlice(
        name=f"images {condition.words}",
        rows=np.flatnonzero(inside),
        conditions=(condition,),
        error=error,
        interval=interval,
        rest=rest,
        p=p,
        evidence=evidence,
    )
