"""What an audit says of labels: who contradicts them, which are flagged, and how far that is to be believed.

A list of doubtful labels is ranked always, and flags only what is earned. In the test split two witnesses
have to contradict a label: the model, and a probe on features that have not learnt from these labels. In
training a probe judges each label by a fit without it; the course of training ranks the list where it was
kept. What share of the flagged labels is wrong is read off by `label_noise`, or measured: `plant_labels`
plants wrong ones among the very labels of the run and looks how many come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sightline import logs
from sightline.audit.inputs import Evidence, best_other
from sightline.audit.label_issues import issue_table, normalized_margin
from sightline.audit.label_noise import LinearWitness, Verdict, find_lower_group, judge_labels
from sightline.audit.result import (
    Estimate,
    IssueClaim,
    IssueMethod,
    LabelIssue,
    LabelIssueList,
    PlantedCheck,
)
from sightline.audit.training_dynamics import area_under_margin
from sightline.stats import wilson_interval

if TYPE_CHECKING:
    import pandas as pd

_LISTED, _AT_LEAST = 200, 10  # rows of a list of images
_SHORT = 10  # epochs up to which a network has hardly learnt wrong labels by heart
_ROUNDS, _FEWEST, _LEAST, _MOST = 10, 5, 0.01, 0.1  # of planting: how often, and the share at a time
_READ = 0.25  # lower end of a precision up to which there may be no wrong labels at all
_FROZEN = "a probe on frozen features"
_OWN = "a probe on the network's own features, without the image"
_FOLDS = "fits that have not seen the image"

Judge = Callable[[np.ndarray, bool], Verdict]
"""Labels (N,), and whether intervals are wanted, to what the same witnesses say of them."""


@dataclass(frozen=True, eq=False)
class JudgedLabels:
    """The labels of one split, judged.

    Attributes:
        table: index, label, suggested, label_quality, flagged; a row for each image in data order.
        method: What ranks them.
        claim: What may be said of the flagged ones.
        precision: Share of the flagged labels that is wrong.
        witnesses: In words.
        judge: The same for other labels; None without witnesses to ask again.
        planted: Of `plant_labels`.
    """

    table: pd.DataFrame
    method: IssueMethod
    claim: IssueClaim
    precision: Estimate | None = None
    witnesses: tuple[str, ...] = ()
    judge: Judge | None = field(default=None, repr=False)
    planted: PlantedCheck | None = None

    @property
    def flagged(self) -> np.ndarray:
        """The flagged images, (N,) bool."""
        return self.table["flagged"].to_numpy(bool)

    def describe(self) -> LabelIssueList:
        """Return the flagged rows, and at least the ten of the lowest quality, for the audit's result."""
        count = int(self.flagged.sum())
        ranked = self.table.sort_values("label_quality", kind="stable", na_position="last")
        ranked = ranked.sort_values("flagged", ascending=False, kind="stable")
        rows = tuple(
            LabelIssue(
                index=row["index"],
                label=row["label"],
                suggested=row["suggested"],
                label_quality=None if np.isnan(row["label_quality"]) else row["label_quality"],
                flagged=row["flagged"],
            )
            for row in ranked.head(min(_LISTED, max(_AT_LEAST, count))).to_dict("records")
        )
        estimated = None if self.precision is None else self.precision.value * count
        return LabelIssueList(
            method=self.method,
            flagged=count,
            estimated=estimated,
            rows=rows,
            claim=self.claim,
            precision=self.precision,
            witnesses=self.witnesses,
            planted=self.planted,
        )


@logs.stage("audit: labels of the test images")
def judge_test_labels(evidence: Evidence, *, aside: np.ndarray | None = None) -> JudgedLabels:
    """Judge the labels of the test split by the model and, where there are frozen features, a probe on them.

    With the model alone nothing is flagged: its confident contradiction is what a hard image and a shortcut
    look like too.

    Args:
        evidence: Other runs in it are one more witness, but they have learnt what the model has.
        aside: (N,) bool, images of a confirmed shortcut: nothing is said of their labels.
    """
    p = evidence.predictions
    fixed = [p.probabilities]
    words = ["the model"]
    if evidence.others is not None:
        fixed.append(evidence.others.mean(axis=0))
        words.append("other runs")
    if evidence.frozen is not None:
        words.append(_FROZEN)
    if len(words) == 1 or len(p.class_names) == 1:
        quality = normalized_margin(p.labels, p.probabilities) if len(p.class_names) > 1 else np.ones(len(p))
        table = issue_table(p.labels, best_other(p.labels, p.probabilities), quality, np.zeros(len(p), bool))
        return JudgedLabels(table, IssueMethod.CONFIDENT_LEARNING, IssueClaim.ONE_WITNESS, None, tuple(words))
    probe = _test_probe(evidence)

    def judge(labels: np.ndarray, interval: bool) -> Verdict:
        witnesses = fixed if probe is None else [*fixed, probe(labels)]
        return judge_labels(labels, witnesses, aside=aside, interval=interval)

    verdict = judge(p.labels, True)
    table = issue_table(p.labels, verdict.suggested, _quality(verdict.margin), verdict.flagged)
    method = IssueMethod.CONFIDENT_LEARNING if probe is None else IssueMethod.WITNESSES
    judged = _claimed(table, method, verdict, tuple(words), judge)
    if probe is None and judged.claim is IssueClaim.WRONG:
        return replace(judged, claim=IssueClaim.LOOK)
    return judged


def _test_probe(evidence: Evidence) -> Callable[[np.ndarray], np.ndarray] | None:
    """Test labels to the probabilities (N, C) of a probe: fitted to training, or to the other test images."""
    frozen, classes = evidence.frozen, len(evidence.predictions.class_names)
    if frozen is None or len(frozen) < 2:
        return None
    train = evidence.train_frozen
    if train is not None and evidence.data is not None and len(train) > 1:
        answers = LinearWitness(train).predict(evidence.data.train.labels, frozen, classes=classes)
        return lambda labels: answers
    witness = LinearWitness(frozen)
    return lambda labels: witness.unseen(labels, classes=classes)


@logs.stage("audit: labels of the training images")
def judge_train_labels(evidence: Evidence) -> JudgedLabels | None:
    """Judge the training labels; None without a training split, or with nothing to judge it by.

    The witness is the best that there is: fits without the image that came with the evidence, a probe on
    frozen features, a probe on the network's own. Where the training dynamics were kept, they rank.
    """
    data = evidence.data
    if data is None or len(data.train) < 2:
        return None
    labels, classes = data.train.labels, data.num_classes
    judge, words = _train_judge(evidence)
    if judge is None and evidence.dynamics is None:
        return None
    verdict = None if judge is None or classes == 1 else judge(labels, True)
    ranked = None if evidence.dynamics is None else _margin_of_training(evidence)
    if verdict is None:
        if ranked is None:
            return None
        rival = labels if evidence.train is None else best_other(labels, evidence.train.probabilities)
        table = issue_table(labels, rival, ranked, np.zeros(len(labels), bool))
        return JudgedLabels(table, IssueMethod.MARGIN, IssueClaim.LOOK)
    quality = _quality(verdict.margin) if ranked is None else ranked
    seen = ~np.isnan(quality)
    table = issue_table(labels, verdict.suggested, quality, verdict.flagged & seen)
    folds = IssueMethod.FOLDS if evidence.out_of_fold is not None else IssueMethod.PROBE
    judged = _claimed(table, folds if ranked is None else IssueMethod.MARGIN, verdict, (words,), judge)
    return _never_believed(evidence, judged, verdict) if words == _OWN else judged


def _never_believed(evidence: Evidence, judged: JudgedLabels, verdict: Verdict) -> JudgedLabels:
    """Flag the labels that training never came to believe, if they are a group apart and more than these.

    A network's own features have learnt some of the wrong labels, so that a probe on them finds few; the
    margins in training still tell. The probe has to have learnt enough, and to contradict each.
    """
    if evidence.dynamics is None or not verdict.noise.learnt:
        return judged
    margins = area_under_margin(evidence.dynamics.margin)
    group = find_lower_group(margins)
    if group is None:
        return judged
    flagged = (np.nan_to_num(margins, nan=np.inf) < group.below) & (verdict.margin < 0)
    count = int(flagged.sum())
    if count <= judged.flagged.sum():
        return judged
    bound = min(1.0, group.others / count)
    low, high = wilson_interval(round((1 - bound) * count), count)[0], wilson_interval(count, count)[1]
    precision = Estimate(1 - bound / 2, (low, high))
    claim = IssueClaim.WRONG if low > 0.5 else IssueClaim.LOOK
    words = (*judged.witnesses, "the margins in training")
    table = judged.table.assign(flagged=flagged)
    return JudgedLabels(table, judged.method, claim, precision, words)


def judge_by_folds(evidence: Evidence) -> JudgedLabels | None:
    """Judge the training labels by the fits of the evidence that had not seen them; None without any."""
    given, data = evidence.out_of_fold, evidence.data
    if given is None or data is None or not len(data.train) or data.num_classes == 1:
        return None

    def judge(labels: np.ndarray, interval: bool) -> Verdict:
        return judge_labels(labels, [given], interval=interval)

    labels = data.train.labels
    verdict = judge(labels, True)
    table = issue_table(labels, verdict.suggested, normalized_margin(labels, given), verdict.flagged)
    return _claimed(table, IssueMethod.FOLDS, verdict, (_FOLDS,), judge)


def _train_judge(evidence: Evidence) -> tuple[Judge | None, str]:
    """The best witness of the training labels, and who it is."""
    if evidence.train_frozen is not None:
        features, words = evidence.train_frozen, _FROZEN
    elif evidence.out_of_fold is not None:
        given = evidence.out_of_fold
        return lambda labels, interval: judge_labels(labels, [given], interval=interval), _FOLDS
    elif evidence.train_features is not None:
        features, words = evidence.train_features, _OWN
    else:
        return None, ""
    witness, classes = LinearWitness(features), len(evidence.predictions.class_names)

    def judge(labels: np.ndarray, interval: bool) -> Verdict:
        return judge_labels(labels, [witness.unseen(labels, classes=classes)], interval=interval)

    return judge, words


def _margin_of_training(evidence: Evidence) -> np.ndarray:
    """Label quality (N,) by the margins in training, and of the final model after a few epochs only.

    A network that trains for long learns wrong labels by heart at the end; then all epochs count alike.
    """
    assert evidence.dynamics is not None
    assert evidence.data is not None
    margins = evidence.dynamics.margin
    if len(margins) > _SHORT or evidence.train is None:
        return _quality(area_under_margin(margins))
    labels, logits = evidence.data.train.labels, np.asarray(evidence.train.logits, float)
    rows = np.arange(len(labels))
    final = logits[rows, labels] - logits[rows, best_other(labels, logits)]
    return _quality((area_under_margin(margins[-2:]) + final) / 2)


def _quality(margin: np.ndarray) -> np.ndarray:
    """The share that the label gets of the label and its rival, in [0, 1]."""
    return 1 / (1 + np.exp(-np.clip(margin, -700, 700)))


def _claimed(
    table: pd.DataFrame, method: IssueMethod, verdict: Verdict, words: tuple[str, ...], judge: Judge | None
) -> JudgedLabels:
    """The judged labels with what may be said of the flagged ones."""
    flagged = table["flagged"].to_numpy(bool)
    precision = _precision(verdict, flagged)
    if not verdict.noise.learnt:
        claim = IssueClaim.NOT_LEARNT
    elif precision is None:
        claim = IssueClaim.NOTHING
    else:
        claim = IssueClaim.WRONG if precision.interval[0] > 0.5 else IssueClaim.LOOK
    return JudgedLabels(table, method, claim, precision, words, judge)


def _precision(verdict: Verdict, flagged: np.ndarray) -> Estimate | None:
    """The share of the flagged labels that is wrong, widened by how few they are."""
    count = int(flagged.sum())
    if not count:
        return None
    noise = verdict.noise
    value, low, high = (float(one[flagged].mean()) for one in (noise.probability, noise.low, noise.high))
    lowest, highest = (
        wilson_interval(round(low * count), count)[0],
        wilson_interval(round(high * count), count)[1],
    )
    return Estimate(value, (min(lowest, value), max(highest, value)))


@logs.stage("audit: planting wrong labels")
def plant_labels(judged: JudgedLabels, *, classes: int, rounds: int = _ROUNDS, seed: int = 0) -> JudgedLabels:
    """Plant wrong labels among those that are judged, and measure how many the same witnesses flag.

    In each round as large a share as is estimated to be wrong (1 to 10 %) gets a wrong label, half of them
    any other class and half the class that the witnesses hold next probable. Labels that are flagged with
    nothing planted are left out: whether they are wrong is the question.

    Args:
        judged: Of `judge_test_labels` or `judge_train_labels`, with witnesses that can be asked again.
        classes: C.
        rounds: How often.
        seed: Of what is planted.

    Returns:
        The same with `planted`. What was found counts every other label as right, so that its precision is
            a lower end: it raises that of the claim's precision where a share of wrong labels can be
            read at all.
    """
    if judged.judge is None or classes < 2:
        return judged
    labels, before = judged.table["label"].to_numpy(), judged.flagged
    suggested = judged.table["suggested"].to_numpy()
    free = np.flatnonzero(~before)
    share = float(np.clip(before.mean(), _LEAST, _MOST))
    count = min(max(_FEWEST, round(share * len(labels))), len(free) // 2)
    if not count:
        return judged
    rng = np.random.default_rng(seed)
    totals = np.zeros(3, int)  # planted, listed, found
    for _ in range(rounds):
        rows = rng.choice(free, count, replace=False)
        made = labels.copy()
        made[rows] = (labels[rows] + rng.integers(1, classes, count)) % classes
        near = rows[: count // 2]
        made[near] = np.where(suggested[near] != labels[near], suggested[near], made[near])
        listed = judged.judge(made, False).flagged & ~before
        totals += count, int(listed.sum()), int(listed[rows].sum())
    planted, listed, found = map(int, totals)
    precision = Estimate(found / listed, wilson_interval(found, listed)) if listed else None
    recall = Estimate(found / planted, wilson_interval(found, planted))
    check = PlantedCheck(count / len(labels), rounds, planted, listed, found, precision, recall)
    said = judged.precision
    if said is None or precision is None or said.interval[0] <= _READ:
        return replace(judged, planted=check)
    low = min(max(said.interval[0], precision.interval[0]), said.value)
    claim = IssueClaim.WRONG if low > 0.5 else IssueClaim.LOOK
    return replace(
        judged, planted=check, precision=replace(said, interval=(low, said.interval[1])), claim=claim
    )
