"""How many labels are wrong, and which: read off where a witness that has not seen them is surest.

    witness = LinearWitness(features)                       # frozen features, (N, D)
    verdict = judge_labels(labels, [witness.unseen(labels, classes=10)])
    verdict.noise.share, verdict.flagged

A witness that contradicts a label is either wrong itself or right about a wrong label. The surer it is, the
rarer it is wrong itself; a wrong label does not become rarer with it. So the rate of contradiction falls with
sureness to a floor, and the floor is the share of wrong labels, as in the psychometric function with a lapse
rate (Wichmann & Hill 2001, "The psychometric function: I", eq. 1):

    P(the witness names the label | z) = (1 - share) * sigmoid(a + b z),   a <= 1, b >= 0.3,

z being how far the named class is ahead of the next one, in log-probability, which the label has no say in.
The bounds say that a witness which is torn between two classes is not right for sure, and that its mistakes
do become rarer: without them contradictions that have nothing to do with sureness, which is what wrong labels
look like, would be as good as mistakes. Share, a and b have the greatest likelihood; the interval of the
share is that of its profile. Where the rate of contradiction still falls
steeply among the surest images, there is no floor to read: the witness has not learnt enough to judge labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sightline.audit.inputs import best_other, labelled, of_label
from sightline.errors import InputError

_BINS = 60  # quantiles of sureness that the curve is fitted to
_FEWEST = 40  # images that a floor can be read from
_PROFILE = 3.841 / 2  # half of the 95 % quantile of chi-squared with one degree of freedom
_SHARES = np.concatenate([[0.0], np.geomspace(2e-4, 0.9, 36)])
_SURELY_WRONG = 0.005  # share of images on which witnesses were surely wrong on clean data: no noise below it
_STEEP, _CLEARLY_STEEP = 0.1, 0.2  # fall of the contradiction between the two surest quarters: no floor yet
_MOST, _MISTAKES = 0.5, 0.3  # wrong labels, and mistakes of a witness itself, beyond which it judges none
_TORN, _SLOWEST = 1.0, 0.3  # largest a and smallest b, see above
_LIKELY = 0.5  # probability of being wrong from which on a label is flagged
_STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # of the ridge penalty, times the mean variance that the features have


class LinearWitness:
    """A linear probe by least squares that judges each row by a fit without it, exactly, for any labels.

    The penalised fit is Y -> H Y with a matrix H of the features alone; without row i it gives row i
    (H Y - diag(H) Y) / (1 - diag(H)) (leave one out; Golub, Heath & Wahba 1979). Other labels cost one
    product, which is what makes it cheap to plant wrong ones and to look whether they are found.

    Args:
        features: (N, D), of a network that has not learnt from the labels that are judged.
    """

    def __init__(self, features: np.ndarray) -> None:
        if features.ndim != 2 or len(features) < 2:
            raise InputError(f"features are {features.shape}; a probe needs (N, D) of 2 images or more")
        self.mean, self.spread = features.mean(axis=0), features.std(axis=0)
        self.spread = np.where(self.spread > 0, self.spread, 1.0)
        rows = self._scaled(features)  # (N, D)
        wide = rows.shape[1] > len(rows)
        values, vectors = np.linalg.eigh((rows @ rows.T if wide else rows.T @ rows).astype(np.float64))
        kept = values > 1e-6 * max(values[-1], 1e-12)
        self.variance = values[kept]  # (R,)
        roots = np.sqrt(self.variance)
        if wide:
            self.left = vectors[:, kept].astype(np.float32)  # (N, R)
            self.right = (rows.T @ self.left / roots).astype(np.float32)  # (D, R)
        else:
            self.right = vectors[:, kept].astype(np.float32)
            self.left = (rows @ self.right / roots).astype(np.float32)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return ((features - self.mean) / self.spread).astype(np.float32)

    @cached_property
    def _shrinks(self) -> list[np.ndarray]:
        mean = self.variance.sum() / max(len(self.variance), 1)
        return [self.variance / (self.variance + strength * mean) for strength in _STRENGTHS]

    @cached_property
    def _leverages(self) -> list[np.ndarray]:
        square = self.left**2
        return [
            np.minimum(square @ shrink.astype(np.float32) + 1 / len(square), 0.999)
            for shrink in self._shrinks
        ]

    def unseen(self, labels: np.ndarray, *, classes: int) -> np.ndarray:
        """Return the probabilities (N, C) of each row by the fit without it."""
        return self._fit(labels, classes)[0]

    def predict(self, labels: np.ndarray, features: np.ndarray, *, classes: int) -> np.ndarray:
        """Return the probabilities (M, C) of other images by the fit to all rows, whose labels are given."""
        _, strength, temperature = self._fit(labels, classes)
        targets = np.eye(classes, dtype=np.float32)[labels]
        inner = self.left.T @ (targets - targets.mean(axis=0))  # (R, C)
        weights = self.right @ ((self._shrinks[strength] / np.sqrt(self.variance))[:, None] * inner)
        return _softmax(temperature * (self._scaled(features) @ weights + targets.mean(axis=0)))

    def _fit(self, labels: np.ndarray, classes: int) -> tuple[np.ndarray, int, float]:
        """Probabilities without the row, which strength gave the best, and the temperature's inverse."""
        targets = np.eye(classes, dtype=np.float32)[labels]
        mean = targets.mean(axis=0)
        inner = self.left.T @ (targets - mean)  # (R, C)
        best = (-1.0, 0, np.zeros(0))
        for number, (shrink, leverage) in enumerate(zip(self._shrinks, self._leverages, strict=True)):
            fitted = self.left @ (shrink.astype(np.float32)[:, None] * inner) + mean
            scores = (fitted - leverage[:, None] * targets) / (1 - leverage[:, None])
            right = float((scores.argmax(axis=1) == labels).mean())
            if right > best[0]:
                best = (right, number, scores)
        temperature = _inverse_temperature(best[2], labels)
        return _softmax(temperature * best[2]), best[1], temperature


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _inverse_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The factor of the scores with the smallest cross-entropy, of 30 from 1 to 60."""
    factors = np.geomspace(1, 60, 30)
    losses = [-np.log(of_label(labels, _softmax(one * scores)) + 1e-12).mean() for one in factors]
    return float(factors[int(np.argmin(losses))])


@dataclass(frozen=True, eq=False)
class Noise:
    """The share of wrong labels that a witness's contradictions show.

    Attributes:
        share: Of the greatest likelihood.
        interval: Of `share`, 95 %, with half a point less at the lower end for what a witness is surely
            wrong about.
        learnt: Whether there is a floor to read; without it nothing is claimed.
        probability: (N,) that the label is wrong, 0 where the witness names it.
        low: (N,) the same with the lower end of the interval.
        high: (N,) the same with the upper end.
    """

    share: float
    interval: tuple[float, float]
    learnt: bool
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray


def measure_noise(sureness: np.ndarray, contradicted: np.ndarray, *, interval: bool = True) -> Noise:
    """Return the share of wrong labels, and of each contradicted label how probably it is one.

    Args:
        sureness: (N,) how far the witness's first class is ahead of its second, larger is surer. It must not
            depend on the label.
        contradicted: (N,) bool, the witness names another class than the label.
        interval: False leaves out the profile, and gives the share alone as its ends.
    """
    sureness, contradicted = np.asarray(sureness, float), np.asarray(contradicted, bool)
    nothing = np.zeros(len(sureness))
    if len(sureness) < _FEWEST or np.ptp(sureness) == 0:
        return Noise(0.0, (0.0, 1.0), False, nothing, nothing, nothing)
    curve = _Curve(sureness, contradicted)
    if not _has_floor(sureness, contradicted):
        return Noise(0.0, (0.0, float(contradicted.mean())), False, nothing, nothing, nothing)
    share, slope = curve.best()
    mistakes = (contradicted.mean() - share) / max(1 - share, 1e-9)  # of the witness, on right labels
    if share > _MOST or mistakes > _MISTAKES:
        return Noise(0.0, (0.0, float(contradicted.mean())), False, nothing, nothing, nothing)
    low, high = curve.interval(share) if interval else (share, share)
    low = max(0.0, low - _SURELY_WRONG) if interval else low
    ends = [np.where(contradicted, curve.probability(one, slope), 0.0) for one in (share, low, high)]
    return Noise(share, (low, high), True, *ends)


def _has_floor(sureness: np.ndarray, contradicted: np.ndarray) -> bool:
    """Whether the surest quarter is contradicted about as often as the next one, as a floor has it.

    The difference is a share of the labels that the witness agrees with: with many wrong labels all of it is
    smaller.
    """
    quarter = len(sureness) // 4
    order = np.argsort(-sureness, kind="stable")
    first, second = (float(contradicted[order[k * quarter : (k + 1) * quarter]].mean()) for k in (0, 1))
    fall = (second - first) / max(1 - first, 1e-9)
    error = np.sqrt((first * (1 - first) + second * (1 - second)) / quarter) / max(1 - first, 1e-9)
    return fall <= _CLEARLY_STEEP and fall - 1.645 * error <= _STEEP and first < 0.75


class _Curve:
    """Contradictions by quantiles of sureness, and the likelihood of the curve with a floor."""

    def __init__(self, sureness: np.ndarray, contradicted: np.ndarray) -> None:
        bins = np.array_split(np.argsort(sureness, kind="stable"), min(_BINS, len(sureness) // 10))
        self.count = np.array([len(one) for one in bins], float)
        self.against = np.array([contradicted[one].sum() for one in bins], float)
        middle = np.array([sureness[one].mean() for one in bins])
        self.scale = middle.std() or 1.0
        self.middle, self.sureness = middle / self.scale, sureness / self.scale
        least = float(np.log(_SLOWEST * self.scale))
        self.bounds = ((-30.0, _TORN), (least, max(least, 0.0) + 4.0), (-14.0, 3.0))

    def best(self) -> tuple[float, np.ndarray]:
        """The share and the (a, log b) of the greatest likelihood."""
        from scipy.optimize import minimize

        if not self.against.any():
            return 0.0, np.array([5.0, 0.0])
        steep = max(0.5, self.bounds[1][0])
        starts = [(0.0, steep, -3.0), (1.0, steep, -1.0), (0.0, steep, -7.0)]
        fits = [minimize(self._loss, one, jac=True, method="L-BFGS-B", bounds=self.bounds) for one in starts]
        found = min(fits, key=lambda fit: fit.fun)
        share, none = float(_sigmoid(found.x[2])), self._fitted(0.0, found.x[:2])
        if none[0] <= found.fun + 1e-6:  # as likely without a floor
            return 0.0, none[1]
        return share, found.x[:2]

    def interval(self, share: float) -> tuple[float, float]:
        """Shares whose likelihood, with the best slope for each, is not far below that of `share`."""
        losses = np.empty(len(_SHARES))
        start = np.array([0.0, max(0.5, self.bounds[1][0])])
        for number, one in enumerate(_SHARES):
            losses[number], start = self._fitted(one, start)
        best = min(losses.min(), self._fitted(share, start)[0])
        near = [int(np.searchsorted(_SHARES, share)) - 1, int(np.searchsorted(_SHARES, share))]
        inside = np.unique([*np.flatnonzero(losses - best <= _PROFILE), *np.clip(near, 0, len(_SHARES) - 1)])
        # One step further on the grid on either side, lest a coarse grid makes the interval too narrow.
        low, high = max(inside[0] - 1, 0), min(inside[-1] + 1, len(_SHARES) - 1)
        return float(min(_SHARES[low], share)), float(max(_SHARES[high], share))

    def probability(self, share: float, slope: np.ndarray) -> np.ndarray:
        """That a contradicted label is wrong, at each image's sureness, (N,)."""
        knows = _sigmoid(slope[0] + np.exp(slope[1]) * self.sureness)
        return share / np.maximum(share + (1 - share) * (1 - knows), 1e-12)

    def _fitted(self, share: float, start: np.ndarray) -> tuple[float, np.ndarray]:
        from scipy.optimize import minimize

        where = float(np.log(max(share, 1e-12) / (1 - min(share, 1 - 1e-9))))

        def loss(pair: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self._loss(np.array([*pair, where]))
            return value, gradient[:2]

        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=self.bounds[:2])
        return float(found.fun), found.x

    def _loss(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log-likelihood at (a, log b, logit share), and its gradient."""
        steep, share = np.exp(values[1]), _sigmoid(values[2])
        knows = _sigmoid(values[0] + steep * self.middle)
        agree = np.clip((1 - share) * knows, 1e-12, 1 - 1e-12)
        loss = -((self.count - self.against) * np.log(agree) + self.against * np.log(1 - agree)).sum()
        outer = -((self.count - self.against) / agree - self.against / (1 - agree))
        inner = outer * (1 - share) * knows * (1 - knows)
        by_share = -(outer * knows).sum() * share * (1 - share)
        return loss, np.array([inner.sum(), (inner * steep * self.middle).sum(), by_share])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -50, 50)))


@dataclass(frozen=True, eq=False)
class Verdict:
    """What witnesses say of labels.

    Attributes:
        noise: By all witnesses together.
        suggested: (N,) the class that they name, the best other one where they name the label.
        margin: (N,) log-probability of the label minus that of the best other class, low is doubtful.
        flagged: (N,) bool: each witness by itself contradicts the label, and it is wrong with a probability
            of more than 1/2.
    """

    noise: Noise
    suggested: np.ndarray
    margin: np.ndarray
    flagged: np.ndarray


def judge_labels(
    labels: np.ndarray,
    witnesses: Sequence[np.ndarray],
    *,
    aside: np.ndarray | None = None,
    interval: bool = True,
) -> Verdict:
    """Return what witnesses say that have not learnt from these labels.

    Args:
        labels: (N,) classes.
        witnesses: (N, C) probabilities of each; together they are the mean of their logarithms.
        aside: (N,) bool, images whose contradiction has another reason, a confirmed shortcut say: they are
            not counted and not flagged.
        interval: As of `measure_noise`.

    Raises:
        InputError: No witness, or shapes that do not fit.
    """
    if not witnesses:
        raise InputError("there is no witness; probabilities of at least one are needed")
    tables = [labelled(labels, one)[1] for one in witnesses]
    labels, together = labelled(labels, _pooled(tables))
    count, classes = together.shape
    suggested = best_other(labels, together)
    if classes == 1:
        unknown = measure_noise(np.zeros(count), np.zeros(count, bool))
        return Verdict(unknown, suggested, np.zeros(count), np.zeros(count, bool))
    logs = np.log(np.maximum(together, 1e-12))
    margin = of_label(labels, logs) - logs[np.arange(count), suggested]
    ahead = np.sort(np.partition(logs, -2, axis=1)[:, -2:], axis=1)
    sureness, contradicted = ahead[:, 1] - ahead[:, 0], together.argmax(axis=1) != labels
    kept = np.ones(count, bool) if aside is None else ~np.asarray(aside, bool)
    part = measure_noise(sureness[kept], contradicted[kept], interval=interval)
    ends = [np.zeros(count) for _ in range(3)]
    for whole, some in zip(ends, (part.probability, part.low, part.high), strict=True):
        whole[kept] = some
    noise = Noise(part.share, part.interval, part.learnt, *ends)
    each = np.all([one.argmax(axis=1) == suggested for one in tables], axis=0)
    return Verdict(noise, suggested, margin, (noise.probability > _LIKELY) & each & contradicted)


def _pooled(tables: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the logarithms, as probabilities, (N, C)."""
    if len(tables) == 1:
        return tables[0]
    if len({one.shape for one in tables}) > 1:
        raise InputError(f"the witnesses are {[one.shape for one in tables]}; all need the same (N, C)")
    return _softmax(np.mean([np.log(np.maximum(one, 1e-12)) for one in tables], axis=0))


@dataclass(frozen=True)
class LowerGroup:
    """Images whose margins stand apart below those of all others.

    Attributes:
        below: Margin under which they lie, at most 0.
        others: How many of those under it may belong to the others all the same: as if these were as dense
            all the way down as they are in the gap.
    """

    below: float
    others: float


def find_lower_group(margins: np.ndarray) -> LowerGroup | None:
    """Look for a second hump below the margins of most images, with a gap between the two; None without.

    The margins of labels that fit thin out steadily below their middle, however skewed they are. Where fewer
    lie in a stretch than in an equal one further down, by half and by three standard errors, another kind of
    images begins: labels that training never came to believe.

    Args:
        margins: (N,) mean margin of each label over the epochs; NaN where an image was not trained on.
    """
    seen = margins[~np.isnan(margins)]
    if len(seen) < _FEWEST or np.ptp(seen) == 0:
        return None
    middle = float(np.median(seen))
    step = float(np.subtract(*np.quantile(seen, [0.75, 0.25]))) / 2
    if middle <= 0 or step <= 0:
        return None  # not even the middle image is believed
    edges = np.arange(middle, seen.min() - 2 * step, -step / 4)[::-1]
    count = np.histogram(seen, edges)[0][::-1]  # from the middle down
    stretch = np.convolve(count, np.ones(4), "valid")  # of a step each
    fewest, found = np.inf, None
    for gap in range(4, len(stretch) - 4):
        further = stretch[gap + 4 :]
        if not len(further) or middle - (gap + 2) * step / 4 < -middle / 2:
            break  # a gap further out is one between stragglers
        hump = float(further.max())
        apart = (hump - stretch[gap]) / np.sqrt(hump + stretch[gap] + 1)
        if hump >= 2 * stretch[gap] and apart > 3 and stretch[gap] < fewest:
            fewest, found = stretch[gap], gap
    if found is None:
        return None
    below = min(0.0, middle - (found + 2) * step / 4)
    lowest = float(np.quantile(seen[seen < below], 0.02)) if (seen < below).any() else below
    return LowerGroup(below, float(stretch[found] * (below - lowest) / step))
