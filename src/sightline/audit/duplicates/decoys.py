"""How alike two pictures come to be by chance, and from where on likeness is no accident."""

from __future__ import annotations

import numpy as np

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
