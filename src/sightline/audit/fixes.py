"""What to do first: an action with its evidence and what it may gain, and the order of actions.

A gain is in points (hundredths) of a stated unit and never more than what the action touches can give. Where
only a new training run can tell, there is none, and `how` says how to find out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# What was measured wrongly comes first, because every other number rests on it; then what teaches the model;
# then what only changes how its answers are used.
TIERS = {"relabel": 0, "drop": 0, "collect": 1, "temperature": 2, "threshold": 2}


@dataclass(frozen=True)
class Gain:
    """An expected gain and its range, in points (hundredths) of `unit`; negative where a number falls."""

    value: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Fix:
    """One action: what to do, why, what it may gain, on which images (of `split`), and how to do it here.

    kind: a key of `TIERS`. gain: None where it is not known without training again.
    """

    kind: str
    title: str
    why: str
    gain: Gain | None
    images: tuple[int, ...]
    split: str
    how: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {**asdict(self), "images": list(self.images)}


def rank_fixes(fixes: Sequence[Fix | None], sizes: Mapping[str, int]) -> list[Fix]:
    """Return the fixes in the order to do them, None left out.

    First by `TIERS`: what is wrong with the data, then what teaches the model, then what changes how its
    answers are used. Within a tier by the size of the expected change in points; where it is not known, by
    the share of the split that it touches, which bounds it. sizes: {"train": N, "test": N}.
    """

    def key(fix: Fix) -> tuple[int, float]:
        points = abs(fix.gain.value) if fix.gain else 100 * len(fix.images) / sizes[fix.split]
        return TIERS[fix.kind], -points

    return sorted((fix for fix in fixes if fix is not None), key=key)
