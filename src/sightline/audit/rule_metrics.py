"""The metrics that rules can be about, each with an interval that a rule can rest on.

Shares of images have exact intervals. Other metrics of the predictions have those of the bootstrap, stretched
by as much as the exact interval of the accuracy is wider than a plain one, and none with fewer than 10 right
or 10 wrong images: with few mistakes a bootstrap draws a good model as sure as no sample is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sightline.audit.calibration import bin_of, equal_width
from sightline.audit.result import AuditResult, DuplicateKind, LabelIssueList, SplitName
from sightline.audit.rules import LOWER_IS_BETTER, Measured, Rule
from sightline.errors import InputError, nearest
from sightline.predictions.scores import Score, Scores, bootstrap, measured
from sightline.predictions.table import Predictions
from sightline.stats import Z_95, difference_interval, exact_interval, paired_interval, wilson_intervals

FEWEST = 10
"""Right and wrong images that a bootstrap needs."""

_AUDIT = "sightline audit RUN"
_NO_RANKS = ("roc_auc", "average_precision")  # too dear to resample twice

Interval = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class RunNumbers:
    """What rules read of a run.

    Attributes:
        predictions: Of the test split.
        scores: Their metrics, as `score_predictions` returns them.
        audit: None without one.
        own: The metrics of the recipe's own, by name.
    """

    predictions: Predictions
    scores: Scores
    audit: AuditResult | None = None
    own: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class BaseRun:
    """The run that a rule compares with.

    Attributes:
        predictions: Of its test split.
        rows, own: (M,) of the images that both runs were tested on: the rows of the base, and of the run.
    """

    predictions: Predictions
    rows: np.ndarray
    own: np.ndarray


def measure_rule(rule: Rule, run: RunNumbers, base: BaseRun | None = None) -> Measured:
    """Return what the rule is about, of this run.

    Raises:
        InputError: The run has no such metric or class, or the metric cannot be compared with a base.
    """
    if rule.of_base:
        if base is None:
            raise InputError(f"rule {rule.text!r} needs a run to compare with; name it with --against BASE")
        return _change(rule, run, base)
    special = _SPECIAL.get(rule.metric)
    if special is not None and not rule.of:
        return special(run)
    if rule.of:
        return _of_class(rule, run)
    if rule.metric in run.own and rule.metric not in run.scores.overall:
        return Measured(
            run.own[rule.metric], note="a metric of the recipe's own", remedy="it has no interval"
        )
    _check_known(rule, (*run.scores.overall, *run.own, *_SPECIAL))
    correct = run.predictions.correct
    score = run.scores.overall[rule.metric]
    if score.interval == "Wilson":
        return _share(score, len(correct))
    return _resampled(score, rule.metric, int(correct.sum()), len(correct))


def _check_known(rule: Rule, names: tuple[str, ...]) -> None:
    if rule.metric not in names:
        hint = nearest(rule.metric, sorted(names))
        raise InputError(f"rule {rule.text!r} names {rule.metric!r}, which this run does not have; {hint}")


def _class_of(rule: Rule, names: tuple[str, ...]) -> int:
    if rule.of not in names:
        raise InputError(f"rule {rule.text!r} names the class {rule.of!r}; {nearest(rule.of, names)}")
    return names.index(rule.of)


def _of_class(rule: Rule, run: RunNumbers) -> Measured:
    p = run.predictions
    label = _class_of(rule, p.class_names)
    one = run.scores.classes[label]
    _check_known(rule, tuple(one.scores))
    score = one.scores[rule.metric]
    if rule.metric == "precision":
        return _share(score, int((p.predicted == label).sum()))
    if rule.metric == "recall":
        return _share(score, one.images)
    return _resampled(score, rule.metric, int(p.correct[p.labels == label].sum()), one.images)


def _share(score: Score, images: int) -> Measured:
    if score.value is None:
        return Measured(None, note=score.reason)
    share = score.value
    right = round(share * images)
    return Measured(right / images, lambda m: exact_interval(right / images * m, m), images, "exact interval")


def _resampled(score: Score, metric: str, right: int, images: int) -> Measured:
    value, low, high = score.value, score.low, score.high
    if value is None or low is None or high is None:
        return Measured(value, images=images, note=score.reason)
    few = min(right, images - right)
    if few < FEWEST:
        return Measured(value, images=images, note=_too_few("right and wrong images", few))
    worse, better = _stretch(right, images)
    down, up = (better, worse) if metric in LOWER_IS_BETTER else (worse, better)
    return Measured(
        value, _by_root(value, (value - low) * down, (high - value) * up, images), images, "bootstrap"
    )


def _too_few(what: str, few: int) -> str:
    return f"a bootstrap needs {FEWEST} {what}, and there are {few}"


def _by_root(value: float, down: float, up: float, images: int) -> Interval:
    """An interval that shrinks with the root of the number of images."""

    def interval(m: float) -> tuple[float, float]:
        scale = (images / m) ** 0.5
        return value - down * scale, value + up * scale

    return interval


def _stretch(right: int, images: int) -> tuple[float, float]:
    """How many times as far as a plain interval the exact one of a share reaches down and up, at least 1."""
    share = right / images
    half = Z_95 * (share * (1 - share) / images) ** 0.5
    low, high = exact_interval(right, images)
    return max(1.0, (share - low) / half), max(1.0, (high - share) / half)


def _worst_class(run: RunNumbers) -> Measured:
    p = run.predictions
    counts = np.bincount(p.labels, minlength=len(p.class_names))
    right = np.bincount(p.labels[p.correct], minlength=len(p.class_names))[counts > 0]
    names = [name for name, count in zip(p.class_names, counts, strict=True) if count]
    worst = int((right / counts[counts > 0]).argmin())
    return _worst(right, counts[counts > 0], len(p), f"recall of “{names[worst]}”")


def _worst(right: np.ndarray, counts: np.ndarray, images: int, note: str) -> Measured:
    """The smallest of several shares: (K,) each.

    Whether all are above a bound is asked of each alone, at 95 %: a false yes needs the worst one to pass.
    Whether one is below it is asked K times, and each has a K-th of the error.
    """
    few = 1 - 0.05 / len(counts)

    def interval(m: float) -> tuple[float, float]:
        scaled = [(r * m / images, c * m / images) for r, c in zip(right, counts, strict=True)]
        low = min(exact_interval(r, c)[0] for r, c in scaled)
        return low, min(exact_interval(r, c, confidence=few)[1] for r, c in scaled)

    return Measured(float((right / counts).min()), interval, images, note)


def _worst_slice(run: RunNumbers) -> Measured:
    if run.audit is None:
        return Measured(None, note="no slices were looked for", remedy=_AUDIT)
    correct = run.predictions.correct
    slices = run.audit.slices
    if not slices:
        right, counts = np.array([correct.sum()]), np.array([len(correct)])
        return _worst(right, counts, len(correct), "no slice was confirmed: all test images stand in")
    counts = np.array([_held_out(one.error, one.interval, one.size) for one in slices])
    right = np.array([n - round(one.error * n) for one, n in zip(slices, counts, strict=True)])
    worst = slices[int((right / counts).argmin())]
    return _worst(right, counts, len(correct), f"images {worst.name.removeprefix('images ')}")


def _held_out(error: float, interval: tuple[float, float], size: int) -> int:
    """Of how many images a Wilson interval is: of those of a slice, what lay in the held-out half."""
    counts = np.arange(1, size + 1)
    low, high = wilson_intervals(error * counts, counts)
    return int(counts[np.abs(high - low - (interval[1] - interval[0])).argmin()])


def _calibration_error(run: RunNumbers) -> Measured:
    """The expected calibration error and an interval of it.

    It is a sum of absolute values, so noise only adds to its mean, by at most the mean of the noise of each
    bin: the lower end takes that off, and the upper end needs no allowance for it. For models without
    mistakes four images are added, two of them as wrong as can be (after Agresti & Coull 1998).
    """
    p = run.predictions
    n, gaps = len(p), p.correct - p.confidence
    number = bin_of(p.confidence, equal_width(p.confidence, 15))
    sign = np.sign(np.bincount(number, gaps, 15))[number]
    value = float((sign * gaps).mean())
    squares = np.bincount(number, (gaps - _means(gaps, number)) ** 2, 15)
    noise = float(np.sqrt(2 / np.pi * squares).sum() / n)
    total, square = (sign * gaps).sum(), (gaps**2).sum()

    def interval(m: float) -> tuple[float, float]:
        scale = m / n
        mean = (total * scale + 2) / (m + 4)
        half = Z_95 * max((square * scale + 2) / (m + 4) - mean**2, 0) ** 0.5 / (m + 4) ** 0.5
        low = value - noise / scale**0.5 - (half + mean - value)
        return max(low, 0.0), min(mean + half, 1.0)

    return Measured(value, interval, n, "expected calibration error, 15 bins")


def _means(values: np.ndarray, number: np.ndarray) -> np.ndarray:
    counts = np.maximum(np.bincount(number, minlength=15), 1)
    return (np.bincount(number, values, 15) / counts)[number]


def _leaks(run: RunNumbers) -> Measured:
    found = None if run.audit is None else run.audit.duplicates
    if found is None:
        return Measured(None, note="near-duplicates were not looked for", remedy=_AUDIT)
    between = [one for one in found.pairs if (one.a_split, one.b_split) == (SplitName.TRAIN, SplitName.TEST)]
    sure = len({one.b for one in between if one.kind is DuplicateKind.EXACT})
    by_chance = _poisson_high(found.expected_by_chance)
    ends = float(max(sure, found.leaked - by_chance, 0)), float(found.leaked)
    note = f"test images with a near-duplicate in training, {sure} of them exact"
    return Measured(float(found.leaked), lambda m: ends, len(run.predictions), note, "look at the pairs")


def _poisson_high(mean: float) -> int:
    """The number that a count with this mean exceeds in 2.5 of 100 cases at most."""
    from scipy.stats import poisson

    return int(poisson.ppf(0.975, mean)) if mean > 0 else 0


def _label_issues(run: RunNumbers) -> Measured:
    if run.audit is None:
        return Measured(None, note="labels were not judged", remedy=_AUDIT)
    lists = [one for one in (run.audit.label_issues.test, run.audit.label_issues.train) if one is not None]
    ends = [_wrong_labels(one) for one in lists]
    low, high = (float(sum(one[side] for one in ends)) for side in (0, 1))
    flagged = sum(one.flagged for one in lists)
    wrong = sum(one.flagged * (1.0 if one.precision is None else one.precision.value) for one in lists)
    note = f"wrong ones among {flagged} flagged labels" if flagged else "no label is flagged"
    return Measured(wrong, lambda m: (low, high), len(run.predictions), note, "look at the flagged labels")


def _wrong_labels(found: LabelIssueList) -> tuple[float, float]:
    low, high = (0.0, 1.0) if found.precision is None else found.precision.interval
    return found.flagged * low, found.flagged * high


_SPECIAL: dict[str, Callable[[RunNumbers], Measured]] = {
    "worst_class": _worst_class,
    "worst_slice": _worst_slice,
    "calibration_error": _calibration_error,
    "leaks": _leaks,
    "label_issues": _label_issues,
}
"""Metrics that are not of `score_predictions`."""


def _change(rule: Rule, run: RunNumbers, base: BaseRun) -> Measured:
    """The run's number minus the base's: paired where at least half of the smaller test split is shared."""
    a, b, note = _sides(run.predictions, base)
    paired = note.startswith("paired")
    if rule.of or rule.metric == "accuracy":
        if rule.of and rule.metric != "recall":
            raise InputError(f"rule {rule.text!r}: of a class only recall can be compared with BASE")
        if rule.of:
            label = _class_of(rule, b.class_names)
            a, b = (_only(one, one.labels == label) for one in (a, b))
        if not len(a) or not len(b):
            return Measured(None, note="no test image has this label")
        return _paired(a.correct, b.correct, note) if paired else _apart(a.correct, b.correct, note)
    if rule.metric in (*_SPECIAL, *_NO_RANKS, *run.own):
        raise InputError(
            f"rule {rule.text!r}: {rule.metric} cannot be compared with BASE; accuracy, recall[CLASS] and "
            "the metrics that are resampled can"
        )
    _check_known(rule, tuple(name for name in run.scores.overall if name not in _NO_RANKS))
    return _resampled_change(rule.metric, a, b, paired=paired, note=note)


def _sides(own: Predictions, base: BaseRun) -> tuple[Predictions, Predictions, str]:
    """The predictions to compare, of the base and of the run, and how, in words."""
    smaller = min(len(own), len(base.predictions))
    if 2 * len(base.own) < smaller:
        return base.predictions, own, f"two samples ({len(base.own)} of {smaller} images are in both)"
    b = _only(own, base.own)
    a = _only(base.predictions, base.rows)
    changed = int((a.labels != b.labels).sum())
    a = Predictions(a.logits, b.labels, a.class_names)
    more = f"; of {changed} the label changed, and the new one counts" if changed else ""
    return a, b, f"paired on {len(b)} shared images{more}"


def _only(predictions: Predictions, rows: np.ndarray) -> Predictions:
    return Predictions(predictions.logits[rows], predictions.labels[rows], predictions.class_names)


def _paired(before: np.ndarray, after: np.ndarray, note: str) -> Measured:
    n, gained, lost = len(after), int((after & ~before).sum()), int((before & ~after).sum())

    def interval(m: float) -> tuple[float, float]:
        low, high = paired_interval(gained * m / n, lost * m / n, m)
        return float(low), float(high)

    return Measured((gained - lost) / n, interval, n, note)


def _apart(before: np.ndarray, after: np.ndarray, note: str) -> Measured:
    shares, (n_a, n) = (float(before.mean()), float(after.mean())), (len(before), len(after))

    def interval(m: float) -> tuple[float, float]:
        return difference_interval(shares[0], n_a * m / n, shares[1], m)

    return Measured(shares[1] - shares[0], interval, n, note)


def _resampled_change(metric: str, a: Predictions, b: Predictions, *, paired: bool, note: str) -> Measured:
    before, after = _drawn(a, metric, seed=0), _drawn(b, metric, seed=0 if paired else 1)
    values = [_value(one, metric) for one in (a, b)]
    value, n = values[1] - values[0], len(b)
    gained = int((b.correct & ~a.correct).sum()) if paired else 0
    lost = int((a.correct & ~b.correct).sum()) if paired else 0
    few = gained + lost if paired else min(_fewest(a), _fewest(b))
    if few < FEWEST or not np.isfinite(value):
        what = "images that only one run gets right" if paired else "right and wrong images of each run"
        return Measured(
            value if np.isfinite(value) else None, images=n, note=f"{note}; {_too_few(what, few)}"
        )
    low, high = np.nanquantile(after - before, [0.025, 0.975])
    if paired:
        change = (gained - lost) / n
        half = Z_95 * ((gained + lost) / n - change**2) ** 0.5 / n**0.5
        ends = paired_interval(gained, lost, n)
        down, up = (max(1.0, float(abs(end - change)) / max(half, 1e-9)) for end in ends)
        if metric in LOWER_IS_BETTER:
            down, up = up, down
    else:
        down = up = max(*_stretch(int(a.correct.sum()), len(a)), *_stretch(int(b.correct.sum()), n))
    return Measured(
        value, _by_root(value, (value - low) * down, (high - value) * up, n), n, f"{note}, bootstrap"
    )


def _fewest(p: Predictions) -> int:
    return int(min(p.correct.sum(), (~p.correct).sum()))


def _drawn(predictions: Predictions, metric: str, *, seed: int) -> np.ndarray:
    return bootstrap(predictions, seed=seed, ranks=False)[metric]


def _value(predictions: Predictions, metric: str) -> float:
    return float(measured(predictions, np.ones((1, len(predictions)), np.float32), ranks=False)[metric][0])
