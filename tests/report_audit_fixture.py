"""The files of an audit, made of nothing but a seed, for a run's folder that `report_fixture` wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sightline.predictions.table import Predictions, read_predictions
from sightline.stats import wilson_interval

KINDS = ("ambiguous", "hard but right", "easy but wrong")
CAUSES = ("label suspect", "leaked twin", "shortcut", "ambiguous", "confused pair", "unexplained")


def photo_like(number: int, side: int, *, seed: int = 5) -> np.ndarray:
    """Smooth coloured pictures (N, side, side, 3) uint8, no two alike."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    phase = generator.uniform(0, 6.3, (number, 3, 1, 1))
    rate = generator.uniform(0.5, 6, (number, 2, 3, 1, 1))
    waves = np.sin(phase + rate[:, 0] * x + rate[:, 1] * y)  # (N, 3, side, side)
    pictures = 128 + 90 * waves + generator.normal(0, 6, waves.shape)
    return np.clip(pictures, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def write_audit(
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
        train_images, train_labels = (
            photo_like(2 * number, images.shape[1], seed=6),
            np.arange(2 * number) % classes,
        )
    wrong = np.flatnonzero(~predictions.correct)
    test = _test_table(predictions, wrong, len(train_labels), generator)
    train = _train_table(train_labels, classes, number, generator)
    suspects = np.argsort(-train["suspicion"].to_numpy(), kind="stable")[:20]
    neighbours = generator.integers(0, len(train), (len(wrong), 5))
    twins = test["twin"].to_numpy()
    rows = np.unique(np.concatenate([neighbours.ravel(), suspects, twins[twins >= 0]]))
    maps = _maps(generator, number, grid)
    maps_true = np.where(predictions.correct[:, None, None], maps, _maps(generator, number, grid))
    if len(wrong) > 1:
        maps[wrong[0]], maps[wrong[1], 0, 0] = -1, np.nan
    test.to_parquet(folder / "audit_test.parquet")
    train.to_parquet(folder / "audit_train.parquet")
    np.savez(
        folder / "audit.npz",
        neighbours=neighbours,
        neighbour_similarity=np.sort(generator.uniform(0.4, 1, (len(wrong), 5)))[:, ::-1].astype(np.float16),
        neighbour_rows=wrong,
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
    facts = _facts(predictions, test, train, suspects, wrong)
    (folder / "audit.json").write_text(json.dumps(facts), encoding="utf-8")
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
    cause[wrong] = np.asarray(CAUSES, dtype=object)[np.arange(len(wrong)) % len(CAUSES)]
    entropy = predictions.entropy
    slices = np.where(np.isin(np.arange(number), wrong[:12]), np.arange(number) % 2, -1)
    twin = np.full(number, -1)
    twin[wrong[1:4]] = generator.integers(0, trainings, len(wrong[1:4]))
    return pd.DataFrame(
        {
            "index": np.arange(number),
            "label": predictions.labels,
            "predicted": predictions.predicted,
            "loss": predictions.loss,
            "confidence": predictions.confidence,
            "margin": predictions.margin,
            "entropy": entropy,
            "ambiguity": np.clip(entropy / np.log(classes), 0, 1),
            "suspicion": 1 - np.exp(-predictions.loss),
            "suggested": predictions.predicted,
            "cause": cause,
            "slice": slices,
            "twin": twin,
            "difficulty": np.select(
                [entropy > np.quantile(entropy, 0.9), ~predictions.correct], KINDS[::2], ""
            ),
            "set_size": generator.integers(0, 4, number),
        }
    )


def _train_table(
    labels: np.ndarray, classes: int, tests: int, generator: np.random.Generator
) -> pd.DataFrame:
    number = len(labels)
    suspicion = generator.beta(0.6, 6, number)
    twin = np.full(number, -1)
    twin[:3] = generator.integers(0, tests, 3)
    return pd.DataFrame(
        {
            "index": np.arange(number),
            "label": labels,
            "suspicion": suspicion,
            "suggested": np.where(suspicion > 0.2, (labels + 1) % classes, labels),
            "aum": generator.normal(3, 2, number),
            "forgetting": generator.integers(0, 5, number),
            "p_mean": generator.uniform(0.2, 1, number),
            "p_std": generator.uniform(0, 0.4, number),
            "twin": twin,
        }
    )


def _maps(generator: np.random.Generator, number: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    centre = generator.uniform(0.1, 0.9, (number, 2, 1, 1))
    distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    return np.exp(-9 * distance) - 0.3


def _facts(
    predictions: Predictions, test: pd.DataFrame, train: pd.DataFrame, suspects: np.ndarray, wrong: np.ndarray
) -> dict[str, Any]:
    number, mistakes = len(test), len(wrong)
    right = number - mistakes
    order = np.argsort(-predictions.confidence, kind="stable")
    risk = np.cumsum(~predictions.correct[order]) / np.arange(1, number + 1)
    at = np.unique(np.linspace(0, number - 1, 150).astype(int))
    curve = {
        "coverage": ((at + 1) / number).tolist(),
        "risk": risk[at].tolist(),
        "threshold": predictions.confidence[order][at].tolist(),
    }
    twins = test.index[test["twin"] >= 0].tolist()
    pairs = [
        {
            **{"a_split": "test", "a": int(i), "b_split": "train", "b": int(test["twin"][i])},
            **{"similarity": 0.997, "kind": "pixels", "same_label": bool(k % 2)},
        }
        for k, i in enumerate(twins)
    ]
    slices = [
        {
            "name": f"dark pictures of {predictions.class_names[k][:40]}",
            "size": int((test["slice"] == k).sum()),
            "error": 0.61 - 0.1 * k,
            "interval": [0.4, 0.75],
            "rest": mistakes / number,
            "p": 0.0004,
            "evidence": "Most of the heat lies on the border of the picture (38 % against 11 %).",
            "rows": test.index[test["slice"] == k].tolist(),
            "shortcut": k == 0,
        }
        for k in range(2)
    ]
    counts = test["cause"].value_counts()
    causes = [
        {
            "cause": cause,
            "count": int(counts.get(cause, 0)),
            "share": int(counts.get(cause, 0)) / max(mistakes, 1),
            "interval": list(wilson_interval(int(counts.get(cause, 0)), mistakes)),
            "overlaps": {"ambiguous": 2} if cause == "label suspect" else {},
        }
        for cause in CAUSES
    ]
    tops = test.sort_values("suspicion", ascending=False).index[:20].tolist()
    interval = list(wilson_interval(right, number))
    return {
        "accuracy": {
            "value": right / number,
            "interval": interval,
            "n": number,
            "views": {"name": "mirror", "value": 0.9},
        },
        "calibration": _calibration(predictions),
        "selective": {
            "aurc": 0.021,
            "augrc": 0.018,
            "curve": curve,
            "wanted": [{"error": 0.05, "threshold": 0.71, "coverage": 0.83, "checked": 0.052}],
        },
        "conformal": [
            {
                **{"coverage": 0.9, "threshold": 0.12, "realised": 0.905, "interval": [0.88, 0.93]},
                **{"mean_size": 1.31, "single": 0.71, "empty": 0.02},
            }
        ],
        "confusions": _confusions(predictions),
        "difficulty": _difficulty(test),
        "suspects": {
            "train": {
                "method": "AUM",
                "estimated": 21.4,
                "top": [{"index": int(i)} for i in suspects],
                "folds": {"estimated": 19, "top": []},
                "agreement": {"top": 20, "both": [1, 2, 3], "jaccard": 0.08, "by_chance": 0.01},
            },
            "test": {"estimated": 3, "top": [{"index": int(i)} for i in tops]},
        },
        "duplicates": {
            "pairs": pairs,
            "leaked": len(pairs),
            "accuracy_without": {
                "value": right / number - 0.002,
                "interval": interval,
                "n": number - len(pairs),
            },
            "groups": len(pairs),
        },
        "slices": slices,
        "robustness": _robustness(mistakes / number, number),
        "budget": {"mistakes": mistakes, "causes": causes},
        "fixes": _fixes(suspects, twins, slices),
        "warnings": [
            f"{len(pairs)} test images have a near-duplicate in the training set.",
            "The model is more confident than it is right: use a temperature of 1.8.",
        ],
        "planted": [
            {
                "what": "suspects found",
                "value": 0.9,
                "expected": "over 0.8",
                "meaning": "most of them",
            },
        ],
    }


def _calibration(predictions: Predictions) -> dict[str, Any]:
    bins = []
    for low in np.arange(15) / 15:
        inside = (predictions.confidence > low) & (predictions.confidence <= low + 1 / 15)
        n = int(inside.sum())
        right = int(predictions.correct[inside].sum())
        bins.append(
            {
                **{"low": low, "high": low + 1 / 15, "count": n},
                "confidence": float(predictions.confidence[inside].mean()) if n else None,
                "accuracy": right / n if n else None,
                "interval": list(wilson_interval(right, n)) if n else None,
            }
        )
    return {
        **{"ece": 0.062, "ece_mass": 0.058, "floor": 0.021, "floor_high": 0.034, "nll": 0.41},
        **{"temperature": 1.8, "ece_after": 0.023, "nll_after": 0.36, "reliability": bins},
    }


def _difficulty(test: pd.DataFrame) -> dict[str, Any]:
    rows = {kind: test.index[test["difficulty"] == kind].tolist() for kind in KINDS}
    kinds = [{"kind": kind, "count": len(of), "wrong": 1, "images": of[:20]} for kind, of in rows.items()]
    return {"kinds": kinds, "ambiguity_from": 0.9, "hard_up_to": 0.4, "easy_from": 0.8}


def _confusions(predictions: Predictions) -> list[dict[str, Any]]:
    pairs = list(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
    found = sorted({p for p in pairs if p[0] != p[1]}, key=lambda p: -pairs.count(p))[:12]
    return [
        {
            **{"true": a, "predicted": b, "count": pairs.count((a, b)), "reverse": pairs.count((b, a))},
            **{"share": pairs.count((a, b)) / int((predictions.labels == a).sum()), "interval": [0.02, 0.11]},
            **{"median_loss": 1.9, "p_direction": 0.31},
        }
        for a, b in found
    ]


def _robustness(clean: float, number: int) -> dict[str, Any]:
    names = (
        "gaussian noise",
        "blur",
        "contrast",
        "brightness",
        "fog",
        "pixelate",
        "jpeg",
        "shift",
        "rotation",
    )
    rows = [
        {
            **{
                "name": name,
                "severity": severity,
                "error": min(1, clean * (1 + 0.1 * severity * (3 + k))),
            },
            "interval": [clean, min(1, clean * 2 * severity)],
        }
        for k, name in enumerate(names)
        for severity in (1, 2, 3)
    ]
    return {"clean": clean, "n": number, "rows": rows, "mean": float(np.mean([row["error"] for row in rows]))}


def _fixes(suspects: np.ndarray, twins: list[int], slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    points = "points of accuracy"
    return [
        {
            "kind": "relabel",
            "title": f"Look at {len(suspects)} training labels that the model never learned",
            "why": "Their margin stayed negative in all epochs.",
            "gain": {"value": 0.8, "low": 0.2, "high": 1.4, "unit": points},
            "images": suspects.tolist(),
            "split": "train",
            "how": "sightline run shapes-quick --fixes fixes.json",
        },
        {
            "kind": "leaks",
            "title": "Drop the test images that are in the training set",
            "why": "The accuracy counts answers that were learned by heart.",
            "gain": None,
            "images": twins,
            "split": "test",
            "how": "Mark them “drop” in the gallery and export.",
        },
        {
            "kind": "slice",
            "title": f"Collect or augment: {slices[0]['name']}",
            "why": slices[0]["evidence"],
            "gain": {"value": 0.5, "low": 0.0, "high": 0.9, "unit": points},
            "images": slices[0]["rows"],
            "split": "test",
            "how": "",
        },
    ]
