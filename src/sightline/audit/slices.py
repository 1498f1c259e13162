"""Slices: kinds of images that are wrong more often than others, found on one half, confirmed on the other.

    conditions = class_conditions(labels, predicted, names) + attribute_conditions(attributes)
    for found in find_slices(predicted != labels, conditions):
        print(found.name, found.evidence)

The images are split at random. On the first half, all conditions and all pairs of conditions of two kinds are
scored by how much more often their images are wrong than all others (a z-score of two shares). A pair also
has to stand out from the other images that meet its one condition, and from those that meet its other:
it is not found because one of the two alone is. The best go on, each only if at least half of its
mistakes are not in a better one: what explains the same mistakes is not found twice. Conditions that can
be put into words come first; groups of images that look alike to the model follow with what is left over.

The held-out half has had no say in this. There, each of the slices is tested once by Fisher's exact test
(one-sided) against all other images; one within a class, against the others of that class. The p-values
are corrected by Holm's method (Holm 1979, "A simple sequentially rejective multiple test procedure"), so
that the chance that any slice is reported where errors fall at random is at most `level`. A slice also has
to be wrong more often than the model's own confidence there predicts: that a hard kind of images is answered
with little confidence is known without it. No slice is an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.attributes import CELLS
from sightline.audit.neighbors import unit_rows
from sightline.audit.result import Slice
from sightline.errors import InputError, InputTypeError
from sightline.stats import holm, wilson_interval

if TYPE_CHECKING:
    import pandas as pd

WORDS = {
    "brightness": ("that are dark", "that are bright"),
    "contrast": ("of low contrast", "of high contrast"),
    "saturation": ("of pale colours", "of strong colours"),
    "colourfulness": ("of few colours", "of many colours"),
    "warmth": ("of cold colours", "of warm colours"),
    "sharpness": ("that are smooth", "that are full of fine detail"),
    "entropy": ("that are plain", "of many shades"),
    "area": ("whose evidence is a small spot", "whose evidence is spread widely"),
    "offset": ("whose evidence lies near the middle", "whose evidence lies off the middle"),
    "border": ("whose evidence lies away from the border", "whose evidence lies at the border"),
    "cell_mass": ("whose evidence lies in no one place", "whose evidence lies in one place"),
    "background": ("whose evidence lies on the object", "whose evidence lies on the background"),
}
"""What images with a low and with a high value of an attribute are called."""

EVIDENCE = ("area", "offset", "border", "cell", "cell_mass", "background")
"""Kinds that speak of the heat map: they say nearly the same, so no two of them are combined."""

_ASIDE = ("border", "background")  # attributes of which a high value lies where no object has to be
GROUP = "group"  # the kind of conditions that are clusters of features
_SIDES = {"top": "at", "bottom": "at", "left": "on", "right": "on"}
_CELLS_WORDS = [f"whose evidence lies {_SIDES.get(name, 'in')} the {name}" for name in CELLS]
_DIMENSIONS = 32  # of features that clusters are made in
_PER_CLUSTER = 40  # images, on average
_CLUSTERS = 40  # at most
_LISTED = 200  # images of a slice


@dataclass(frozen=True, eq=False)
class Condition:
    """What an image can be described by.

    Attributes:
        kind: Conditions of one kind are never combined.
        words: They end a sentence that begins with "images".
        members: (N,) bool, the images that meet it.
        aside: Whether its evidence lies where no object has to be: at the border, in a corner, on the
            background.
    """

    kind: str
    words: str
    members: np.ndarray
    aside: bool = False


def class_conditions(
    labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]
) -> list[Condition]:
    """Return a condition for each label and for each predicted class that occurs."""
    kinds = (("label", "labelled", labels), ("predicted", "called", predicted))
    return [
        Condition(kind, f"{verb} “{class_names[value]}”", classes == value)
        for kind, verb, classes in kinds
        for value in np.unique(classes)
    ]


def attribute_conditions(attributes: pd.DataFrame, *, share: float = 0.2) -> list[Condition]:
    """Return, for each column of numbers, the images in its lowest and in its highest `share`.

    A column `cell` of `evidence_attributes` gives a condition for each cell. A name that is not in `WORDS`
    makes "of low NAME" and "of high NAME". A value that is NaN is in neither; bounds are included, so that
    many equal values at a bound make a larger group, and a column of equal values makes none.

    Raises:
        InputTypeError: A column is not of numbers.
    """
    found = []
    for name in map(str, attributes.columns):
        values = attributes[name].to_numpy()
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
            raise InputTypeError(
                f"attribute {name!r} is {values.dtype}; slices need numbers: one column of 0 and 1 per value"
            )
        if name == "cell":
            found += [
                Condition("cell", words, values == cell, aside=CELLS[cell] != "centre")
                for cell, words in enumerate(_CELLS_WORDS)
                if (values == cell).any()
            ]
            continue
        known = values[~np.isnan(values.astype(float))]
        if not len(known) or known.min() == known.max():
            continue
        low, high = WORDS.get(name, (f"of low {name}", f"of high {name}"))
        bounds = np.quantile(known, [share, 1 - share])
        ends = ((low, values <= bounds[0], False), (high, values >= bounds[1], name in _ASIDE))
        found += [Condition(name, *end) for end in ends if end[1].sum() < len(known)]
    return found


def cluster_conditions(
    features: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, seed: int = 0
) -> list[Condition]:
    """Return groups of images that are alike in their features, (N, D), named by their commonest label.

    K-means on the leading principal components of the features' directions, right and wrong images
    together: whether an image was right is not looked at. About 40 images to a group, 40 groups at most.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    count = min(_CLUSTERS, len(features) // _PER_CLUSTER)
    rows = unit_rows(features)
    count = min(count, len(np.unique(rows, axis=0)))
    if count < 2:
        return []
    dimensions = min(_DIMENSIONS, rows.shape[1], len(rows) - 1)
    projected = PCA(dimensions, svd_solver="full", random_state=seed).fit_transform(rows)
    clusters = KMeans(count, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    group = clusters.fit_predict(projected)
    found = []
    for number in range(count):
        members = group == number
        if members.any():
            common = class_names[int(np.bincount(labels[members]).argmax())]
            words = f"that look alike to the model (group {number + 1}, mostly “{common}”)"
            found.append(Condition(GROUP, words, members))
    return found


CLASSES = ("label", "predicted")  # alone they are a row or column of the confusion matrix, together a cell


@dataclass(frozen=True, eq=False)
class FoundSlice:
    """A kind of images that is wrong more often than the rest.

    Attributes:
        name: In words.
        rows: (M,) its images in both halves, ascending.
        conditions: What they all meet.
        error: Share of mistakes in the held-out half.
        interval: Of `error` (Wilson).
        rest: The same for those there that it is compared with: the others of its class, or all others.
        p: Corrected for all slices tested.
        evidence: A sentence.
        place: Where on the image most of its mistakes have their evidence, if a condition about evidence does
            not say so already; reported, and not tested.
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
        where = [*self.conditions, *([self.place] if self.place else [])]
        return called and any(condition.aside for condition in where)

    def describe(self) -> Slice:
        """Return the part of the audit's result."""
        return Slice(
            name=self.name,
            size=len(self.rows),
            error=self.error,
            interval=self.interval,
            rest=self.rest,
            p=self.p,
            evidence=self.evidence,
            rows=tuple(self.rows[:_LISTED].tolist()),
            shortcut=self.shortcut,
        )


def _described(
    conditions: Sequence[Condition],
    pair: list[int],
    wrong: np.ndarray,
    inside: np.ndarray,
    others: np.ndarray,
    compared: str,
    half: np.ndarray,
    p: float,
) -> FoundSlice:
    """Return the slice of the images `inside` that meet the conditions of `pair`.

    Its numbers are those of `half`, next to those of `others`, which are called `compared`.
    """
    # "called ..." stands first: it has no "whose" or "that".
    own = sorted((conditions[c] for c in pair), key=lambda condition: condition.kind not in CLASSES)
    held_out = half & inside
    error, rest = float(wrong[held_out].mean()), float(wrong[others].mean())
    low, high = interval = wilson_interval(int(wrong[held_out].sum()), int(held_out.sum()))
    size = f"its {int(held_out.sum())} of {int(inside.sum())} images in the held-out half"
    evidence = (
        f"{100 * error:.0f} % wrong ({100 * low:.0f} to {100 * high:.0f}) against {100 * rest:.1f} % "
        f"{compared}, among {size} ({p_words(p)})"
    )
    mistakes = held_out & wrong
    place = _common_place(conditions, own, mistakes)
    if place is not None:
        number = (place.members & mistakes).sum()
        evidence += f"; {number} of its {mistakes.sum()} mistakes are ones {place.words}"
    return FoundSlice(
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


def p_words(p: float) -> str:
    """
    >>> p_words(3e-7), p_words(0.0123), p_words(0.004)
    ('p < 0.001', 'p = 0.01', 'p = 0.004')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.1g}"


def _joined(words: Sequence[str]) -> str:
    clauses = all(each.startswith(("that ", "whose ")) for each in words)
    return (" and " if clauses else " ").join(words)


def _common_place(
    conditions: Sequence[Condition], own: Sequence[Condition], mistakes: np.ndarray
) -> Condition | None:
    """The cell of two thirds of the mistakes, if `own` is about their evidence and not about its cell."""
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


_GAIN = {"cell": 1.2, "predicted": 1.05}  # of words for about the same images, those that mean more
_NAMED, _GROUPS = 8, 4  # slices in words, and with groups of alike images, that go on to the held-out half
_SCORE, _APART = 3.0, 2.0  # standard errors that a candidate is apart from all others; a pair from either
_ONE_SIDED = 1.645  # standard errors that 5 % of a normal lie above
_FEWEST = 5  # images in either half, and in the group that a pair is compared with


def find_slices(
    wrong: np.ndarray,
    conditions: Sequence[Condition],
    *,
    level: float = 0.05,
    min_size: int = 10,
    min_lift: float = 1.5,
    expected: np.ndarray | None = None,
    seed: int = 0,
) -> list[FoundSlice]:
    """Return the confirmed slices, those by the heat map last, else the surest first; often there is none.

    Args:
        wrong: (N,) bool.
        conditions: What images can be described by; none may be made from `wrong`.
        level: The chance of reporting anything where errors are random.
        min_size: Images of a slice, in both halves together.
        min_lift: On the first half, how many times as often wrong as all others.
        expected: (N,) probability of a mistake by the model's own confidence; None to ask for no more.
        seed: Of the halves.

    Raises:
        InputError: A condition is not (N,).
    """
    wrong = np.asarray(wrong, bool)
    for condition in conditions:
        if condition.members.shape != wrong.shape:
            raise InputError(
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
    corrected = holm(np.array([p_value(wrong, inside & ~first, others) for inside, others, _ in tested]))
    slices = [
        _described(conditions, pair, wrong, *against, ~first, float(p))
        for pair, against, p in zip(found, tested, corrected, strict=True)
        if p <= level and _is_news(wrong, expected, against[0] & ~first)
    ]
    by_map = [any(each.kind in EVIDENCE for each in one.conditions) for one in slices]
    order = sorted(range(len(slices)), key=lambda number: (by_map[number], slices[number].p))
    return [slices[number] for number in order]


def expected_share(wrong: np.ndarray, expected: np.ndarray, inside: np.ndarray) -> float:
    """Return the share of mistakes `inside` by the confidence there, scaled to the mistakes of all images."""
    return float(min(1.0, expected[inside].mean() * wrong.mean() / max(float(expected.mean()), 1e-12)))


def _is_news(wrong: np.ndarray, expected: np.ndarray | None, inside: np.ndarray) -> bool:
    """Whether the images `inside` are wrong more often than their confidence predicts, at 5 %, one-sided."""
    if expected is None:
        return True
    predicted = np.minimum(1.0, expected[inside] * wrong.mean() / max(float(expected.mean()), 1e-12))
    spread = max(float((predicted * (1 - predicted)).sum()) ** 0.5, 1e-9)
    return float(wrong[inside].sum() - predicted.sum()) / spread >= _ONE_SIDED


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
    for eligible, limit in ((named, _NAMED), (~named, _GROUPS)):
        cells = np.flatnonzero(np.triu(eligible & (score >= _SCORE)))
        taken = 0
        for cell in cells[np.argsort(-rank.flat[cells], kind="stable")]:
            pair = sorted({int(cell) // len(score), int(cell) % len(score)})
            mistakes = wrong & members[:, pair].all(axis=1)
            if taken < limit and (mistakes & explained).sum() * 2 < mistakes.sum():
                found.append(pair)
                explained |= mistakes
                taken += 1
    return found


def _scores(
    members: np.ndarray, wrong: np.ndarray, conditions: Sequence[Condition], smallest: int, min_lift: float
) -> tuple[np.ndarray, np.ndarray]:
    """The score of each pair of conditions, of each alone on the diagonal, and which can be put into words.

    Both are (C, C). The score is minus infinity for what is no slice.
    """
    inside = members.astype(np.float32)  # (n, C)
    count = inside.T @ inside  # (C, C): images that meet both; on the diagonal, the one
    errors = (inside * wrong[:, None]).T @ inside
    total, mistakes = len(wrong), wrong.sum()
    alone_count, alone_errors = count.diagonal()[:, None], errors.diagonal()[:, None]
    apart_from_one = _z(errors, count, alone_errors - errors, alone_count - count)  # row: the wider condition
    pair = ~np.eye(len(count), dtype=bool)
    kinds = np.array([condition.kind for condition in conditions])
    is_class = np.isin(kinds, CLASSES)
    # A group of features is much like a class: cats among the dogs are a cell of the confusion matrix.
    families = np.where(np.isin(kinds, EVIDENCE), "map", kinds)
    families = np.where(is_class | (kinds == GROUP), "class", families)
    allowed = families[:, None] != families[None]
    np.fill_diagonal(allowed, ~is_class)
    left = np.where(pair, alone_count - count, total - count)  # row: of the wider condition, without the pair
    apart = (left >= _FEWEST) & (~pair | (apart_from_one >= _APART))
    # Hardly any are left: a class is still worth a word: it is what the others are taken for.
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


def p_value(wrong: np.ndarray, inside: np.ndarray, others: np.ndarray, *, mid: bool = False) -> float:
    """One-sided p of Fisher's exact test: are those inside wrong more often than the others?

    mid: count what came only half, for a test that is as strict as it says and no stricter (mid-p).
    """
    from scipy.stats import hypergeom

    both = inside | others
    drawn = both.sum(), (wrong & both).sum(), inside.sum()
    came = (wrong & inside).sum()
    return float(hypergeom.sf(came - 1, *drawn) - (0.5 * hypergeom.pmf(came, *drawn) if mid else 0))
