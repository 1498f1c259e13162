"""Slices: kinds of images that are wrong more often than others, found on one half, confirmed on the other.

    conditions = class_conditions(labels, predicted, names) + attribute_conditions(attributes)
    for found in find_slices(predicted != labels, conditions):
        print(found.name, found.evidence)

The images are split at random. On the first half, all conditions and all pairs of conditions of two kinds are
scored by how much more often their images are wrong than all others (a z-score of two shares). A pair also
has to stand out from the other images that meet its one condition, and from those that meet its other:
it is not found because one of the two alone is. The best go on, each only if at least half of its
mistakes are not in a better one: what explains the same mistakes is not found twice. Conditions that can
be said in words come first; groups of images that look alike to the model follow with what is left over.

The second half has had no say in this. There, each of the slices is tested once by Fisher's exact test
(one-sided) against all other images; one within a class, against the others of that class. The p-values
are corrected by Holm's method (Holm 1979, "A simple sequentially rejective multiple test procedure"), so
that the chance that any slice is reported where errors fall at random is at most `level`. No slice is
an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.audit.conditions import EVIDENCE, GROUP, Condition
from sightline.audit.naming import CLASSES, Slice, described
from sightline.errors import SightlineError

_GAIN = {"cell": 1.2, "predicted": 1.05}  # of words for about the same images, those that tell more
_NAMED, _GROUPS = 8, 4  # slices in words, and with groups of alike images, that go on to the second half
_SCORE, _BESIDE = 3.0, 2.0  # standard errors that a candidate is apart from all others; a pair from either
_FEWEST = 5  # images in either half, and in the group that a pair is compared with


def find_slices(
    wrong: np.ndarray,
    conditions: Sequence[Condition],
    *,
    level: float = 0.05,
    min_size: int = 10,
    min_lift: float = 1.5,
    seed: int = 0,
) -> list[Slice]:
    """Return the confirmed slices, in the order of their corrected p-values; often there is none.

    wrong: (N,) bool. conditions: what images can be described by; none may be made from `wrong`. level: the
    chance of reporting anything where errors are random. min_size: images of a slice, in both halves
    together. min_lift: on the first half, how many times as often wrong as all others. seed: of the split.

    Raises SightlineError if a condition is not (N,).
    """
    wrong = np.asarray(wrong, bool)
    for condition in conditions:
        if condition.members.shape != wrong.shape:
            raise SightlineError(
                f"the condition {condition.words!r} has {condition.members.shape} members and there are "
                f"{len(wrong)} images; slices need one value per image"
            )
    if not conditions or not wrong.any():
        return []
    first = np.zeros(len(wrong), bool)
    first[np.random.default_rng(seed).permutation(len(wrong))[: len(wrong) // 2]] = True
    members = np.stack([condition.members for condition in conditions], axis=1)  # (N, C)
    found = _candidates(members[first], wrong[first], conditions, max(_FEWEST, min_size // 2), min_lift)
    tested = [_against(conditions, pair, np.all(members[:, pair], axis=1), ~first) for pair in found]
    corrected = holm(np.array([_p_value(wrong, inside & ~first, others) for inside, others, _ in tested]))
    slices = [
        described(conditions, pair, wrong, *against, ~first, float(p))
        for pair, against, p in zip(found, tested, corrected, strict=True)
        if p <= level
    ]
    return sorted(slices, key=lambda one: one.p)


def _against(
    conditions: Sequence[Condition], pair: list[int], inside: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """All members of a slice; those of the held-out half that it is compared with; what they are called.

    Within a class those are the others of the class, lest the class alone makes any part of it a slice.
    """
    for number in pair:
        others = half & conditions[number].members & ~inside
        if conditions[number].kind in CLASSES and others.sum() >= _FEWEST:
            return inside, others, f"of the others {conditions[number].words}"
    return inside, half & ~inside, "of the rest"


def _candidates(
    members: np.ndarray, wrong: np.ndarray, conditions: Sequence[Condition], smallest: int, min_lift: float
) -> list[list[int]]:
    """The conditions and pairs of conditions that stand out, each with mistakes of its own."""
    score, named = _scores(members, wrong, conditions, smallest, min_lift)
    gain = np.array([_GAIN.get(condition.kind, 1.0) for condition in conditions])
    rank = score * gain[:, None] * np.where(np.eye(len(gain), dtype=bool), 1.0, gain)
    found: list[list[int]] = []
    explained = np.zeros(len(wrong), bool)
    for eligible, most in ((named, _NAMED), (~named, _GROUPS)):
        cells = np.flatnonzero(np.triu(eligible & (score >= _SCORE)))
        taken = 0
        for cell in cells[np.argsort(-rank.flat[cells], kind="stable")]:
            pair = sorted({int(cell) // len(score), int(cell) % len(score)})
            mistakes = wrong & members[:, pair].all(axis=1)
            if taken < most and (mistakes & explained).sum() * 2 < mistakes.sum():
                found.append(pair)
                explained |= mistakes
                taken += 1
    return found


def _scores(
    members: np.ndarray, wrong: np.ndarray, conditions: Sequence[Condition], smallest: int, min_lift: float
) -> tuple[np.ndarray, np.ndarray]:
    """The score of each pair of conditions, of each alone on the diagonal, and which can be said in words.

    Both are (C, C). The score is minus infinity for what is no slice.
    """
    inside = members.astype(np.float32)  # (n, C)
    count = inside.T @ inside  # (C, C): images that meet both; on the diagonal, the one
    errors = (inside * wrong[:, None]).T @ inside
    total, mistakes = len(wrong), wrong.sum()
    alone_count, alone_errors = count.diagonal()[:, None], errors.diagonal()[:, None]
    beside = _z(errors, count, alone_errors - errors, alone_count - count)  # row: the wider condition
    pair = ~np.eye(len(count), dtype=bool)
    kinds = np.array([condition.kind for condition in conditions])
    is_class = np.isin(kinds, CLASSES)
    # A group of features is much like a class: cats among the dogs are a cell of the confusion matrix.
    families = np.where(np.isin(kinds, EVIDENCE), "map", kinds)
    families = np.where(is_class | (kinds == GROUP), "class", families)
    allowed = families[:, None] != families[None]
    np.fill_diagonal(allowed, ~is_class)
    left = np.where(pair, alone_count - count, total - count)  # row: of the wider condition, without the pair
    apart = (left >= _FEWEST) & (~pair | (beside >= _BESIDE))
    # Hardly any are left: a class is still worth telling, as it says what the others are taken for.
    apart |= pair & (left < _FEWEST) & is_class[None]
    rate, rest = errors / np.maximum(count, 1), (mistakes - errors) / np.maximum(total - count, 1)
    allowed &= apart & apart.T & (count >= smallest) & (rate >= min_lift * rest)
    score = np.where(allowed, _z(errors, count, mistakes - errors, total - count), -np.inf)
    return score, (kinds[:, None] != GROUP) & (kinds[None] != GROUP)


def _z(
    errors: np.ndarray, count: np.ndarray, other_errors: np.ndarray, other_count: np.ndarray
) -> np.ndarray:
    """The difference of two shares in standard errors, the variance pooled; 0 where a group is empty."""
    both = np.maximum(count, 1), np.maximum(other_count, 1)
    pooled = (errors + other_errors) / np.maximum(count + other_count, 1)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / both[0] + 1 / both[1]))
    z = (errors / both[0] - other_errors / both[1]) / spread
    return np.where((count > 0) & (other_count > 0), z, 0.0)


def _p_value(wrong: np.ndarray, inside: np.ndarray, others: np.ndarray) -> float:
    """One-sided p of Fisher's exact test: are those inside wrong more often than the others?"""
    from scipy.stats import hypergeom

    both = inside | others
    return float(hypergeom.sf((wrong & inside).sum() - 1, both.sum(), (wrong & both).sum(), inside.sum()))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return the p-values corrected for their number by Holm's step-down method, in their order.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(stepped, 1)
    return corrected
