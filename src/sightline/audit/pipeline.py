"""The whole audit: what is wrong, why, and what to fix first.

    evidence = Evidence(data, predict(model, data.test, class_names=data.class_names))
    audit = make_audit(evidence)
    audit.fixes                      # ranked actions

Every part is a function of arrays in this room; here they are put together. What the evidence lacks
(features, views, maps, dynamics) its parts of the audit lack as well.

Every part of the audit that the evidence allows, run once, before anything is written up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sightline.audit import facts as result
from sightline.audit.ambiguity import Difficulty, sort_by_difficulty, view_spread
from sightline.audit.calibration import CrossFit, calibration_error, calibration_floor, cross_fit_temperature
from sightline.audit.conformal import conformal_sets, conformal_threshold
from sightline.audit.confusion import confusion_pairs, frequent_pairs
from sightline.audit.duplicates.pairs import Duplicates, near_duplicates
from sightline.audit.error_budget import CAUSES, ErrorBudget, error_budget
from sightline.audit.facts import Audit, plain
from sightline.audit.fixes import (
    Fix,
    collect_for_pair,
    collect_for_slice,
    drop_copies,
    drop_twins,
    rank_fixes,
    relabel_test,
    relabel_train,
    use_temperature,
    use_threshold,
)
from sightline.audit.ground_truth import score_findings
from sightline.audit.image_attributes import evidence_attributes, image_attributes
from sightline.audit.inputs import Evidence
from sightline.audit.label_issues import label_suspects, noise_rate_pruning, suspects_from_dynamics
from sightline.audit.neighbors import Neighbors, nearest_neighbors
from sightline.audit.selective import Rejection, choose_threshold
from sightline.audit.slices import (
    Slice,
    attribute_conditions,
    class_conditions,
    cluster_conditions,
    find_slices,
)
from sightline.audit.training_dynamics import area_under_margin, cartography, forgetting_events
from sightline.audit.validation import best_other

COVERAGE = 0.9  # of the conformal sets whose size each image gets
_findings_AT_ONCE = 1000  # test images whose attributes are taken together


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
    neighbours: Neighbors | None
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
        pd.concat([image_attributes(block) for block in evidence.data.test.blocks(_findings_AT_ONCE)])
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


def _neighbours(evidence: Evidence, rows: np.ndarray) -> Neighbors | None:
    if evidence.features is None or evidence.train_features is None or not len(rows):
        return None
    k = min(5, len(evidence.train_features))
    return nearest_neighbors(evidence.features[rows], evidence.train_features, k=k)


def _set_sizes(evidence: Evidence) -> np.ndarray:
    p = evidence.predictions
    threshold = conformal_threshold(p.labels, p.probabilities, coverage=COVERAGE)
    return conformal_sets(p.probabilities, threshold).sum(axis=1)


WANTED_ERRORS = (0.01, 0.02, 0.05)
_THUMBNAIL = 64  # pixels a side at most
_LISTED = 1000  # training images by suspicion that are shown, flagged or not
_AT_ONCE = 1000  # test images that are made small together
_NEVER = -1  # forgetting events of an image that was never learnt


def make_audit(evidence: Evidence) -> Audit:
    """Return everything that the evidence allows to say."""
    found = find_all(evidence)
    p, seed, truth = evidence.predictions, evidence.seed, evidence.data.truth
    fitted = cross_fit_temperature(p.logits, p.labels, seed=seed)
    chosen = [choose_threshold(p.confidence, p.correct, error=error, seed=seed) for error in WANTED_ERRORS]
    rejections = [one for one in chosen if one is not None]
    written: dict[str, Any] = {
        "accuracy": result.accuracy_facts(found),
        "calibration": result.calibration_facts(p, fitted),
        "selective": result.selective_facts(p, rejections),
        "conformal": result.conformal_facts(p, seed),
        "confusions": result.confusion_facts(found),
        "difficulty": result.difficulty_facts(found),
        "suspects": result.suspect_facts(found),
        "duplicates": result.duplicate_facts(found),
        "slices": result.slice_facts(found),
        "robustness": result.robustness_facts(found),
        "budget": result.budget_facts(found),
        "fixes": [fix.to_dict() for fix in fixes(found, fitted, rejections)],
        "warnings": warnings(found),
        "planted": [] if truth is None else score_findings(truth, found),
    }
    train = _train_table(found)
    return Audit(plain(written), _test_table(found), train, _arrays(found, train))


def _test_table(found: Findings) -> pd.DataFrame:
    slices = np.full(len(found.evidence.predictions), -1)
    for number, one in reversed(list(enumerate(found.slices))):
        slices[one.rows] = number  # the most certain one last, so that it stays
    suspects = found.test_suspects
    return found.evidence.predictions.to_frame().assign(
        ambiguity=found.spread["ambiguity"].to_numpy(),
        suspicion=suspects["suspicion"].to_numpy(),
        suggested=suspects["suggested"].to_numpy(),
        cause=found.budget.primary,
        slice=slices,
        twin=found.duplicates.test_twins,
        difficulty=found.difficulty.kinds,
        set_size=found.set_sizes,
    )


def _train_table(found: Findings) -> pd.DataFrame:
    evidence, labels = found.evidence, found.evidence.data.train.labels
    listed = found.train_suspects if found.train_suspects is not None else found.fold_suspects
    nothing = np.full(len(labels), np.nan)
    table = pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "suspicion": nothing if listed is None else listed["suspicion"].to_numpy(),
            "suggested": labels if listed is None else listed["suggested"].to_numpy(),
            "issue": False if listed is None else listed["issue"].to_numpy(),
            "aum": nothing,
            "forgetting": _NEVER,
            "p_mean": nothing,
            "p_std": nothing,
            "twin": found.duplicates.train_twins,
        }
    )
    if evidence.dynamics is not None:
        dynamics = evidence.dynamics
        course = cartography(dynamics.probability, dynamics.correct)
        forgotten = forgetting_events(dynamics.correct)
        table["aum"] = area_under_margin(dynamics.margin)
        table["forgetting"] = np.where(np.isfinite(forgotten), forgotten, _NEVER).astype(int)
        table["p_mean"], table["p_std"] = course["mean"].to_numpy(), course["spread"].to_numpy()
    return table


def _arrays(found: Findings, train: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the report draws: neighbours, maps, and small pictures of all that is referred to."""
    evidence, near = found.evidence, found.neighbours
    rows = found.neighbour_rows if near is not None else np.zeros(0, int)
    indices = near.indices if near is not None else np.zeros((0, 5), int)
    similarity = near.similarity if near is not None else np.zeros((0, 5))
    named = [indices.ravel(), found.duplicates.test_twins]
    pairs = found.duplicates.pairs
    named += [pairs.loc[pairs[f"{end}_split"] == "train", end].to_numpy(int) for end in ("a", "b")]
    named += [np.argsort(-train["suspicion"].fillna(-1).to_numpy(), kind="stable")[:_LISTED]]
    shown = np.unique(np.concatenate(named))
    shown = shown[shown >= 0]
    arrays = {
        "neighbour_rows": rows,
        "neighbours": indices,
        "neighbour_similarity": similarity.astype(np.float16),
        "thumbnails": np.concatenate([thumbnails(block) for block in evidence.data.test.blocks(_AT_ONCE)]),
        "train_rows": shown,
        "train_thumbnails": thumbnails(evidence.data.train.images[shown]),
    }
    maps = {"maps_predicted": evidence.maps_predicted, "maps_true": evidence.maps_true}
    return arrays | {name: array.astype(np.float16) for name, array in maps.items() if array is not None}


def thumbnails(images: np.ndarray, most: int = _THUMBNAIL) -> np.ndarray:
    """Return uint8 images (N, H, W, 3) with no side above `most` pixels, each block's mean in its place."""
    height, width = images.shape[1:3]
    if max(height, width) <= most:
        return images
    step = -(-max(height, width) // most)
    cut = images[:, : height // step * step, : width // step * step]
    blocks = cut.reshape(len(cut), height // step, step, width // step, step, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)


_PAIRS = 3  # confused pairs that become a fix of their own


def fixes(found: Findings, fitted: CrossFit | None, rejections: list[Rejection]) -> list[Fix]:
    """Return the actions in the order to do them."""
    p, data = found.evidence.predictions, found.evidence.data
    listed = found.train_suspects if found.train_suspects is not None else found.fold_suspects
    wanted: list[Fix | None] = [
        relabel_test(found.test_suspects, p.correct),
        drop_twins(p.correct, found.duplicates.leaked),
        drop_copies(_copies(found), total=len(data.train)),
        *_slice_fixes(found),
        *_pair_fixes(found),
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


def _slice_fixes(found: Findings) -> list[Fix]:
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


def _pair_fixes(found: Findings) -> list[Fix]:
    p, pairs = found.evidence.predictions, found.pairs
    frequent = found.causes["confused pair"]
    made = []
    for row, (true, predicted) in enumerate(zip(pairs["true"], pairs["predicted"], strict=True)):
        images = np.flatnonzero(frequent & (p.labels == true) & (p.predicted == predicted))
        if len(images):
            made.append(collect_for_pair(pairs, row, p.class_names, images=images, total=len(p)))
    return made[:_PAIRS]
