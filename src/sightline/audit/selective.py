"""What it costs to answer only when sure: risk against coverage, and the threshold for a wanted error rate.

Accept the images whose confidence is at least a threshold. Coverage is their share, risk the share of
mistakes among them. Images of one confidence are accepted together, so nothing here depends on the order
of the images.

    >>> curve = risk_coverage([0.9, 0.8, 0.8, 0.6], [True, True, False, False])
    >>> curve[["coverage", "errors"]].values.tolist()
    [[0.25, 0.0], [0.75, 1.0], [1.0, 2.0]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.inputs import confident, halves
from sightline.audit.result import RiskCurve, Selective, Threshold
from sightline.errors import InputError
from sightline.stats import wilson_interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


WANTED_ERRORS = (0.01, 0.02, 0.05)
_SURPRISE = 0.05  # how often a chosen threshold may let through more errors than were wanted
_TRIED = 200  # thresholds, evenly spread
_CURVE = 200  # points of the curve that is kept


def risk_coverage(confidence: ArrayLike, correct: ArrayLike, *, limit: int | None = None) -> pd.DataFrame:
    """Return the risk-coverage curve, a row for each confidence that occurs, the most confident first.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        limit: Keep at most this many rows, evenly spread over the coverage, the last one always among them.

    Returns:
        Columns: threshold (accept confidence >= threshold), coverage and risk in [0, 1], accepted and errors
        (counts).
    """
    import pandas as pd

    threshold, accepted, errors = _steps(*confident(confidence, correct))
    if limit is not None and len(threshold) > limit:
        wanted = np.linspace(accepted[0], accepted[-1], limit)
        kept = np.unique(np.searchsorted(accepted, wanted))
        threshold, accepted, errors = threshold[kept], accepted[kept], errors[kept]
    return pd.DataFrame(
        {
            "threshold": threshold,
            "coverage": accepted / np.size(confidence),
            "risk": errors / accepted,
            "accepted": accepted,
            "errors": errors,
        }
    )


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the risk-coverage curve, in [0, 1]: the mean over k of the risk of the k surest.

    Source: Geifman, Uziel & El-Yaniv (2019), eq. 3. Where confidences are equal, it is the mean over all
    orders of those images, in closed form.
    """
    confidence, correct = confident(confidence, correct)
    _, accepted, errors = _steps(confidence, correct)
    ranks = np.arange(1, len(confidence) + 1)
    # The k-th of m equal ones brings, on the average over their orders, e/m mistakes: linear in between.
    expected = np.interp(ranks, np.concatenate([[0], accepted]), np.concatenate([[0], errors]))
    return float((expected / ranks).mean())


def augrc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the generalised risk-coverage curve, in [0, 1/2].

    The generalised risk is P(accepted and wrong), so the area is the mean risk of a mistake that nobody
    is warned of; unlike AURC it does not weigh the few surest images most. Source: Traub et al. (2024),
    eq. 6; it equals (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 with a the accuracy (eq. 7) and AUROC that
    of the confidence telling right from wrong.
    """
    confidence, correct = confident(confidence, correct)
    _, accepted, errors = _steps(confidence, correct)
    coverage, risk = (np.concatenate([[0], counts]) / len(confidence) for counts in (accepted, errors))
    return float(np.trapezoid(risk, coverage))


def choose_threshold(
    confidence: ArrayLike, correct: ArrayLike, *, error: float, seed: int = 0
) -> Threshold | None:
    """Return a threshold that keeps the error rate at or below `error` in 95 of 100 splits, and its check.

    It is chosen on a random half and checked on the held-out half. From the surest images down, thresholds
    are taken while more than the wanted errors among as many new images would be a surprise at 5 %: if m
    errors are dealt out at random to both halves, the first has at most its own (hypergeometric). The first
    threshold that fails ends the search, so that it needs no correction for their number (fixed sequence).
    Source of the check's bound: Geifman & El-Yaniv (2017).

    Args:
        confidence: (N,) in [0, 1], N > 1.
        correct: (N,) bool.
        error: The wanted error rate, from 0 up to 1.
        seed: Of the halves.

    Returns:
        None where no threshold of the first half is sure to keep the error rate, as with too few images, or
        where it accepts nothing of the second.

    Raises:
        InputError: A value does not fit.
    """
    from scipy.stats import beta, hypergeom

    confidence, correct = confident(confidence, correct)
    if not 0 <= error < 1:
        raise InputError(f"a wanted error rate of {error}; it is a share, from 0 up to 1")
    first, second = halves(len(confidence), seed)
    thresholds, accepted, errors = _steps(confidence[first], correct[first])
    steps = np.unique(np.linspace(0, len(thresholds) - 1, _TRIED).astype(int))
    thresholds, accepted, errors = thresholds[steps], accepted[steps], errors[steps]
    too_many = np.floor(error * accepted).astype(int) + 1  # errors among as many of the held-out half
    fits = hypergeom.cdf(errors, 2 * accepted, errors + too_many, accepted) <= _SURPRISE
    if not fits.any():
        return None
    start = int(fits.argmax())  # before it there are too few images to know
    ends = np.flatnonzero(~fits[start:])
    threshold = float(thresholds[start + (ends[0] if len(ends) else len(fits) - start) - 1])
    kept = second[confidence[second] >= threshold]
    if not len(kept):
        return None
    wrong = int((~correct[kept]).sum())
    bound = 1.0 if wrong == len(kept) else float(beta.ppf(0.95, wrong + 1, len(kept) - wrong))
    return Threshold(
        wanted_error=error,
        threshold=threshold,
        coverage=len(kept) / len(second),
        error=wrong / len(kept),
        interval=wilson_interval(wrong, len(kept)),
        bound=bound,
        guaranteed=bound <= error,
    )


def measure_selective(confidence: np.ndarray, correct: np.ndarray, *, seed: int = 0) -> Selective:
    """Return the risk-coverage curve, the areas under it, and thresholds for error rates of 1, 2 and 5 %."""
    curve = risk_coverage(confidence, correct, limit=_CURVE)
    columns = (tuple(curve[name].tolist()) for name in ("coverage", "risk", "threshold"))
    chosen = [
        choose_threshold(confidence, correct, error=error, seed=seed)
        for error in WANTED_ERRORS
        if len(confidence) > 1
    ]
    return Selective(
        aurc=aurc(confidence, correct),
        augrc=augrc(confidence, correct),
        curve=RiskCurve(*columns),
        thresholds=tuple(one for one in chosen if one is not None),
    )


def _steps(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds in descending order, and how many images and mistakes each accepts, all (K,)."""
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last image of each confidence
    return ranked[last], last + 1, np.cumsum(~correct[order])[last]
