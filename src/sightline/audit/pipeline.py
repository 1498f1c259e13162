"""The whole audit: what is wrong, why, and what to fix first.

    evidence = Evidence(data, predict(model, data.test, class_names=data.class_names))
    audit = make_audit(evidence)
    audit.table("fixes")             # ranked actions

Every part is a function of arrays in this room; here they are put together. What the evidence lacks
(images, features, test-time augmentation, maps, dynamics) its parts of the audit lack as well.
"""

from __future__ import annotations

import dataclasses
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
from sightline.audit.embedding_map import embedding_map
from sightline.audit.error_budget import assign_causes
from sightline.audit.fixes import (
    collect_for_pair,
    collect_for_slice,
    drop_copies,
    drop_near_duplicates,
    rank_fixes,
    relabel_test,
    relabel_train,
    share_gains,
    use_temperature,
    use_threshold,
)
from sightline.audit.ground_truth import score_audit
from sightline.audit.inputs import Evidence, halves
from sightline.audit.label_claims import (
    JudgedLabels,
    judge_by_folds,
    judge_test_labels,
    judge_train_labels,
    plant_labels,
)
from sightline.audit.label_issues import compare_rankings
from sightline.audit.metadata_slices import find_declared, metadata_conditions
from sightline.audit.neighbors import Neighbors, nearest_neighbors
from sightline.audit.record import FILE_COLUMNS, MAP_COLUMNS, TEST_COLUMNS, TRAIN_COLUMNS, WHOLE, Audit
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

    ambiguity, set_sizes: (N,). test_labels, train_labels, fold_labels: the labels judged; those of training
    None where there is nothing to judge them by. flags: cause -> (N,) bool. primary: (N,) causes.
    """

    evidence: Evidence
    pairs: pd.DataFrame
    ambiguity: np.ndarray
    difficulty: DifficultyMasks
    test_labels: JudgedLabels
    train_labels: JudgedLabels | None
    fold_labels: JudgedLabels | None
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
    features = None
    if evidence.features is not None and evidence.train_features is not None:
        features = evidence.train_features, evidence.features
    elif evidence.features is not None and data is not None and not len(data.train):
        features = evidence.features[:0], evidence.features
    duplicates = None
    if data is not None and data.has_pictures:
        duplicates = find_near_duplicates(data.train, data.test, features=features, seed=evidence.seed)
    pairs = confusion_pairs(p)
    fitted = _temperature(evidence)
    slices = _slices(evidence, fitted)
    in_shortcut = np.zeros(len(p), bool)
    for one in slices:
        in_shortcut[one.rows] |= one.shortcut
    judged = _judged(evidence, in_shortcut)
    flags = {
        Cause.LABEL_ISSUE: judged[0].flagged,
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
        test_labels=judged[0],
        train_labels=judged[1],
        fold_labels=judged[2],
        duplicates=duplicates,
        slices=slices,
        flags=flags,
        primary=primary,
        budget=budget,
        fitted=fitted,
        set_sizes=set_sizes(p.labels, p.probabilities),
    )


@logs.stage("audit: searching slices")
def _slices(evidence: Evidence, fitted: CrossFit | None) -> list[FoundSlice]:
    """What is declared comes first, tested on all images; then what is searched for, on halves."""
    p, data = evidence.predictions, evidence.data
    declared = [] if data is None else metadata_conditions(data.test.metadata)
    temperature = 1.0 if fitted is None else fitted.temperature
    expected = 1 - dataclasses.replace(p, logits=p.logits / temperature).confidence
    found = find_declared(~p.correct, declared, expected=expected)
    conditions = class_conditions(p.labels, p.predicted, p.class_names)
    if evidence.data is not None and evidence.data.has_pictures:
        blocks = [image_attributes(block) for block in evidence.data.test.blocks(_AT_ONCE)]
        conditions += attribute_conditions(pd.concat(blocks))
    if evidence.maps is not None and evidence.believed:
        conditions += attribute_conditions(evidence_attributes(evidence.maps))
    if evidence.features is not None:
        conditions += cluster_conditions(evidence.features, p.labels, p.class_names, seed=evidence.seed)
    how = {"expected": expected, "seed": evidence.seed}
    return found + find_slices(~p.correct, conditions, **how)


def _judged(
    evidence: Evidence, in_shortcut: np.ndarray
) -> tuple[JudgedLabels, JudgedLabels | None, JudgedLabels | None]:
    """The labels of the test split, of training, and of training by folds where that is a second list."""
    test = judge_test_labels(evidence, aside=in_shortcut)
    train = judge_train_labels(evidence)
    folds = judge_by_folds(evidence) if train is not None else None
    if folds is not None and train is not None and train.method is IssueMethod.FOLDS:
        folds = None
    if evidence.plant:
        classes, seed = len(evidence.predictions.class_names), evidence.seed
        test = plant_labels(test, classes=classes, seed=seed)
        train = None if train is None else plant_labels(train, classes=classes, seed=seed)
    return test, train, folds


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
    train, folds = parts.train_labels, parts.fold_labels
    agreement = None
    if train is not None and folds is not None:
        top = max(1, int(train.flagged.sum()))
        agreement = compare_rankings(train.table["label_quality"], folds.table["label_quality"], top=top)
    return LabelIssues(
        test=parts.test_labels.describe(),
        train=None if train is None else train.describe(),
        folds=None if folds is None else folds.describe(),
        agreement=agreement,
    )


def _fixes(parts: _Parts, thresholds: tuple[Threshold, ...]) -> list[Fix]:
    """The actions in the order to do them."""
    p, data = parts.evidence.predictions, parts.evidence.data
    wanted: list[Fix | None] = [relabel_test(parts.test_labels, p.correct)]
    if data is not None and parts.duplicates is not None:
        wanted += [
            drop_near_duplicates(p.correct, parts.duplicates.leaked),
            drop_copies(parts.duplicates.copies, total=len(data.train)),
        ]
    wanted += [collect_for_slice(one, len(p)) for one in parts.slices]
    wanted += _pair_fixes(parts)
    wanted += [None if parts.train_labels is None else relabel_train(parts.train_labels)]
    if parts.fitted is not None:
        wanted.append(use_temperature(parts.fitted))
    helpful = [one for one in thresholds if one.wanted_error < 1 - p.correct.mean()]
    if helpful:  # the least strict: it leaves most images answered
        wanted.append(use_threshold(helpful[-1], p.correct))
    sizes = {SplitName.TRAIN: 0 if data is None else len(data.train), SplitName.TEST: len(p)}
    return share_gains(rank_fixes(wanted, sizes), ~p.correct)


def _pair_fixes(parts: _Parts) -> list[Fix]:
    """Fixes for the pairs that are frequent on one half of the test images, with gains from the other."""
    p, pairs = parts.evidence.predictions, parts.pairs
    if len(p) < 2:
        return []
    frequent, (chosen, held) = parts.flags[Cause.CONFUSED_PAIR], halves(len(p), parts.evidence.seed)
    classes = len(p.class_names)
    first, second = (np.zeros((classes, classes), int) for _ in range(2))
    for table, rows in ((first, chosen), (second, held)):
        np.add.at(table, (p.labels[rows], p.predicted[rows]), 1)
        np.fill_diagonal(table, 0)
    true, predicted = pairs["true"].to_numpy(int), pairs["predicted"].to_numpy(int)
    made = []
    for row in np.argsort(-first[true, predicted], kind="stable"):
        t, q = true[row], predicted[row]
        images = np.flatnonzero(frequent & (p.labels == t) & (p.predicted == q))
        if len(images):
            usual = float(np.median(np.delete(second[t], t)))
            counts = (int(second[t, q]), usual, len(held))
            made.append(collect_for_pair(pairs, int(row), p.class_names, images=images, held=counts))
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
    if missing := _missing(parts.evidence):
        found.append(AuditWarning(WarningKind.NOT_AVAILABLE, missing))
    return found


def _missing(evidence: Evidence) -> str:
    """What the evidence lacks, and what is therefore not found; nothing where it lacks nothing."""
    data = evidence.data
    if data is None:
        return "Without images there is no search for near-duplicates and no slices by what images look like."
    lacks = {
        "pictures": not data.has_pictures and "near-duplicates and slices by what images look like",
        "a training split": not len(data.train) and "leaks from it and judgement of its labels",
        "features": evidence.features is None and "neighbours and groups of alike images",
        "heat maps": evidence.maps is None and "slices by where the evidence lies and maps on this page",
    }
    words = [f"without {what}, no {parts}" for what, parts in lacks.items() if parts]
    said = [f"Not everything was given: {'; '.join(words)}."] if words else []
    if evidence.maps is not None and not evidence.believed:
        said.append("No slice rests on where the evidence lies: the heat maps are in doubt.")
    return " ".join(said)


def _ground_truth(parts: _Parts) -> tuple[Finding, ...]:
    data, found = parts.evidence.data, parts.duplicates
    if data is None or data.truth is None:
        return ()
    return score_audit(
        data.truth,
        test=parts.test_labels,
        train=parts.train_labels,
        folds=parts.fold_labels,
        leaked=None if found is None else found.leaked,
        expected_by_chance=0.0 if found is None else found.expected_by_chance,
        slices=parts.slices,
        correct=parts.evidence.predictions.correct,
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
        label_quality=parts.test_labels.table["label_quality"].to_numpy(),
        suggested=parts.test_labels.table["suggested"].to_numpy(),
        cause=parts.primary,
        slice=slices,
        near_duplicate=nearest,
        difficulty=parts.difficulty.kinds,
        set_size=parts.set_sizes,
    )
    features = parts.evidence.features
    places = None if features is None else embedding_map(features, seed=parts.evidence.seed)
    columns = TEST_COLUMNS
    if places is not None:
        table, columns = table.assign(map_x=places[:, 0], map_y=places[:, 1]), (*TEST_COLUMNS, *MAP_COLUMNS)
    data = parts.evidence.data
    return _with_files(table, columns, p.files if data is None else data.test.files)


def _train_table(parts: _Parts) -> pd.DataFrame:
    evidence = parts.evidence
    if evidence.data is None:
        return pd.DataFrame({name: np.zeros(0, int if name in WHOLE else float) for name in TRAIN_COLUMNS})
    labels = evidence.data.train.labels
    listed = None if parts.train_labels is None else parts.train_labels.table
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
            "near_duplicate": -1 if parts.duplicates is None else parts.duplicates.train_nearest,
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
