"""Is the confidence to be trusted: calibration error, how much of it is noise, and one temperature.

A model is calibrated if, of the images that it is 80 % sure of, 80 % are right (Guo 2017).

    >>> confidence, correct = [0.9, 0.9, 0.6, 0.6], [True, True, True, False]
    >>> round(calibration_error(confidence, correct), 4)  # bins at .9 and .6: (2 * .1 + 2 * .1) / 4
    0.1

A measured error is never zero, because accuracy in a bin is counted on few images: `calibration_noise`
is what a perfectly calibrated model with these very confidences would show.

One number corrects the confidence: divide the logits by a temperature (Guo 2017).

    >>> logits = np.array([[4.0, 0.0]] * 10)  # sure at 98 %, and right in 8 of 10
    >>> round(fit_temperature(logits, np.array([0] * 8 + [1] * 2)), 3)  # 4 / log(8 / 2)
    2.885
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.inputs import CHUNK, confident, labelled, of_label
from sightline.audit.result import Calibration, ReliabilityBin
from sightline.errors import InputError
from sightline.predictions import Predictions
from sightline.stats import wilson_intervals

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Binning = Callable[[np.ndarray, int], np.ndarray]


def equal_width(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges (bins + 1,) of bins of one width in [0, 1] (Naeini 2015)."""
    return np.linspace(0, 1, bins + 1)


def equal_mass(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges (bins + 1,) of bins that hold about equally many images (Nguyen & O'Connor 2015).

    They are quantiles, so that equal confidences share a bin, whatever the order of the images; many
    equal ones make some bins empty.
    """
    return np.quantile(confidence, np.linspace(0, 1, bins + 1))


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = equal_width
) -> float:
    """Return the expected calibration error `sum_b n_b/N |accuracy_b - confidence_b|`, in [0, 1].

    A bin holds its lower edge; the last one also its upper edge, so that a confidence of 1 counts (Guo 2017,
    eq. 3).

    Args:
        confidence: (N,) in [0, 1], of the predicted class.
        correct: (N,) bool.
        bins: How many.
        binning: A function from the confidences and the number of bins to their edges: `equal_width`,
            `equal_mass` or your own.

    Raises:
        InputError: Shapes differ, a confidence is outside [0, 1], or the edges do not ascend.
    """
    confidence, correct = confident(confidence, correct)
    number = bin_of(confidence, _edges(confidence, bins, binning))
    return float(np.abs(np.bincount(number, correct - confidence)).sum() / len(confidence))


@dataclass(frozen=True)
class CalibrationNoise:
    """The error that noise alone gives a perfectly calibrated model: its mean and its 95 % quantile."""

    mean: float
    high: float


def calibration_noise(
    confidence: ArrayLike,
    *,
    bins: int = 15,
    binning: Binning = equal_width,
    draws: int = 200,
    seed: int = 0,
) -> CalibrationNoise:
    """Return what `calibration_error` shows if each image is right with exactly its confidence.

    An error below `high` is within noise. The answers are drawn `draws` times; memory is that of one draw.
    Source: the consistency resampling of Bröcker & Smith (2007), with the confidences kept.
    """
    confidence, _ = confident(confidence, np.ones(np.shape(confidence), bool))
    number, rng = bin_of(confidence, _edges(confidence, bins, binning)), np.random.default_rng(seed)
    expected = np.bincount(number, confidence)
    errors = np.empty(draws)
    for draw in range(draws):
        right = rng.random(len(confidence)) < confidence
        errors[draw] = np.abs(np.bincount(number[right], minlength=len(expected)) - expected).sum()
    errors /= len(confidence)
    return CalibrationNoise(float(errors.mean()), float(np.quantile(errors, 0.95)))


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = equal_width
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of the reliability diagram, empty ones too; arguments as of `calibration_error`."""
    confidence, correct = confident(confidence, correct)
    edges = _edges(confidence, bins, binning)
    number = bin_of(confidence, edges)
    count, right = (np.bincount(number, weights, bins) for weights in (None, correct))
    total = np.bincount(number, confidence, bins)
    low, high = wilson_intervals(right, count)
    return tuple(
        ReliabilityBin(
            low=edges[k],
            high=edges[k + 1],
            count=count[k],
            confidence=total[k] / count[k] if count[k] else None,
            accuracy=right[k] / count[k] if count[k] else None,
            interval=(low[k], high[k]),
        )
        for k in range(bins)
    )


def measure_calibration(predictions: Predictions, fitted: CrossFit | None) -> Calibration:
    """Return calibration error, what of it is noise, what a temperature does, and the reliability diagram.

    fitted: of `cross_fit_temperature`, None where nothing can be fitted.
    """
    p = predictions
    noise = calibration_noise(p.confidence)
    useful = fitted if fitted is not None and fitted.fitted else None
    return Calibration(
        ece=calibration_error(p.confidence, p.correct),
        ece_equal_mass=calibration_error(p.confidence, p.correct, binning=equal_mass),
        noise_mean=noise.mean,
        noise_high=noise.high,
        nll=fitted.nll if fitted else float(p.loss.mean()),
        temperature=useful and useful.temperature,
        ece_after=useful and useful.ece_after,
        nll_after=useful and useful.nll_after,
        reliability=reliability_bins(p.confidence, p.correct),
    )


def bin_of(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The number of the bin of each confidence, (N,): a bin holds its lower edge, the last one both."""
    return np.searchsorted(edges[1:-1], confidence, side="right")


def _edges(confidence: np.ndarray, bins: int, binning: Binning) -> np.ndarray:
    if bins < 1:
        raise InputError(f"{bins} bins hold nothing; give 1 or more")
    edges = np.asarray(binning(confidence, bins), np.float64)
    if edges.shape != (bins + 1,) or (np.diff(edges) < 0).any():
        raise InputError(f"the binning returned edges {edges.shape}; {bins} bins need {bins + 1} that ascend")
    return edges


COLDEST, HOTTEST = 0.05, 20.0  # the range of temperatures


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return argmin_T of the mean cross-entropy of softmax(z / T), in [0.05, 20].

    logits: (N, C). labels: (N,). The loss is convex in 1 / T, so that the root of its slope is the only
    minimum. Without a mistake it has none: the coldest temperature comes, and is not to be used.
    """
    labels, logits = labelled(labels, logits, "logits")
    return _fit(labels, logits)


@dataclass(frozen=True)
class CrossFit:
    """A temperature, and what it gives on images that it was not fitted to.

    Attributes:
        temperature: Fitted to all images, the one to use.
        fold_temperatures: Of each fold's complement; their spread is that of the fit.
        nll: Mean cross-entropy in nats.
        nll_after: The same on images that the temperature was not fitted to.
        ece: Calibration error in [0, 1], 15 bins of one width.
        ece_after: The same on images that the temperature was not fitted to.
        gain: 95 % interval of ece - ece_after (bootstrap).
    """

    temperature: float
    fold_temperatures: tuple[float, ...]
    nll: float
    nll_after: float
    ece: float
    ece_after: float
    gain: tuple[float, float]

    @property
    def fitted(self) -> bool:
        """Whether the temperature is one to use.

        At the end of its range it is none: the model made no mistake, or knows nothing.
        """
        return COLDEST < self.temperature < HOTTEST


def cross_fit_temperature(logits: ArrayLike, labels: ArrayLike, *, folds: int = 2, seed: int = 0) -> CrossFit:
    """Fit a temperature to all folds but one, scale that one with it, and so each fold in turn.

    What is reported "after" is of data that was not used to fit.

    Args:
        logits: (N, C).
        labels: (N,) integers in 0..C-1.
        folds: Parts of the images.
        seed: Of the parts, and of the interval.

    Raises:
        InputError: Shapes do not fit, or not 2 <= folds <= N.
    """
    labels, logits = labelled(labels, logits, "logits")
    if not 2 <= folds <= len(labels):
        raise InputError(f"{folds} folds of {len(labels)} images; from 2 to the number of images fit")
    fold = np.random.default_rng(seed).permutation(np.arange(len(labels)) % folds)
    temperatures = [_fit(labels[fold != k], logits[fold != k]) for k in range(folds)]
    before, after = (_scaled(labels, logits, t) for t in (np.ones(len(labels)), np.array(temperatures)[fold]))
    correct = before.predicted == labels
    return CrossFit(
        temperature=_fit(labels, logits),
        fold_temperatures=tuple(temperatures),
        nll=before.nll,
        nll_after=after.nll,
        ece=calibration_error(before.confidence, correct),
        ece_after=calibration_error(after.confidence, correct),
        gain=_gain_interval(before.confidence, after.confidence, correct, seed=seed),
    )


def _fit(labels: np.ndarray, logits: np.ndarray) -> float:
    from scipy.optimize import root_scalar

    below = logits.astype(np.float64)
    below -= below.max(axis=1, keepdims=True)  # (N, C), at most 0: exp cannot overflow
    own = of_label(labels, below).mean()

    def slope(beta: float) -> float:  # of the mean loss, by beta = 1 / T: E_p[z] - z_y
        total = 0.0
        for start in range(0, len(below), CHUNK):
            part = below[start : start + CHUNK]
            weights = np.exp(beta * part)
            total += ((weights * part).sum(axis=1) / weights.sum(axis=1)).sum()
        return total / len(below) - own

    if slope(1 / COLDEST) <= 0:
        return COLDEST
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    root = root_scalar(slope, bracket=(1 / HOTTEST, 1 / COLDEST), method="brentq", xtol=1e-6).root
    return float(1 / root)


@dataclass(frozen=True)
class _Scaled:
    confidence: np.ndarray
    predicted: np.ndarray
    nll: float


def _scaled(labels: np.ndarray, logits: np.ndarray, temperatures: np.ndarray) -> _Scaled:
    """Confidence, prediction and mean loss of logits (N, C) divided by temperatures (N,)."""
    confidence, total = np.empty(len(labels)), 0.0
    for start in range(0, len(labels), CHUNK):
        rows = slice(start, start + CHUNK)
        scaled = logits[rows] / temperatures[rows, None]
        scaled -= scaled.max(axis=1, keepdims=True)
        sums = np.exp(scaled).sum(axis=1)
        confidence[rows] = 1 / sums
        total += (np.log(sums) - of_label(labels[rows], scaled)).sum()
    return _Scaled(confidence, logits.argmax(axis=1), float(total / len(labels)))


def _gain_interval(
    before: np.ndarray, after: np.ndarray, correct: np.ndarray, *, seed: int, draws: int = 1000
) -> tuple[float, float]:
    """Basic bootstrap interval of how far the calibration error falls, 95 %.

    Images that share both bins and the outcome are alike up to a bin's width, so their counts are drawn
    instead of the images: the cost does not grow with N. Drawing adds noise, which raises an error near
    zero; the basic interval takes that shift back, the percentile interval would count it twice.
    """
    edges = equal_width(before, 15)
    first, second = bin_of(before, edges), bin_of(after, edges)
    cell = (first * 15 + second) * 2 + correct
    count = np.bincount(cell, minlength=450)
    held = np.flatnonzero(count)
    drawn = np.random.default_rng(seed).multinomial(len(cell), count[held] / len(cell), draws)  # (draws, K)

    def errors(confidence: np.ndarray, column: np.ndarray) -> np.ndarray:
        gap = np.bincount(cell, correct - confidence, 450)[held] / count[held]  # mean of each cell
        member = column[:, None] == np.arange(15)  # (K, 15)
        return np.abs((drawn * gap) @ member).sum(axis=1) / len(cell)

    fall = errors(before, held // 30) - errors(after, held // 2 % 15)
    measured = calibration_error(before, correct) - calibration_error(after, correct)
    low, high = 2 * measured - np.quantile(fall, (0.975, 0.025))
    return float(low), float(high)
