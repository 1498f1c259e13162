"""Findings as plain values: what `audit.json` holds and the report shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.audit.agreement import suspect_agreement
from sightline.audit.ambiguity import KINDS
from sightline.audit.calibration import calibration_error, calibration_floor, equal_mass, reliability
from sightline.audit.conformal import check_conformal
from sightline.audit.duplicates import accuracy_without
from sightline.audit.findings import Findings
from sightline.audit.selective import Rejection, augrc, aurc, risk_coverage
from sightline.audit.temperature import CrossFit
from sightline.predictions import Predictions, wilson_interval

if TYPE_CHECKING:
    import pandas as pd

WANTED_COVERAGES = (0.8, 0.9, 0.95)
_LISTED = 200  # rows of a list of images


def accuracy_facts(found: Findings) -> dict[str, Any]:
    """Accuracy, its interval, and that of the mean over the views if there are any."""
    p, views = found.evidence.predictions, found.evidence.views
    several = None
    if views is not None and len(views) > 1:
        right = views.mean(axis=0).argmax(axis=1) == p.labels
        several = {"name": f"{len(views)} views", "value": float(right.mean())}
    interval = wilson_interval(int(p.correct.sum()), len(p))
    return {"value": float(p.correct.mean()), "interval": interval, "n": len(p), "views": several}


def calibration_facts(p: Predictions, fitted: CrossFit) -> dict[str, Any]:
    """Calibration error, what of it is noise, what the temperature does, and the reliability diagram."""
    floor = calibration_floor(p.confidence)
    return {
        "ece": calibration_error(p.confidence, p.correct),
        "ece_mass": calibration_error(p.confidence, p.correct, binning=equal_mass),
        "floor": floor.mean,
        "floor_high": floor.high,
        "nll": fitted.nll,
        "temperature": fitted.temperature,
        "ece_after": fitted.ece_after,
        "nll_after": fitted.nll_after,
        "reliability": _rows(reliability(p.confidence, p.correct)),
    }


def selective_facts(p: Predictions, rejections: list[Rejection]) -> dict[str, Any]:
    """The risk-coverage curve, the areas under it, and the thresholds for wanted error rates."""
    curve = risk_coverage(p.confidence, p.correct, most=200)
    return {
        "aurc": aurc(p.confidence, p.correct),
        "augrc": augrc(p.confidence, p.correct),
        "curve": {name: curve[name].tolist() for name in ("coverage", "risk", "threshold")},
        "wanted": [asdict(one) for one in rejections],
    }


def difficulty_facts(found: Findings) -> dict[str, Any]:
    """How many images are ambiguous, hard but right, easy but wrong; the clearest of each, the bounds."""
    p, ambiguity, difficulty = found.evidence.predictions, found.spread["ambiguity"], found.difficulty
    clearest = dict(zip(KINDS, (-ambiguity.to_numpy(), p.confidence, -p.confidence), strict=True))
    kinds = []
    for kind, rank in clearest.items():
        rows = np.flatnonzero(difficulty.kinds == kind)
        ordered = rows[np.argsort(rank[rows], kind="stable")]
        wrong = int((~p.correct[rows]).sum())
        kinds.append({"kind": kind, "count": len(rows), "wrong": wrong, "images": ordered[:_LISTED].tolist()})
    bounds = {name: getattr(difficulty, name) for name in ("ambiguity_from", "hard_up_to", "easy_from")}
    return {"kinds": kinds, **bounds}


def conformal_facts(p: Predictions, seed: int) -> list[dict[str, Any]]:
    """Sets for wanted coverages, chosen on one half of the images and checked on the other."""
    checks = [
        check_conformal(p.labels, p.probabilities, coverage=coverage, seed=seed)
        for coverage in WANTED_COVERAGES
    ]
    return [{name: value for name, value in vars(one).items() if name != "per_class"} for one in checks]


def suspect_facts(found: Findings) -> dict[str, Any]:
    """The lists of suspicious labels of both splits, the most suspicious first."""
    train, folds = found.train_suspects, found.fold_suspects
    listed = train if train is not None else folds
    facts: dict[str, Any] = {
        "test": {
            "estimated": int(found.test_suspects["issue"].to_numpy().sum()),
            "top": _top(found.test_suspects),
        },
        "train": None,
    }
    if listed is None:
        return facts
    agreement = None
    if train is not None and folds is not None:
        top = max(1, int(train["issue"].to_numpy().sum()))
        agreed = suspect_agreement(train["suspicion"], folds["suspicion"], top=top)
        agreement = {**asdict(agreed), "both": agreed.both.tolist()}
    estimated = listed["posterior" if "posterior" in listed else "issue"].to_numpy().sum()
    facts["train"] = {
        "method": "area under the margin" if train is not None else "folds",
        "estimated": float(estimated) if estimated else None,  # no group of them stands out
        "top": _top(listed),
        "folds": None
        if folds is None
        else {"estimated": int(folds["issue"].to_numpy().sum()), "top": _top(folds)},
        "agreement": agreement,
    }
    return facts


def duplicate_facts(found: Findings) -> dict[str, Any]:
    """Pairs of near-duplicates, and the accuracy without the test images that have a twin in training."""
    duplicates, correct = found.duplicates, found.evidence.predictions.correct
    without = accuracy_without(duplicates.leaked, correct)
    return {
        "pairs": duplicates.pairs.head(_LISTED).to_dict("records"),
        "count": len(duplicates.pairs),
        "by_chance": duplicates.chance,
        "leaked": int(duplicates.leaked.sum()),
        "groups": duplicates.groups,
        "accuracy_without": {
            "value": without.value_without,
            "interval": without.interval_without,
            "n": without.n_without,
        },
    }


def slice_facts(found: Findings) -> list[dict[str, Any]]:
    """The confirmed slices, in the order of their p-values."""
    return [
        {
            "name": one.name,
            "size": len(one.rows),
            "error": one.error,
            "interval": one.interval,
            "rest": one.rest,
            "p": one.p,
            "evidence": one.evidence,
            "rows": one.rows[:_LISTED].tolist(),
            "shortcut": one.shortcut,
        }
        for one in found.slices
    ]


def robustness_facts(found: Findings) -> dict[str, Any] | None:
    """Errors under corruption, None where they were not measured."""
    table = found.evidence.robustness
    if table is None:
        return None
    rows = table.rows.rename(columns={"low": "interval_low", "high": "interval_high"})
    return {
        "clean": table.clean,
        "n": table.n,
        "rows": _rows(rows),
        "mean": table.mean,
        "increase": table.increase,
        "increase_interval": table.increase_interval,
    }


def budget_facts(found: Findings) -> dict[str, Any]:
    """The mistakes by cause, and how often each cause comes with another."""
    budget = found.budget
    causes = []
    for row in _rows(budget.table):
        beside = budget.overlaps[row["cause"]].to_dict()
        overlaps = {name: n for name, n in beside.items() if n and name != row["cause"]}
        causes.append({**row, "overlaps": overlaps})
    return {"mistakes": budget.mistakes, "causes": causes}


def confusion_facts(found: Findings) -> list[dict[str, Any]]:
    """Pairs of classes, the most frequent first."""
    return _rows(found.pairs.head(_LISTED))


def _listed(suspects: pd.DataFrame) -> dict[str, Any]:
    return {"estimated": int(suspects["issue"].to_numpy().sum()), "top": _top(suspects)}


def _top(suspects: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows flagged as issues, and at least the ten most suspicious."""
    ranked = suspects.sort_values("suspicion", ascending=False, kind="stable", na_position="last")
    ranked = ranked.sort_values("issue", ascending=False, kind="stable")
    return ranked.head(min(_LISTED, max(10, int(suspects["issue"].to_numpy().sum())))).to_dict("records")


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts, with the two ends of an interval as one entry."""
    rows: list[dict[str, Any]] = table.to_dict("records")  # pyright: ignore[reportAssignmentType]
    for row in rows:
        row["interval"] = [row.pop("interval_low"), row.pop("interval_high")]
    return rows
