"""What follows from the findings: warnings for whoever reads only the top, and the ranked fixes."""

from __future__ import annotations

import numpy as np

from sightline.audit.calibration import calibration_error, calibration_floor
from sightline.audit.findings import Findings
from sightline.audit.fixes import Fix, rank_fixes
from sightline.audit.remedies import (
    collect_for_pair,
    collect_for_slice,
    drop_copies,
    drop_twins,
    relabel_test,
    relabel_train,
    use_temperature,
    use_threshold,
)
from sightline.audit.selective import Rejection
from sightline.audit.temperature import CrossFit

_PAIRS = 3  # confused pairs that become a fix of their own


def fixes(found: Findings, fitted: CrossFit | None, rejections: list[Rejection]) -> list[Fix]:
    """Return the actions in the order to do them."""
    p, data = found.evidence.predictions, found.evidence.data
    listed = found.train_suspects if found.train_suspects is not None else found.fold_suspects
    wanted: list[Fix | None] = [
        relabel_test(found.test_suspects, p.correct),
        drop_twins(p.correct, found.duplicates.leaked),
        drop_copies(_copies(found), total=len(data.train)),
        *_slices(found),
        *_pairs(found),
    ]
    if listed is not None:
        means = "their margin stayed negative in training"
        folds = "models that had not seen them name another class"
        wanted.append(relabel_train(listed, evidence=means if found.train_suspects is not None else folds))
    if fitted is not None:
        wanted.append(use_temperature(fitted))
    helpful = [one for one in rejections if one.error < 1 - p.correct.mean()]
    if helpful:  # the least strict: it leaves most images answered
        wanted.append(use_threshold(helpful[-1], p.correct))
    return rank_fixes(wanted, {"train": len(data.train), "test": len(data.test)})


def warnings(found: Findings) -> list[str]:
    """Return sentences about what makes the numbers of this page mean less than they seem to."""
    p, said = found.evidence.predictions, []
    leaked = int(found.duplicates.leaked.sum())
    if leaked:
        share = leaked / len(p)
        said.append(
            f"{leaked} test images ({100 * share:.1f} %) have a near-duplicate in the training split: "
            "the accuracy is partly memory."
        )
    error, floor = calibration_error(p.confidence, p.correct), calibration_floor(p.confidence)
    if error > floor.high:
        gap = p.confidence.mean() - p.correct.mean()
        side = "more" if gap > 0 else "less"
        said.append(
            f"Confidence is {side} than it should be: calibration error {100 * error:.1f} %, "
            f"where chance alone would show up to {100 * floor.high:.1f} %."
        )
    said += [f"A shortcut: {one.name}: {one.evidence}." for one in found.slices if one.shortcut]
    return said


def _copies(found: Findings) -> np.ndarray:
    """All training images but the first of each group of near-duplicates."""
    groups = found.duplicates.train_groups
    members = np.flatnonzero(groups >= 0)
    _, first = np.unique(groups[members], return_index=True)
    return np.delete(members, first)


def _slices(found: Findings) -> list[Fix]:
    wrong = ~found.evidence.predictions.correct
    return [
        collect_for_slice(
            one.name,
            one.rows,
            wrong=int(wrong[one.rows].sum()),
            rest=one.rest,
            total=len(wrong),
            evidence=one.evidence,
            shortcut=one.shortcut,
        )
        for one in found.slices
    ]


def _pairs(found: Findings) -> list[Fix]:
    p, pairs = found.evidence.predictions, found.pairs
    frequent = found.causes["confused pair"]
    made = []
    for row, (true, predicted) in enumerate(zip(pairs["true"], pairs["predicted"], strict=True)):
        images = np.flatnonzero(frequent & (p.labels == true) & (p.predicted == predicted))
        if len(images):
            made.append(collect_for_pair(pairs, row, p.class_names, images=images, total=len(p)))
    return made[:_PAIRS]
