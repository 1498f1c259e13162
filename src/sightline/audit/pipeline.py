"""The whole audit: what is wrong, why, and what to fix first.

    evidence = Evidence(data, predict(model, data.test, class_names=data.class_names))
    audit = make_audit(evidence)
    audit.table("fixes")             # ranked actions

Every part is a function of arrays in this room; here they are put together. What the evidence lacks
(images, features, test-time augmentation, maps, dynamics) its parts of the audit lack as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sightline import logs
from sightline.audit.ambiguity import (
    DifficultyMasks,
    describe_difficulty,
    measure_ambiguity,
    sort_by_difficulty,
)
from sightline.audit.attributes import evidence_attributes, image_attributes
from sightline.audit.calibration import CrossFit, cross_fit_temperature, measure_calibration
from sightline.audit.conformal import measure_conformal, set_sizes
from sightline.audit.confusion import confusion_pairs, describe_pairs, frequent_pairs
from sightline.audit.duplicates.pairs import NearDuplicates, find_near_duplicates
from sightline.audit.error_budget import assign_causes
from sightline.audit.fixes import (
    collect_for_pair,
    collect_for_slice,
    drop_copies,
    drop_near_duplicates,
    rank_fixes,
    relabel_test,
    relabel_train,
    use_temperature,
    use_threshold,
)
from sightline.audit.ground_truth import score_audit
from sightline.audit.inputs import Evidence, best_other
from sightline.audit.label_issues import (
    compare_rankings,
    find_label_issues,
    label_issues_from_dynamics,
    list_label_issues,
    noise_rate_pruning,
)
from sightline.audit.neighbors import Neighbors, nearest_neighbors
from sightline.audit.record import FILE_COLUMNS, TEST_COLUMNS, TRAIN_COLUMNS, Audit
from sightline.audit.result import (
    SCHEMA,
    Accuracy,
    AuditResult,
    AuditWarning,
    Calibration,
    Cause,
    ErrorBudget,
    Finding,
    Fix,
    IssueMethod,
    LabelIssues,
    SplitName,
    Threshold,
    TtaAccuracy,
    WarningKind,
)
from sightline.audit.selective import measure_selective
from sightline.audit.slices import (
    FoundSlice,
    attribute_conditions,
    class_conditions,
    cluster_conditions,
    find_slices,
)
from sightline.audit.training_dynamics import area_under_margin, cartography, forgetting_events
from sightline.stats import wilson_interval

_AT_ONCE = 1000  # test images whose attributes are taken together
_NEIGHBORS = 5  # of each mistake, in training
_PAIRS = 3  # confused pairs that become a fix of their own
_NEVER = -1  # forgetting events of an image that was never learnt


@dataclass(frozen=True, eq=False)
class _Parts:
    """What the functions of arrays found, from which result, tables and fixes are made.

    ambiguity, set_sizes: (N,). test_issues, train_issues, fold_issues: tables of label issues; those of
    training by its dynamics and by folds, None where there are neither. flags: cause -> (N,) bool. primary:
    (N,) causes.
    """

    evidence: Evidence
    pairs: pd.DataFrame
    ambiguity: np.ndarray
    difficulty: DifficultyMasks
    test_issues: pd.DataFrame
    train_issues: pd.DataFrame | None
    fold_issues: pd.DataFrame | None
    duplicates: NearDuplicates | None
    slices: list[FoundSlice]
    flags: dict[Cause, np.ndarray]
    primary: np.ndarray
    budget: ErrorBudget
    fitted: CrossFit | None
    set_sizes: np.ndarray


def make_audit(evidence: Evidence) -> Audit:
    """Return everything that the evidence allows to find.

    Args:
        evidence: What is known; predictions on a test split at least.

    Returns:
        The audit. A part that cannot be computed (of one image, of one class, of a test split of copies
        alone) is None or empty.
    """
    parts = _find(evidence)
    p, seed = evidence.predictions, evidence.seed
    calibration = measure_calibration(p, parts.fitted)
    selective = measure_selective(p.confidence, p.correct, seed=seed)
    duplicates = None if parts.duplicates is None else parts.duplicates.describe(p.correct)
    result = AuditResult(
        schema=SCHEMA,
        accuracy=_accuracy(evidence),
        calibration=calibration,
        selective=selective,
        conformal=measure_conformal(p.labels, p.probabilities, seed=seed),
        confused_pairs=describe_pairs(parts.pairs),
        difficulty=describe_difficulty(parts.difficulty, parts.ambiguity, p.confidence, p.correct),
        label_issues=_label_issues(parts),
        duplicates=duplicates,
        slices=tuple(one.describe() for one in parts.slices),
        robustness=evidence.robustness,
        error_budget=parts.budget,
        fixes=tuple(_fixes(parts, selective.thresholds)),
        warnings=tuple(_warnings(parts, calibration)),
        ground_truth=_ground_truth(parts),
    )
    return Audit(result, _test_table(parts), _train_table(parts), _neighbors(evidence))


def _find(evidence: Evidence) -> _Parts:
    """Run the functions of arrays in turn."""
    p, data = evidence.predictions, evidence.data
    answers = [p.probabilities[None] if evidence.tta is None else evidence.tta]
    answers += [] if evidence.others is None else [evidence.others]
    ambiguity = measure_ambiguity(np.concatenate(answers))["ambiguity"].to_numpy()
    difficulty = sort_by_difficulty(ambiguity, p.confidence, p.correct)
    issues = find_label_issues(p.labels, p.probabilities)
    features = None
    if evidence.features is not None and evidence.train_features is not None:
        features = evidence.train_features, evidence.features
    duplicates = None
    if data is not None:
        duplicates = find_near_duplicates(data.train, data.test, features=features, seed=evidence.seed)
    pairs = confusion_pairs(p)
    slices = _slices(evidence)
    in_shortcut = np.zeros(len(p), bool)
    for one in slices:
        in_shortcut[one.rows] |= one.shortcut
    flags = {
        Cause.LABEL_ISSUE: issues["flagged"].to_numpy(bool),
        Cause.NEAR_DUPLICATE: np.zeros(len(p), bool) if duplicates is None else duplicates.leaked,
        Cause.SHORTCUT: in_shortcut,
        Cause.AMBIGUOUS: difficulty.ambiguous,
        Cause.CONFUSED_PAIR: frequent_pairs(p, pairs),
    }
    primary, budget = assign_causes(p.correct, flags)
    return _Parts(
        evidence=evidence,
        pairs=pairs,
        ambiguity=ambiguity,
        difficulty=difficulty,
        test_issues=issues,
        train_issues=_issues_by_dynamics(evidence),
        fold_issues=_issues_by_folds(evidence),
        duplicates=duplicates,
        slices=slices,
        flags=flags,
        primary=primary,
        budget=budget,
        fitted=_temperature(evidence),
        set_sizes=set_sizes(p.labels, p.probabilities),
    )


@logs.stage("audit: searching slices")
def _slices(evidence: Evidence) -> list[FoundSlice]:
    p = evidence.predictions
    conditions = class_conditions(p.labels, p.predicted, p.class_names)
    if evidence.data is not None:
        blocks = [image_attributes(block) for block in evidence.data.test.blocks(_AT_ONCE)]
        conditions += attribute_conditions(pd.concat(blocks))
    if evidence.maps is not None:
        conditions += attribute_conditions(evidence_attributes(evidence.maps))
    if evidence.features is not None:
        conditions += cluster_conditions(evidence.features, p.labels, p.class_names, seed=evidence.seed)
    return find_slices(~p.correct, conditions, seed=evidence.seed)


def _issues_by_dynamics(evidence: Evidence) -> pd.DataFrame | None:
    """Label issues by the area under the margin; where the rival is not known, the label is suggested."""
    if evidence.dynamics is None or evidence.data is None:
        return None
    labels, dynamics = evidence.data.train.labels, evidence.dynamics
    rival = labels if evidence.train is None else best_other(labels, evidence.train.probabilities)
    mean = cartography(dynamics.probability, dynamics.correct)["mean"]
    return label_issues_from_dynamics(labels, area_under_margin(dynamics.margin), mean, rival)


def _issues_by_folds(evidence: Evidence) -> pd.DataFrame | None:
    if evidence.out_of_fold is None or evidence.data is None:
        return None
    return find_label_issues(evidence.data.train.labels, evidence.out_of_fold, find=noise_rate_pruning)


def _temperature(evidence: Evidence) -> CrossFit | None:
    """None for one image or one class: nothing can be fitted to them."""
    p = evidence.predictions
    if len(p) < 2 or len(p.class_names) < 2:
        return None
    return cross_fit_temperature(p.logits, p.labels, seed=evidence.seed)


def _accuracy(evidence: Evidence) -> Accuracy:
    p, answers = evidence.predictions, evidence.tta
    tta = None
    if answers is not None and len(answers) > 1:
        right = answers.mean(axis=0).argmax(axis=1) == p.labels
        tta = TtaAccuracy(len(answers), float(right.mean()))
    return Accuracy(float(p.correct.mean()), wilson_interval(int(p.correct.sum()), len(p)), len(p), tta)


def _label_issues(parts: _Parts) -> LabelIssues:
    train, folds = parts.train_issues, parts.fold_issues
    listed = None if train is None else list_label_issues(train, IssueMethod.MARGIN)
    by_folds = None if folds is None else list_label_issues(folds, IssueMethod.FOLDS)
    agreement = None
    if train is not None and folds is not None:
        top = max(1, int(train["flagged"].to_numpy().sum()))
        agreement = compare_rankings(train["label_quality"], folds["label_quality"], top=top)
    return LabelIssues(
        test=list_label_issues(parts.test_issues, IssueMethod.CONFIDENT_LEARNING),
        train=listed or by_folds,
        folds=by_folds if listed else None,
        agreement=agreement,
    )


def _fixes(parts: _Parts, thresholds: tuple[Threshold, ...]) -> list[Fix]:
    """The actions in the order to do them."""
    p, data = parts.evidence.predictions, parts.evidence.data
    wanted: list[Fix | None] = [relabel_test(parts.test_issues, p.correct)]
    if data is not None and parts.duplicates is not None:
        wanted += [
            drop_near_duplicates(p.correct, parts.duplicates.leaked),
            drop_copies(parts.duplicates.copies, total=len(data.train)),
        ]
    wanted += [collect_for_slice(one, ~p.correct) for one in parts.slices]
    wanted += _pair_fixes(parts)
    if parts.train_issues is not None:
        wanted.append(relabel_train(parts.train_issues, evidence="their margin stayed negative in training"))
    elif parts.fold_issues is not None:
        means = "models that had not seen them name another class"
        wanted.append(relabel_train(parts.fold_issues, evidence=means))
    if parts.fitted is not None:
        wanted.append(use_temperature(parts.fitted))
    helpful = [one for one in thresholds if one.wanted_error < 1 - p.correct.mean()]
    if helpful:  # the least strict: it leaves most images answered
        wanted.append(use_threshold(helpful[-1], p.correct))
    sizes = {SplitName.TRAIN: 0 if data is None else len(data.train), SplitName.TEST: len(p)}
    return rank_fixes(wanted, sizes)


def _pair_fixes(parts: _Parts) -> list[Fix]:
    p, pairs = parts.evidence.predictions, parts.pairs
    frequent = parts.flags[Cause.CONFUSED_PAIR]
    made = []
    for row, (true, predicted) in enumerate(zip(pairs["true"], pairs["predicted"], strict=True)):
        images = np.flatnonzero(frequent & (p.labels == true) & (p.predicted == predicted))
        if len(images):
            made.append(collect_for_pair(pairs, row, p.class_names, images=images, total=len(p)))
    return made[:_PAIRS]


def _warnings(parts: _Parts, calibration: Calibration) -> list[AuditWarning]:
    """What makes the numbers of the page mean less than they seem to."""
    p, found = parts.evidence.predictions, []
    leaked = 0 if parts.duplicates is None else int(parts.duplicates.leaked.sum())
    if leaked:
        images = "1 test image has" if leaked == 1 else f"{leaked:,} test images have"
        text = (
            f"{images} a near-duplicate in the training split ({100 * leaked / len(p):.1f} %): "
            "what the model gets right there may be memory."
        )
        found.append(AuditWarning(WarningKind.LEAK, text))
    if calibration.ece > calibration.noise_high:
        side = "more" if p.confidence.mean() > p.correct.mean() else "less"
        text = (
            f"Confidence is {side} than it should be: calibration error {100 * calibration.ece:.1f} %, "
            f"where noise alone would show up to {100 * calibration.noise_high:.1f} %."
        )
        found.append(AuditWarning(WarningKind.CALIBRATION, text))
    shortcuts = [one for one in parts.slices if one.shortcut]
    found += [AuditWarning(WarningKind.SHORTCUT, f"A shortcut: {s.name}: {s.evidence}.") for s in shortcuts]
    if parts.evidence.data is None:
        text = "Without images there is no search for near-duplicates and no slices by what images look like."
        found.append(AuditWarning(WarningKind.NOT_AVAILABLE, text))
    return found


def _ground_truth(parts: _Parts) -> tuple[Finding, ...]:
    data = parts.evidence.data
    if data is None or data.truth is None or parts.duplicates is None:
        return ()
    return score_audit(
        data.truth,
        issues={"the training dynamics": parts.train_issues, "folds": parts.fold_issues},
        leaked=parts.duplicates.leaked,
        expected_by_chance=parts.duplicates.expected_by_chance,
        slices=parts.slices,
        class_names=parts.evidence.predictions.class_names,
    )


def _test_table(parts: _Parts) -> pd.DataFrame:
    p = parts.evidence.predictions
    slices = np.full(len(p), -1)
    for number, one in reversed(list(enumerate(parts.slices))):
        slices[one.rows] = number  # the most certain one last, so that it stays
    nearest = np.full(len(p), -1) if parts.duplicates is None else parts.duplicates.test_nearest
    table = p.to_frame().assign(
        ambiguity=parts.ambiguity,
        label_quality=parts.test_issues["label_quality"].to_numpy(),
        suggested=parts.test_issues["suggested"].to_numpy(),
        cause=parts.primary,
        slice=slices,
        near_duplicate=nearest,
        difficulty=parts.difficulty.kinds,
        set_size=parts.set_sizes,
    )
    data = parts.evidence.data
    return _with_files(table, TEST_COLUMNS, p.files if data is None else data.test.files)


def _train_table(parts: _Parts) -> pd.DataFrame:
    evidence = parts.evidence
    if evidence.data is None or parts.duplicates is None:
        return pd.DataFrame({name: np.zeros(0) for name in TRAIN_COLUMNS})
    labels = evidence.data.train.labels
    listed = parts.train_issues if parts.train_issues is not None else parts.fold_issues
    unknown = np.full(len(labels), np.nan)
    table = pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "label_quality": unknown if listed is None else listed["label_quality"].to_numpy(),
            "suggested": labels if listed is None else listed["suggested"].to_numpy(),
            "flagged": False if listed is None else listed["flagged"].to_numpy(),
            "aum": unknown,
            "forgetting": _NEVER,
            "p_mean": unknown,
            "p_std": unknown,
            "near_duplicate": parts.duplicates.train_nearest,
        }
    )
    if evidence.dynamics is not None:
        dynamics = evidence.dynamics
        course = cartography(dynamics.probability, dynamics.correct)
        forgotten = forgetting_events(dynamics.correct)
        table["aum"] = area_under_margin(dynamics.margin)
        table["forgetting"] = np.where(np.isfinite(forgotten), forgotten, _NEVER).astype(int)
        table["p_mean"], table["p_std"] = course["mean"].to_numpy(), course["spread"].to_numpy()
    return _with_files(table, TRAIN_COLUMNS, evidence.data.train.files)


def _with_files(table: pd.DataFrame, columns: tuple[str, ...], files: pd.DataFrame | None) -> pd.DataFrame:
    """The columns in their order, and at the end what is known of each picture's file."""
    table = table.reindex(columns=list(columns))
    if files is None:
        return table
    return table.assign(**{name: files[name].to_numpy() for name in FILE_COLUMNS})


def _neighbors(evidence: Evidence) -> Neighbors | None:
    """The training images that look most like each mistake to the model."""
    rows = np.flatnonzero(~evidence.predictions.correct)
    if evidence.features is None or evidence.train_features is None or not len(rows):
        return None
    k = min(_NEIGHBORS, len(evidence.train_features))
    return nearest_neighbors(evidence.features[rows], evidence.train_features, k=k, rows=rows)
