"""The search behind `find_near_duplicates`: pairs of pictures that are alike beyond chance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.audit.duplicates.decoys import chance_threshold
from sightline.audit.duplicates.fingerprints import CHUNK, blocks_of, correlation, fingerprints
from sightline.audit.neighbors import pairs_above, similarity_of

if TYPE_CHECKING:
    from sightline.data import ImageFiles

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
