"""The files of an audit, made of nothing but a seed, for a run's folder that `report_fixture` wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from sightline.audit import result as r
from sightline.audit.neighbors import Neighbors
from sightline.audit.record import Audit, write_audit
from sightline.audit.result import Cause, DifficultyKind, DuplicateKind, FixKind, IssueMethod, SplitName
from sightline.predictions.table import Predictions, read_predictions
from sightline.stats import wilson_interval

CORRUPTIONS = (
    *("gaussian_noise", "blur", "contrast", "brightness", "fog"),
    *("pixelate", "jpeg", "shift", "rotation"),
)


def photo_like(number: int, side: int, *, seed: int = 5) -> np.ndarray:
    """Smooth coloured pictures (N, side, side, 3) uint8, no two alike."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    phase = generator.uniform(0, 6.3, (number, 3, 1, 1))
    rate = generator.uniform(0.5, 6, (number, 2, 3, 1, 1))
    waves = np.sin(phase + rate[:, 0] * x + rate[:, 1] * y)  # (N, 3, side, side)
    pictures = 128 + 90 * waves + generator.normal(0, 6, waves.shape)
    return np.clip(pictures, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def add_audit(
    folder: Path,
    *,
    images: np.ndarray | None = None,
    train_images: np.ndarray | None = None,
    train_labels: np.ndarray | None = None,
    grid: int = 7,
    epochs: int = 9,
) -> Path:
    """Write the audit's files beside the run's own; return the folder. images: (N, s, s, 3) uint8.

    Every cause, slice, kind of pair and fix occurs; the first mistake's map for its class is negative
    everywhere, the second's holds a NaN; training image 0 was never seen in the first epoch.
    """
    predictions = read_predictions(folder / "predictions.parquet")
    number, classes = predictions.logits.shape
    generator = np.random.default_rng(11)
    images = photo_like(number, 16) if images is None else images
    if train_images is None or train_labels is None:
        train_images = photo_like(2 * number, images.shape[1], seed=6)
        train_labels = np.arange(2 * number) % classes
    wrong = np.flatnonzero(~predictions.correct)
    test = _test_table(predictions, wrong, len(train_labels), generator)
    train = _train_table(train_labels, classes, number, generator)
    doubtful = np.argsort(train["label_quality"].to_numpy(), kind="stable")[:20]
    near = Neighbors(
        rows=wrong,
        indices=generator.integers(0, len(train), (len(wrong), 5)),
        similarity=np.sort(generator.uniform(0.4, 1, (len(wrong), 5)))[:, ::-1],
    )
    result = _result(predictions, test, train, doubtful, wrong)
    write_audit(folder, Audit(result, test, train, near))
    duplicates = test["near_duplicate"].to_numpy()
    rows = np.unique(np.concatenate([near.indices.ravel(), doubtful, duplicates[duplicates >= 0]]))
    maps = _maps(generator, number, grid)
    maps_true = np.where(predictions.correct[:, None, None], maps, _maps(generator, number, grid))
    if len(wrong) > 1:
        maps[wrong[0]], maps[wrong[1], 0, 0] = -1, np.nan
    np.savez(
        folder / "gallery.npz",
        maps_predicted=maps.astype(np.float16),
        maps_true=maps_true.astype(np.float16),
        thumbnails=images,
        train_rows=rows,
        train_thumbnails=train_images[rows],
    )
    probability = np.clip(
        np.linspace(0.2, 0.9, epochs)[:, None] + generator.normal(0, 0.1, (epochs, len(train))), 0, 1
    )
    probability[0, 0] = np.nan
    margin = np.log(probability + 1e-3)
    np.savez(
        folder / "dynamics.npz", margin=margin.astype(np.float16), probability=probability.astype(np.float16)
    )
    _add_fingerprint(folder, predictions, train_labels)
    return folder


def _hash(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def _add_fingerprint(folder: Path, predictions: Predictions, train_labels: np.ndarray) -> None:
    card = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    card["fingerprint"] = {
        "name": card["name"],
        "train": len(train_labels),
        "test": len(predictions),
        "class_names": list(predictions.class_names),
        "labels_sha256": {"train": _hash(train_labels), "test": _hash(predictions.labels)},
    }
    (folder / "data.json").write_text(json.dumps(card), encoding="utf-8")


def _test_table(
    predictions: Predictions, wrong: np.ndarray, trainings: int, generator: np.random.Generator
) -> pd.DataFrame:
    number, classes = predictions.logits.shape
    cause = np.full(number, "", dtype=object)
    cause[wrong] = np.array([str(one) for one in Cause], dtype=object)[np.arange(len(wrong)) % len(Cause)]
    entropy = predictions.entropy
    hard, easy = DifficultyKind.AMBIGUOUS, DifficultyKind.EASY
    duplicate = np.full(number, -1)
    duplicate[wrong[1:4]] = generator.integers(0, trainings, len(wrong[1:4]))
    return pd.DataFrame(
        {
            "index": np.arange(number),
            "label": predictions.labels,
            "predicted": predictions.predicted,
            "loss": predictions.loss,
            "confidence": predictions.confidence,
            "margin": predictions.margin,
            "ambiguity": np.clip(entropy / np.log(classes), 0, 1),
            "label_quality": np.exp(-predictions.loss),
            "suggested": predictions.predicted,
            "cause": cause,
            "slice": np.where(np.isin(np.arange(number), wrong[:12]), np.arange(number) % 2, -1),
            "near_duplicate": duplicate,
            "difficulty": np.select(
                [entropy > np.quantile(entropy, 0.9), ~predictions.correct], [str(hard), str(easy)], ""
            ),
            "set_size": generator.integers(0, 4, number),
            "map_x": np.linspace(0, 1, number),
            "map_y": np.linspace(0, 1, number)[::-1] ** 2,
        }
    )


def _train_table(
    labels: np.ndarray, classes: int, tests: int, generator: np.random.Generator
) -> pd.DataFrame:
    number = len(labels)
    quality = 1 - generator.beta(0.6, 6, number)
    duplicate = np.full(number, -1)
    duplicate[:3] = generator.integers(0, tests, 3)
    return pd.DataFrame(
        {
            "index": np.arange(number),
            "label": labels,
            "label_quality": quality,
            "suggested": np.where(quality < 0.8, (labels + 1) % classes, labels),
            "flagged": quality < 0.6,
            "aum": generator.normal(3, 2, number),
            "forgetting": generator.integers(0, 5, number),
            "p_mean": generator.uniform(0.2, 1, number),
            "p_std": generator.uniform(0, 0.4, number),
            "near_duplicate": duplicate,
        }
    )


def _maps(generator: np.random.Generator, number: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    centre = generator.uniform(0.1, 0.9, (number, 2, 1, 1))
    distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    return np.exp(-9 * distance) - 0.3


def _result(
    predictions: Predictions, test: pd.DataFrame, train: pd.DataFrame, doubtful: np.ndarray, wrong: np.ndarray
) -> r.AuditResult:
    number, mistakes = len(test), len(wrong)
    right = number - mistakes
    interval = wilson_interval(right, number)
    pairs = _pairs(test)
    slices = _slices(test, predictions, mistakes)
    worst_first = test.sort_values("label_quality", kind="stable")["index"].to_numpy()[:20]
    issues = r.LabelIssues(
        test=r.LabelIssueList(
            *(IssueMethod.WITNESSES, 3, 2.1, _issues(test, worst_first), r.IssueClaim.LOOK),
            *(r.Estimate(0.7, (0.2, 0.9)), ("the model", "a probe on frozen features")),
        ),
        train=r.LabelIssueList(
            *(IssueMethod.MARGIN, 20, 16.0, _issues(train, doubtful), r.IssueClaim.WRONG),
            *(r.Estimate(0.8, (0.6, 0.9)), ("a probe on frozen features",)),
            r.PlantedCheck(
                0.1, 10, 120, 90, 80, r.Estimate(0.89, (0.8, 0.94)), r.Estimate(0.67, (0.6, 0.73))
            ),
        ),
        folds=r.LabelIssueList(IssueMethod.FOLDS, 19, 19, ()),
        agreement=r.Agreement(top=20, both=(1, 2, 3), jaccard=0.08, expected_by_chance=0.01),
    )
    return r.AuditResult(
        schema=r.SCHEMA,
        accuracy=r.Accuracy(right / number, interval, number, r.TtaAccuracy(2, 0.9)),
        calibration=_calibration(predictions),
        selective=r.Selective(
            aurc=0.021,
            augrc=0.018,
            curve=_risk_curve(predictions),
            thresholds=(r.Threshold(0.05, 0.7071, 0.83, 0.052, (0.02, 0.11), 0.1, False),),
        ),
        conformal=(r.ConformalSets(0.9, 0.88, 0.905, (0.86, 0.94), 1.31, 0.71, 0.02, ()),),
        confused_pairs=_confused(predictions),
        difficulty=_difficulty(test, predictions),
        label_issues=issues,
        duplicates=r.Duplicates(
            count=len(pairs),
            pairs=pairs,
            expected_by_chance=0.2,
            leaked=len(pairs),
            groups=len(pairs),
            accuracy_without=r.AccuracyWithout(right / number - 0.002, interval, number - len(pairs)),
        ),
        slices=slices,
        robustness=_robustness(mistakes / number, number),
        error_budget=_budget(test, mistakes),
        fixes=_fixes(doubtful, tuple(pair.b for pair in pairs), slices),
        warnings=(
            r.AuditWarning(r.WarningKind.LEAK, f"{len(pairs)} test images are also in the training set."),
            # Its words name duplicates too: the link has to follow the kind.
            r.AuditWarning(r.WarningKind.CALIBRATION, "Without duplicates and leaks it is overconfident."),
            r.AuditWarning(r.WarningKind.NOT_AVAILABLE, "No label of the leaked images was checked."),
        ),
        ground_truth=(r.Finding("Label issues found", "90 %", "2 % by chance", "Most of them."),),
    )


def _issues(table: pd.DataFrame, rows: np.ndarray) -> tuple[r.LabelIssue, ...]:
    named = table.iloc[rows][["index", "label", "suggested"]].to_numpy().tolist()
    quality = table["label_quality"].to_numpy()[rows].tolist()
    return tuple(r.LabelIssue(*row, one, True) for row, one in zip(named, quality, strict=True))


def _pairs(test: pd.DataFrame) -> tuple[r.DuplicatePair, ...]:
    found = test[test["near_duplicate"] >= 0]
    named = found[["index", "near_duplicate"]].to_numpy().tolist()
    return tuple(
        r.DuplicatePair(SplitName.TRAIN, j, SplitName.TEST, i, 0.997, DuplicateKind.EXACT, bool(k % 2))
        for k, (i, j) in enumerate(named)
    )


def _slices(test: pd.DataFrame, predictions: Predictions, mistakes: int) -> tuple[r.Slice, ...]:
    return tuple(
        r.Slice(
            name=f"dark pictures of {predictions.class_names[k][:40]}",
            size=int((test["slice"] == k).sum()),
            error=0.61 - 0.1 * k,
            interval=(0.4, 0.75),
            rest=mistakes / len(test),
            p=8e-7 if k == 0 else 0.0213,
            evidence="Most of the heat lies on the border of the picture (38 % against 11 %).",
            rows=tuple(test.index[test["slice"] == k].tolist()),
            shortcut=k == 0,
        )
        for k in range(2)
    )


def _budget(test: pd.DataFrame, mistakes: int) -> r.ErrorBudget:
    counts = test["cause"].value_counts().to_dict()
    causes = []
    for cause in Cause:
        number = int(counts.get(str(cause), 0))
        interval = wilson_interval(number, mistakes) if mistakes else (0.0, 1.0)
        overlaps = {Cause.AMBIGUOUS: 2} if cause is Cause.LABEL_ISSUE else {}
        causes.append(r.CauseShare(cause, number, number / max(mistakes, 1), interval, number, overlaps))
    return r.ErrorBudget(mistakes, tuple(causes))


def _risk_curve(predictions: Predictions) -> r.RiskCurve:
    number = len(predictions)
    order = np.argsort(-predictions.confidence, kind="stable")
    risk = np.cumsum(~predictions.correct[order]) / np.arange(1, number + 1)
    at = np.unique(np.linspace(0, number - 1, 150).astype(int))
    values = ((at + 1) / number, risk[at], predictions.confidence[order][at])
    return r.RiskCurve(*(tuple(one.tolist()) for one in values))


def _calibration(predictions: Predictions) -> r.Calibration:
    bins = []
    for low in np.arange(15) / 15:
        inside = (predictions.confidence > low) & (predictions.confidence <= low + 1 / 15)
        n, right = int(inside.sum()), int(predictions.correct[inside].sum())
        sure = float(predictions.confidence[inside].mean()) if n else None
        interval = wilson_interval(right, n)
        bins.append(
            r.ReliabilityBin(float(low), float(low + 1 / 15), n, sure, right / n if n else None, interval)
        )
    return r.Calibration(
        **{"ece": 0.062, "ece_equal_mass": 0.058, "noise_mean": 0.021, "noise_high": 0.034, "nll": 0.41},
        **{"temperature": 1.8, "ece_after": 0.023, "nll_after": 0.36},
        reliability=tuple(bins),
    )


def _difficulty(test: pd.DataFrame, predictions: Predictions) -> r.Difficulty:
    rows = []
    for kind in DifficultyKind:
        of = test.index[test["difficulty"] == str(kind)].to_numpy()
        rows.append(
            r.DifficultyRow(kind, len(of), int((~predictions.correct[of]).sum()), tuple(of[:20].tolist()))
        )
    return r.Difficulty(tuple(rows), ambiguity_from=0.9, hard_up_to=0.4, easy_from=0.8)


def _confused(predictions: Predictions) -> tuple[r.ConfusedPair, ...]:
    pairs = list(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
    found = sorted({p for p in pairs if p[0] != p[1]}, key=lambda p: (-pairs.count(p), p))[:12]
    sizes = {c: int((predictions.labels == c).sum()) for c, _ in found}
    return tuple(
        r.ConfusedPair(
            a, b, n := pairs.count((a, b)), n / sizes[a], (0.02, 0.11), 1.9, pairs.count((b, a)), 0.31
        )
        for a, b in found
    )


def _robustness(clean: float, number: int) -> r.Robustness:
    rows = []
    for k, name in enumerate(CORRUPTIONS):
        for severity in (1, 2, 3):
            error = min(1.0, clean * (1 + 0.1 * severity * (3 + k)))
            interval = (clean, min(1.0, clean * 2 * severity))
            rows.append(r.CorruptionError(name, severity, error, interval, error - clean))
    mean = float(np.mean([row.error for row in rows]))
    interval = wilson_interval(round(clean * number), number)
    return r.Robustness(clean, interval, number, tuple(rows), mean, mean - clean, (0.01, 0.05))


def _fixes(doubtful: np.ndarray, leaked: tuple[int, ...], slices: tuple[r.Slice, ...]) -> tuple[r.Fix, ...]:
    return (
        r.Fix(
            kind=FixKind.RELABEL,
            title=f"Check the labels of {len(doubtful)} training images",
            why="Their margin stayed negative in all epochs.",
            gain=r.Gain(0.2618, 0.0, 0.5, "test accuracy"),
            images=tuple(doubtful.tolist()),
            split=SplitName.TRAIN,
            how="sightline run shapes-quick --fixes fixes.json",
        ),
        r.Fix(
            kind=FixKind.DROP,
            title="Drop the test images that are in the training set",
            why="The accuracy counts answers that were learned by heart.",
            gain=None,
            images=leaked,
            split=SplitName.TEST,
            how="Mark them “drop” in the gallery and export.",
        ),
        r.Fix(
            kind=FixKind.COLLECT,
            title=f"Collect or augment: {slices[0].name}",
            why=slices[0].evidence,
            gain=r.Gain(0.5, 0.0, 0.9, "test accuracy"),
            images=slices[0].rows,
            split=SplitName.TEST,
            how="",
        ),
    )
