"""The whole audit: what is wrong, why, and what to fix first.

    evidence = Evidence(data, predict(model, data.test, class_names=data.class_names))
    audit = make_audit(evidence)
    audit.fixes                      # ranked actions

Every part is a function of arrays in this room; here they are put together. What the evidence lacks
(features, views, maps, dynamics) its parts of the audit lack as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sightline.audit import facts
from sightline.audit.advice import fixes, warnings
from sightline.audit.dynamics import area_under_margin, cartography, forgetting_events
from sightline.audit.evidence import Evidence
from sightline.audit.findings import Findings, find_all
from sightline.audit.record import Audit, plain
from sightline.audit.scoring import score_findings
from sightline.audit.selective import choose_threshold
from sightline.audit.temperature import cross_fit_temperature

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
        "accuracy": facts.accuracy_facts(found),
        "calibration": facts.calibration_facts(p, fitted),
        "selective": facts.selective_facts(p, rejections),
        "conformal": facts.conformal_facts(p, seed),
        "confusions": facts.confusion_facts(found),
        "difficulty": facts.difficulty_facts(found),
        "suspects": facts.suspect_facts(found),
        "duplicates": facts.duplicate_facts(found),
        "slices": facts.slice_facts(found),
        "robustness": facts.robustness_facts(found),
        "budget": facts.budget_facts(found),
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
