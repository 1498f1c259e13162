"""A slice of images, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.audit.conditions import EVIDENCE, Condition
from sightline.predictions.intervals import wilson_interval

CLASSES = ("label", "predicted")  # alone they are a row or column of the confusion matrix, together a cell


@dataclass(frozen=True, eq=False)
class Slice:
    """A kind of images that is wrong more often than the rest.

    name: in words. rows: (M,) its images in both halves, ascending. conditions: what they all meet.
    error: share of mistakes in the held-out half, with its 95 % Wilson interval. rest: the same for those
    there that it is compared with: the others of its class, or all others. p: corrected for all slices
    tested. evidence: a sentence. place: where on the image most of its mistakes have their evidence, if a
    condition about evidence does not say so already; told, and not tested.
    """

    name: str
    rows: np.ndarray
    conditions: tuple[Condition, ...]
    error: float
    interval: tuple[float, float]
    rest: float
    p: float
    evidence: str
    place: Condition | None = None

    @property
    def lift(self) -> float:
        """How many times as often its images are wrong as the rest; infinite if the rest never is."""
        return self.error / self.rest if self.rest else float("inf")

    @property
    def shortcut(self) -> bool:
        """Whether a predicted class goes with evidence where no object has to be: look for a shortcut."""
        called = any(condition.kind == "predicted" for condition in self.conditions)
        told = [*self.conditions, *([self.place] if self.place else [])]
        return called and any(condition.aside for condition in told)


def described(
    conditions: Sequence[Condition],
    pair: list[int],
    wrong: np.ndarray,
    inside: np.ndarray,
    others: np.ndarray,
    compared: str,
    half: np.ndarray,
    p: float,
) -> Slice:
    """Return the slice of the images `inside` that meet the conditions of `pair`.

    Its numbers are those of `half`, beside `others`, which are called `compared`.
    """
    # "called ..." stands first: it has no "whose" or "that".
    own = sorted((conditions[c] for c in pair), key=lambda condition: condition.kind not in CLASSES)
    held_out = half & inside
    error, rest = float(wrong[held_out].mean()), float(wrong[others].mean())
    low, high = interval = wilson_interval(int(wrong[held_out].sum()), int(held_out.sum()))
    size = f"the {int(held_out.sum())} of {int(inside.sum())} images kept for the test"
    evidence = (
        f"{100 * error:.0f} % wrong ({100 * low:.0f} to {100 * high:.0f}) against {100 * rest:.1f} % "
        f"{compared}, among {size} (p = {p:.1g})"
    )
    mistakes = inside & wrong
    place = _common_place(conditions, own, mistakes)
    if place is not None:
        number = (place.members & mistakes).sum()
        evidence += f"; {number} of its {mistakes.sum()} mistakes are ones {place.words}"
    return Slice(
        name="images " + _joined([condition.words for condition in own]),
        rows=np.flatnonzero(inside),
        conditions=tuple(own),
        error=error,
        interval=interval,
        rest=rest,
        p=p,
        evidence=evidence + _common_class(conditions, own, mistakes),
        place=place,
    )


def _joined(words: Sequence[str]) -> str:
    clauses = all(each.startswith(("that ", "whose ")) for each in words)
    return (" and " if clauses else " ").join(words)


def _common_place(
    conditions: Sequence[Condition], own: Sequence[Condition], mistakes: np.ndarray
) -> Condition | None:
    """The cell of two thirds of the mistakes, if `own` tells of their evidence and not of its cell."""
    kinds = {one.kind for one in own}
    cells = [one for one in conditions if one.kind == "cell"]
    if not cells or "cell" in kinds or kinds.isdisjoint(EVIDENCE):
        return None
    place = max(cells, key=lambda one: (one.members & mistakes).sum())
    return place if 3 * (place.members & mistakes).sum() >= 2 * mistakes.sum() else None


def _common_class(conditions: Sequence[Condition], own: Sequence[Condition], mistakes: np.ndarray) -> str:
    """The class, not in the name already, that more than half of the mistakes have in common."""
    classes = [one for one in conditions if one.kind in CLASSES and one not in own]
    shares = [(one.members & mistakes).sum() for one in classes]
    if not shares or 2 * max(shares) <= mistakes.sum():
        return ""
    words = classes[int(np.argmax(shares))].words
    return f"; {max(shares)} of its {int(mistakes.sum())} mistakes are {words}"
