"""Every part of the audit that the evidence allows, run once, before anything is written up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sightline.audit.ambiguity import Difficulty, sort_by_difficulty, view_spread
from sightline.audit.arrays import best_other
from sightline.audit.attributes import evidence_attributes, image_attributes
from sightline.audit.budget import CAUSES, ErrorBudget, error_budget
from sightline.audit.conditions import attribute_conditions, class_conditions, cluster_conditions
from sightline.audit.conformal import conformal_sets, conformal_threshold
from sightline.audit.confusions import confusion_pairs, frequent_pairs
from sightline.audit.duplicates import Duplicates, near_duplicates
from sightline.audit.dynamics import area_under_margin, cartography
from sightline.audit.evidence import Evidence
from sightline.audit.naming import Slice
from sightline.audit.neighbours import Neighbours, nearest_neighbours
from sightline.audit.slices import find_slices
from sightline.audit.suspects import label_suspects, noise_rate_pruning
from sightline.audit.training_suspects import suspects_from_dynamics

COVERAGE = 0.9  # of the conformal sets whose size each image gets
_AT_ONCE = 1000  # test images whose attributes are taken together


@dataclass(frozen=True, eq=False)
class Findings:
    """What the parts found.

    spread: `view_spread` of the test images. test_suspects, train_suspects, fold_suspects: tables of
    suspects; those of training by its dynamics and by folds, None where there are neither. causes: name ->
    (N,) bool, see `CAUSES`. neighbours: of the mistakes `neighbour_rows` (M,) in training. set_sizes: (N,).
    """

    evidence: Evidence
    pairs: pd.DataFrame
    spread: pd.DataFrame
    difficulty: Difficulty
    test_suspects: pd.DataFrame
    train_suspects: pd.DataFrame | None
    fold_suspects: pd.DataFrame | None
    duplicates: Duplicates
    slices: list[Slice]
    causes: dict[str, np.ndarray]
    budget: ErrorBudget
    neighbour_rows: np.ndarray
    neighbours: Neighbours | None
    set_sizes: np.ndarray


def find_all(evidence: Evidence) -> Findings:
    """Run the parts in turn."""
    p, data = evidence.predictions, evidence.data
    seen = [p.probabilities[None] if evidence.views is None else evidence.views]
    spread = view_spread(np.concatenate(seen if evidence.others is None else [*seen, evidence.others]))
    difficulty = sort_by_difficulty(spread["ambiguity"], p.confidence, p.correct)
    suspects = label_suspects(p.labels, p.probabilities)
    features = None
    if evidence.features is not None and evidence.train_features is not None:
        features = evidence.train_features, evidence.features
    duplicates = near_duplicates(data.train, data.test, features=features, seed=evidence.seed)
    pairs = confusion_pairs(p)
    slices = _slices(evidence)
    in_shortcut = np.zeros(len(p), bool)
    for one in slices:
        in_shortcut[one.rows] |= one.shortcut
    causes = {
        "label suspect": suspects["issue"].to_numpy(bool),
        "leaked twin": duplicates.leaked,
        "shortcut": in_shortcut,
        "ambiguous": difficulty.ambiguous,
        "confused pair": frequent_pairs(p, pairs),
    }
    rows = np.flatnonzero(~p.correct)
    return Findings(
        evidence=evidence,
        pairs=pairs,
        spread=spread,
        difficulty=difficulty,
        test_suspects=suspects,
        train_suspects=_by_dynamics(evidence),
        fold_suspects=_by_folds(evidence),
        duplicates=duplicates,
        slices=slices,
        causes=causes,
        budget=error_budget(p.correct, {name: causes[name] for name in CAUSES}),
        neighbour_rows=rows,
        neighbours=_neighbours(evidence, rows),
        set_sizes=_set_sizes(evidence),
    )


def _slices(evidence: Evidence) -> list[Slice]:
    p = evidence.predictions
    conditions = class_conditions(p.labels, p.predicted, p.class_names)
    conditions += attribute_conditions(
        pd.concat([image_attributes(block) for block in evidence.data.test.blocks(_AT_ONCE)])
    )
    if evidence.maps_predicted is not None:
        conditions += attribute_conditions(evidence_attributes(evidence.maps_predicted))
    if evidence.features is not None:
        conditions += cluster_conditions(evidence.features, p.labels, p.class_names, seed=evidence.seed)
    return find_slices(~p.correct, conditions, seed=evidence.seed)


def _by_dynamics(evidence: Evidence) -> pd.DataFrame | None:
    """Suspicious training labels by their area under the margin; where a rival is not known, the label."""
    if evidence.dynamics is None:
        return None
    labels, dynamics = evidence.data.train.labels, evidence.dynamics
    rival = labels if evidence.train is None else best_other(labels, evidence.train.probabilities)
    mean = cartography(dynamics.probability, dynamics.correct)["mean"]
    return suspects_from_dynamics(labels, area_under_margin(dynamics.margin), mean, rival)


def _by_folds(evidence: Evidence) -> pd.DataFrame | None:
    if evidence.out_of_fold is None:
        return None
    return label_suspects(evidence.data.train.labels, evidence.out_of_fold, find=noise_rate_pruning)


def _neighbours(evidence: Evidence, rows: np.ndarray) -> Neighbours | None:
    if evidence.features is None or evidence.train_features is None or not len(rows):
        return None
    k = min(5, len(evidence.train_features))
    return nearest_neighbours(evidence.features[rows], evidence.train_features, k=k)


def _set_sizes(evidence: Evidence) -> np.ndarray:
    p = evidence.predictions
    threshold = conformal_threshold(p.labels, p.probabilities, coverage=COVERAGE)
    return conformal_sets(p.probabilities, threshold).sum(axis=1)
