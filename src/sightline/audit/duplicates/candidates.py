"""The search behind `find_near_duplicates`: pairs of pictures that are more alike than chance makes them.

Two searches, each with decoys of its own, which show how alike two pictures come to be by chance and from
where on likeness is no accident (`chance_threshold`):

`alike_pairs` compares all fingerprints, as they are and mirrored; its decoys are upside down.

`shifted_pairs` finds copies that were moved, cropped, enlarged a little or framed. No fingerprint of a whole
picture outlasts a shift, but features of a trained model do. So each picture's nearest neighbours in features
are the candidates, and nothing more: pictures of one class are all near each other there. What decides is
whether the edges agree. Both pictures are averaged over 16x16 cells; the differences between neighbouring
cells of the middle of the one are compared with the other at every shift of up to an eighth of the size, and
the best correlation counts, times the cosine of the features. The same candidates with one of the two
upside down are the decoys, with the same cosine. Where objects of one kind stand upright, outlines agree
more often than decoys show, so a pair has to stand out from the other candidates, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.audit.duplicates.fingerprints import (
    CHUNK,
    GRID,
    blocks_of,
    correlation,
    fingerprints,
    in_chunks,
    pool,
)
from sightline.audit.neighbors import nearest_rows, pairs_above, similarity_of, unit_rows

if TYPE_CHECKING:
    from sightline.data import ImageFiles

SHARE = 0.002  # of what is found may be there by chance
_TAIL = 200  # decoys from which the tail is extrapolated
_FEWEST = 20  # decoys that say anything
_BODY = 0.1, 0.3  # upper shares of the candidates between which their own fall-off is measured


def chance_threshold(
    found: np.ndarray, decoys: np.ndarray, *, share: float = SHARE, own_share: float | None = None
) -> tuple[float, float]:
    """Return the similarity from which pairs are accepted, and how many of those are expected by chance.

    found: similarities of the candidate pairs. decoys: those of pairs that cannot be copies but were
    searched for in the same way. Both in [-1, 1]. The tail of the decoys falls off exponentially in
    artanh(similarity), Fisher's scale, and is extrapolated from their m largest ones:

        E(t) = m exp(-(artanh t - artanh d_m) / mean excess over d_m)

    The threshold is the lowest similarity s_k in `found` with E(s_k) <= share * k, where k pairs are at
    least as alike; infinite if there is none. With nothing to find, something is found in about one
    data set of 1 / share. With under 20 decoys only similarities of 0.999 are accepted.

    own_share: accept in addition only what stands out from the candidates themselves, by the same rule with
    this share and the fall-off between their upper 30 and 10 %. Copies among these make it fall off
    more slowly, so it errs towards finding less, and may be larger than `share`.

    Source: the decoys of Elias & Gygi (2007), "Target-decoy search strategy".
    """
    order = np.sort(found)[::-1]
    count = np.arange(1, len(order) + 1)
    if len(decoys) < _FEWEST:
        return (0.999, 0.0) if len(order) and order[0] >= 0.999 else (np.inf, 0.0)
    expected = _expected_by_decoys(order, decoys)
    accepted = (order > 0) & (expected <= share * count)
    if own_share is not None:
        accepted &= _expected_by_body(order) <= own_share * count
    last = np.flatnonzero(accepted)[-1:]
    return (float(order[last[0]]), float(expected[last[0]])) if len(last) else (np.inf, 0.0)


def _expected_by_decoys(similarities: np.ndarray, decoys: np.ndarray) -> np.ndarray:
    heights = np.sort(_artanh(decoys))[::-1]
    tail = min(_TAIL, len(heights) - 1, max(_FEWEST, len(heights) // 10))
    excess = max(float((heights[:tail] - heights[tail]).mean()), 1e-3)
    return tail * np.exp(-(_artanh(similarities) - heights[tail]) / excess)


def _expected_by_body(similarities: np.ndarray) -> np.ndarray:
    heights = _artanh(similarities)  # descending
    upper, lower = (heights[int(share * len(heights))] for share in _BODY)
    excess = max(float(upper - lower) / np.log(_BODY[1] / _BODY[0]), 1e-3)
    return _BODY[0] * len(heights) * np.exp(-(heights - upper) / excess)


def _artanh(similarities: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(similarities, -1 + 1e-9, 1 - 1e-9))


DECOYS = 2000  # pairs of decoys that the search goes down to
_PER_PICTURE = 5  # candidates per picture at most, on average: data in which all is alike stays bounded
_SAMPLE = 250  # pictures from which the depth of the search is estimated


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of several splits, counted through. parts: uint8 (., H, W, 3) each."""

    parts: Sequence[np.ndarray | ImageFiles]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return the pictures at `index`, (P,), in that order."""
        result = np.empty((len(index), *self.parts[0].shape[1:]), np.uint8)
        start = 0
        for part in self.parts:
            mine = (index >= start) & (index < start + len(part))
            result[mine] = part[index[mine] - start]
            start += len(part)
        return result

    def first_copies(self) -> np.ndarray:
        """Return for each picture the first one that is byte for byte equal, itself where there is none."""
        seen: dict[bytes, int] = {}
        digests = (
            hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            for part in self.parts
            for block in blocks_of(part)
            for image in block
        )
        return np.array([seen.setdefault(digest, index) for index, digest in enumerate(digests)], np.int64)


@dataclass(frozen=True, eq=False)
class AlikePairs:
    """Pairs of pictures that are alike beyond chance.

    Attributes:
        a: (P,) the first picture of each pair.
        b: (P,) the second one, b > a.
        similarity: (P,) in (0, 1].
        mirrored: (P,) bool, whether one of the two is mirrored.
        expected_by_chance: How many of the pairs are expected to be no copies.
    """

    a: np.ndarray
    b: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray
    expected_by_chance: float


def alike_pairs(pictures: Pictures, chosen: np.ndarray, *, seed: int) -> list[AlikePairs]:
    """Return the pairs among the pictures at `chosen` that are alike, as they are and mirrored."""
    prints = [each[chosen] for each in fingerprints(pictures.parts)]
    upright, mirrored, upside_down = prints
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(chosen))[:_SAMPLE]
    depth = _floor(upside_down[sample], upright, DECOYS)
    decoys = _scored(pictures, chosen, upside_down, upright, depth, np.s_[:, ::-1])[2]
    found = []
    for turned, turn in ((upright, np.s_[:]), (mirrored, np.s_[:, :, ::-1])):
        floor = max(depth, _floor(turned[sample], upright, _PER_PICTURE * len(chosen)))
        a, b, similarity = _scored(pictures, chosen, turned, upright, floor, turn)
        threshold, expected = chance_threshold(similarity, decoys)
        kept = similarity >= threshold
        flags = np.full(kept.sum(), turned is mirrored)
        found.append(AlikePairs(a[kept], b[kept], similarity[kept], flags, expected))
    return found


def _floor(sample: np.ndarray, keys: np.ndarray, pairs: int) -> float:
    """The similarity above which about `pairs` of all pairs lie, estimated from a sample of the rows."""
    similarities = (sample @ keys.T).ravel()
    wanted = round(len(similarities) * pairs / max(len(keys) * (len(keys) - 1) / 2, 1))
    if wanted >= len(similarities):
        return -1.0
    rank = len(similarities) - 1 - max(wanted, 1)
    return float(np.partition(similarities, rank)[rank])


def _scored(
    pictures: Pictures, chosen: np.ndarray, turned: np.ndarray, keys: np.ndarray, floor: float, turn: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs whose fingerprints are at least `floor` alike, with the lesser likeness of prints and pixels."""
    rows, columns = pairs_above(turned, keys, floor, upper=True)
    prints = similarity_of(turned, keys, rows, columns)
    a, b = chosen[rows], chosen[columns]
    step = max(1, CHUNK // int(np.prod(pictures.parts[0].shape[1:3])))
    pixels = [
        correlation(pictures.take(a[start : start + step])[turn], pictures.take(b[start : start + step]))
        for start in range(0, len(a), step)
    ]
    return a, b, np.minimum(prints, np.concatenate(pixels) if pixels else 0.0)


_NEAR = 3  # neighbours of each picture that are looked at
_OWN_SHARE = 0.05
_PAIRS = 500  # worked on at once: their edges fit a processor's cache


def shifted_pairs(pictures: Pictures, chosen: np.ndarray, features: np.ndarray) -> AlikePairs:
    """Return the pairs among the pictures at `chosen` whose edges agree at some small shift.

    features: (N, D) of all pictures.
    """
    rows = unit_rows(features[chosen])
    near, _ = nearest_rows(rows, rows, min(_NEAR + 1, len(rows)))  # the picture itself is one of them
    ends = np.stack([np.repeat(np.arange(len(rows)), near.shape[1]), near.ravel()], axis=1)
    a, b = np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0).T
    cells = np.concatenate([in_chunks(coarse, part) for part in pictures.parts])[chosen]
    weight = np.clip(np.einsum("pd,pd->p", rows[a], rows[b]), 0, 1)  # (P,) the cosine of the features
    similarity = weight * best_shift(cells, a, b)
    decoys = weight * best_shift(cells, a, b, upside_down=True)
    threshold, expected = chance_threshold(similarity, decoys, own_share=_OWN_SHARE)
    kept = similarity >= threshold
    return AlikePairs(
        chosen[a[kept]], chosen[b[kept]], similarity[kept], np.zeros(kept.sum(), bool), expected
    )


def coarse(images: np.ndarray) -> np.ndarray:
    """Return pictures (B, H, W, 3) on a grid of at most 16x16 cells, (B, g, g, 3) float32."""
    return pool(images, min(GRID, *images.shape[1:3]))


def _edges(cells: np.ndarray) -> np.ndarray:
    """Differences between neighbouring cells, (B, g - 1, g - 1, 6): downwards, then to the right."""
    down, right = cells[:, 1:, :-1] - cells[:, :-1, :-1], cells[:, :-1, 1:] - cells[:, :-1, :-1]
    return np.concatenate([down, right], axis=3)


def best_shift(cells: np.ndarray, a: np.ndarray, b: np.ndarray, *, upside_down: bool = False) -> np.ndarray:
    """Return the best correlation of the edges in the middle of each a with those of b at any shift, (P,).

    cells: (N, g, g, 3). a, b: (P,) indices of it. upside_down: turn a over first.
    """
    side = cells.shape[1] - 1
    reach = cells.shape[1] // 8  # cells
    inner = side - 2 * reach
    result = np.empty(len(a))
    for start in range(0, len(a), _PAIRS):
        one, other = cells[a[start : start + _PAIRS]], cells[b[start : start + _PAIRS]]
        one, other = _edges(one[:, ::-1] if upside_down else one), _edges(other)
        middle = one[:, reach : reach + inner, reach : reach + inner].reshape(len(one), -1)
        best = np.full(len(one), -1.0)
        for down in range(2 * reach + 1):
            for right in range(2 * reach + 1):
                window = other[:, down : down + inner, right : right + inner].reshape(len(one), -1)
                best = np.maximum(best, _cosine(middle, window))
        result[start : start + _PAIRS] = best
    return result


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    product = np.einsum("pd,pd->p", one, other)
    length = np.sqrt(np.einsum("pd,pd->p", one, one) * np.einsum("pd,pd->p", other, other))
    return np.divide(product, length, out=np.zeros(len(one), np.float32), where=length > 0)
