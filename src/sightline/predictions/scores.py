"""All metrics of a table of predictions, each with an interval, and which of them is the headline.

    found = score_predictions(run.predictions)
    found.overall["macro_f1"].value, found.overall["macro_f1"].low

A metric is written once, for many weightings of the images at a time: with the weight 1 of every image it is
the metric, and with the counts of a bootstrap draw it is the metric of that resample. Tests compare all of
them with scikit-learn, weights included.

Shares of images (accuracy, top-k, precision and recall of a class) have Wilson intervals, as everywhere else
on the page; all others the percentile interval of a stratified bootstrap: each class is resampled on its own,
so a resample has the class counts of the test split and no metric loses a class. A class that is right in all
of a few images has no spread to resample: such an interval is too narrow for tiny classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sightline.predictions.table import Predictions
from sightline.stats import wilson_interval

IMBALANCE = 3
"""How many times its smallest class the largest may be before balanced accuracy stands beside accuracy."""

_CHUNK = 50  # resamples at a time: their weights of 10,000 images fit the cache
_RANK_WORK = 4e7  # sorted scores that the intervals of AUC and average precision may cost
_FEWEST_RANKED = 100  # resamples; with fewer, a percentile means little
_MOST_RANKED = 2e7  # images times classes; above it these two have no interval


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval; None where it is not defined, and why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ClassScores:
    """The metrics of one class against the rest. images: how many of the split have this label."""

    name: str
    images: int
    scores: dict[str, Score]


@dataclass(frozen=True)
class Scores:
    """What `score_predictions` returns.

    Attributes:
        overall: By name: accuracy, balanced_accuracy, macro_precision, macro_f1, weighted_f1, matthews,
            kappa, top_K_accuracy, loss (nats), brier (sum over the classes, in [0, 2]), roc_auc and
            average_precision (means over the classes). A class without images does not count in a mean.
        classes: Of each class precision, recall, f1, roc_auc and average_precision.
        headline: The metrics to name first.
        why: Why balanced accuracy is among them, or empty.
    """

    overall: dict[str, Score]
    classes: tuple[ClassScores, ...]
    headline: tuple[str, ...]
    why: str = ""


def score_predictions(predictions: Predictions, *, resamples: int = 1000, seed: int = 0) -> Scores:
    """Return all metrics with 95 % intervals.

    Args:
        predictions: Of N images of C classes.
        resamples: Of the bootstrap; AUC and average precision take fewer where N x C is large.
        seed: Of the bootstrap.
    """
    values = {key: array[0] for key, array in measured(predictions, _ones(predictions)).items()}
    drawn = bootstrap(predictions, resamples=resamples, seed=seed)
    counts = np.bincount(predictions.labels, minlength=len(predictions.class_names))
    n, shares = len(predictions), _share_counts(predictions, counts)
    overall = {
        key: _score(value, drawn.get(key), n, shares.get(key)) if value.ndim == 0 else None
        for key, value in values.items()
    }
    per_class = [key for key, one in overall.items() if one is None]
    classes = tuple(
        ClassScores(
            name,
            int(counts[c]),
            {
                key.removeprefix("class_"): _score(
                    values[key][c],
                    None if key not in drawn else drawn[key][:, c],
                    int(counts[c]),
                    None if key not in shares else (shares[key][0][c], shares[key][1][c]),
                )
                for key in per_class
            },
        )
        for c, name in enumerate(predictions.class_names)
    )
    headline, why = headline_metrics(counts)
    return Scores({key: one for key, one in overall.items() if one is not None}, classes, headline, why)


def headline_metrics(counts: np.ndarray) -> tuple[tuple[str, ...], str]:
    """Return the metrics to name first for a split of (C,) images per class, and why.

    >>> headline_metrics(np.array([30, 10])), headline_metrics(np.array([31, 10]))[0]
    ((('accuracy',), ''), ('accuracy', 'balanced_accuracy'))
    """
    present = counts[counts > 0]
    if len(present) < 2 or present.max() <= IMBALANCE * present.min():
        return ("accuracy",), ""
    return ("accuracy", "balanced_accuracy"), (
        f"The largest class has {present.max()} test images and the smallest {present.min()}: accuracy is "
        "mostly that of the large classes, and in balanced accuracy every class counts the same."
    )


def top_k(predictions: Predictions) -> int:
    """Return the k of top-k accuracy: 5, of five classes and fewer 2, of two 1."""
    classes = len(predictions.class_names)
    return 5 if classes > 5 else min(2, classes - 1)


def measured(predictions: Predictions, weights: np.ndarray, *, ranks: bool = True) -> dict[str, np.ndarray]:
    """Return the metrics under several weightings of the images at once.

    Args:
        predictions: Of N images of C classes.
        weights: (R, N) float32, how often each image counts.
        ranks: Whether AUC and average precision, the dear ones, are among them.

    Returns:
        (R,) of each metric of all classes and, with names that begin with "class_", (R, C) of each class;
        NaN where it is not defined.
    """
    labels = np.eye(len(predictions.class_names), dtype=np.float32)[predictions.labels]  # (N, C)
    guessed = np.eye(labels.shape[1], dtype=np.float32)[predictions.predicted]
    support = (weights @ labels).astype(np.float64)  # (R, C)
    chosen = (weights @ guessed).astype(np.float64)
    right = ((weights * predictions.correct) @ labels).astype(np.float64)
    total = support.sum(axis=1)
    precision, recall = _ratio(right, chosen), _ratio(right, support)
    f1 = np.where(support > 0, _ratio(2 * right, support + chosen), np.nan)
    here = support > 0
    by_chance = (support * chosen).sum(axis=1)
    agreed = right.sum(axis=1) * total - by_chance
    spread = np.sqrt((total**2 - (chosen**2).sum(axis=1)) * (total**2 - (support**2).sum(axis=1)))
    found = {
        "accuracy": right.sum(axis=1) / total,
        "balanced_accuracy": _mean(recall, here),
        "macro_precision": _mean(np.nan_to_num(precision), here),
        "macro_f1": _mean(f1, here),
        "weighted_f1": (np.nan_to_num(f1) * support).sum(axis=1) / total,
        "matthews": _ratio(agreed, spread),
        "kappa": _ratio(agreed, total**2 - by_chance),
    }
    found |= {key: weights @ each / total for key, each in _image_values(predictions).items()}
    found |= {"class_precision": precision, "class_recall": recall, "class_f1": f1}
    if ranks:
        auc, precision_mean = _rank_metrics(predictions.log_probabilities, labels > 0, weights)
        found["class_roc_auc"], found["class_average_precision"] = auc, precision_mean
        for key in ("roc_auc", "average_precision"):
            found[key] = _mean(found[f"class_{key}"], np.isfinite(found[f"class_{key}"]))
    return found


def bootstrap(
    predictions: Predictions, *, resamples: int = 1000, seed: int = 0, ranks: bool = True
) -> dict[str, np.ndarray]:
    """Return the metrics of stratified bootstrap resamples, as `measured` does, (R,) or (R, C) each.

    The draws follow from the labels and the seed alone: of two models on the same images the differences of
    what this returns are those of a paired bootstrap.
    """
    size = len(predictions) * len(predictions.class_names)
    ranked = max(_FEWEST_RANKED, int(_RANK_WORK / max(size, 1))) if ranks and size <= _MOST_RANKED else 0
    parts: dict[str, list[np.ndarray]] = {}
    for start, weights in _draws(predictions.labels, resamples, seed):
        for key, array in measured(predictions, weights, ranks=start < ranked).items():
            parts.setdefault(key, []).append(array)
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


@dataclass(frozen=True)
class Change:
    """A metric of two models on the same images; b - a with its 95 % interval, None where one lacks it."""

    a: float | None
    b: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def compare_scores(
    a: Predictions, b: Predictions, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Change]:
    """Return what the metrics of all classes were and are, but for AUC and average precision.

    Args:
        a, b: On the same images, with the same labels.
        resamples, seed: Of the paired, stratified bootstrap.
    """
    before, after = (measured(one, _ones(one), ranks=False) for one in (a, b))
    drawn_a, drawn_b = (bootstrap(one, resamples=resamples, seed=seed, ranks=False) for one in (a, b))
    changes = {}
    for key in (key for key, array in before.items() if array.ndim == 1):
        old, new = (float(found[key][0]) for found in (before, after))
        gained = drawn_b[key] - drawn_a[key]
        gained = gained[np.isfinite(gained)]
        if not np.isfinite(new - old) or not len(gained):
            changes[key] = Change(*(one if np.isfinite(one) else None for one in (old, new)))
            continue
        low, high = np.quantile(gained, [0.025, 0.975])
        changes[key] = Change(old, new, new - old, float(low), float(high))
    return changes


def _draws(labels: np.ndarray, resamples: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first resample, weights (r, N)): how often each image is drawn from its own class."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        weights = np.empty((rows, len(labels)), np.float32)
        offsets = np.arange(rows)[:, None]
        for own in members:
            drawn = generator.integers(len(own), size=(rows, len(own))) + offsets * len(own)
            counts = np.bincount(drawn.ravel(), minlength=rows * len(own))
            weights[:, own] = counts.reshape(rows, len(own))
        yield start, weights


def _ones(predictions: Predictions) -> np.ndarray:
    return np.ones((1, len(predictions)), np.float32)


def _image_values(predictions: Predictions) -> dict[str, np.ndarray]:
    """Return the metrics that are means over images, by name, (N,) each."""
    rows, labels = np.arange(len(predictions)), predictions.labels
    squares = (predictions.probabilities**2).sum(axis=1)
    own = predictions.probabilities[rows, labels]
    found = {"loss": predictions.loss, "brier": squares - 2 * own + 1}
    k = top_k(predictions)
    if k > 1:
        # A label is in the k largest if fewer than k others are above it, or equal and of an earlier class.
        logits, mine = predictions.logits, predictions.logits[rows, labels][:, None]
        earlier = np.arange(logits.shape[1])[None] < labels[:, None]
        above = ((logits > mine) | ((logits == mine) & earlier)).sum(axis=1)
        found[f"top_{k}_accuracy"] = (above < k).astype(np.float64)
    return found


def _rank_metrics(scores: np.ndarray, own: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ROC AUC and average precision of each class against the rest, (R, C) each.

    scores, own: (N, C), of each image and whether the class is its label. Equal scores are one threshold.
    """
    resamples, classes = len(weights), scores.shape[1]
    auc, average = np.full((2, resamples, classes), np.nan)
    for c in range(classes):
        if not 0 < own[:, c].sum() < len(own):
            continue
        order = np.argsort(-scores[:, c], kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores[order, c]) != 0, True))
        drawn = weights[:, order]  # (R, N)
        right = np.cumsum(drawn * own[order, c], axis=1)[:, ends].astype(np.float64)  # (R, T)
        taken = np.cumsum(drawn, axis=1)[:, ends].astype(np.float64)
        gained = np.diff(right, axis=1, prepend=0)
        wrong = taken - right
        area = (np.diff(wrong, axis=1, prepend=0) * (right - gained / 2)).sum(axis=1)
        auc[:, c] = _ratio(area, right[:, -1] * wrong[:, -1])
        average[:, c] = (gained * np.nan_to_num(_ratio(right, taken))).sum(axis=1) / right[:, -1]
    return auc, average


def _share_counts(predictions: Predictions, counts: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return (how many, of how many) of the metrics that are shares of images; arrays for each class."""
    classes, n = len(counts), np.asarray(len(predictions))
    right = np.bincount(predictions.labels[predictions.correct], minlength=classes)
    found = {
        "accuracy": (right.sum(), n),
        "class_recall": (right, counts),
        "class_precision": (right, np.bincount(predictions.predicted, minlength=classes)),
    }
    top = f"top_{top_k(predictions)}_accuracy"
    if top in (values := _image_values(predictions)):
        found[top] = (values[top].sum().astype(int), n)
    return found


def _score(
    value: np.ndarray, drawn: np.ndarray | None, images: int, share: tuple[np.ndarray, np.ndarray] | None
) -> Score:
    if not np.isfinite(value):
        reason = "no test image has this label" if images == 0 else "no test image was given this class"
        if share is None and images:
            reason = "it needs test images of this class and of others, or answers of more than one class"
        return Score(None, reason=reason)
    if share is not None:
        low, high = wilson_interval(int(share[0]), int(share[1]))
        return Score(float(value), low, high, "Wilson")
    drawn = None if drawn is None else drawn[np.isfinite(drawn)]
    if drawn is None or not len(drawn) or images < 2:
        few = "one image has no spread" if images < 2 else "too many images and classes to resample"
        return Score(float(value), reason=f"no interval: {few}")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Score(float(value), float(low), float(high), "stratified bootstrap")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the means over the classes that count, (R, C) -> (R,); NaN where none does."""
    return _ratio(np.where(counted, values, 0).sum(axis=1), counted.sum(axis=1))
