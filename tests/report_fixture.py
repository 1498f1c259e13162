"""A run's folder made of nothing but a seed: what the report reads, with numbers known beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sightline.predictions.metrics import rank_mistakes
from sightline.predictions.table import Predictions, write_predictions

NAMES = ("airplane", "car", "bird", "cat")


def predictions_of(names: Sequence[str] = NAMES, *, n: int = 200, seed: int = 0) -> Predictions:
    """Noisy logits that are right most of the time; every class has a test image."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % len(names)
    logits = generator.normal(0, 1.6, (n, len(names))).astype(np.float32)
    logits[np.arange(n), labels] += 3
    return Predictions(logits, labels, tuple(names))


def write_run(
    folder: Path,
    *,
    predictions: Predictions | None = None,
    test_images: np.ndarray | None = None,
    layers: Sequence[str] = ("layer2", "layer3"),
    mistakes: int = 4,
) -> Path:
    """Write every file of a run, optional ones included; return the folder.

    The first mistake's map for the predicted class is negative everywhere, the second's holds a NaN.
    """
    folder.mkdir(parents=True, exist_ok=True)
    predictions = predictions or predictions_of()
    generator = np.random.default_rng(1)
    if test_images is None:
        test_images = generator.integers(0, 256, (len(predictions), 8, 8, 3), dtype=np.uint8)
    write_predictions(folder / "predictions.parquet", predictions)
    _write_texts(folder, predictions)
    _write_training(folder)
    np.savez(
        folder / "samples.npz",
        images=test_images[:8],
        labels=predictions.labels[:8],
        augmented=test_images[:8, :, ::-1],
        augmented_one=np.stack([test_images[0], *(np.roll(test_images[0], k, axis=1) for k in range(1, 8))]),
    )
    wrong = rank_mistakes(predictions, limit=mistakes)["index"].to_numpy()
    right = np.flatnonzero(predictions.correct)[:mistakes]
    arrays = {}
    for gallery, index in (("mistakes", wrong), ("correct", right)):
        arrays |= {f"{gallery}/index": index, f"{gallery}/images": test_images[index]}
        for layer, side in zip(layers, (8, 4), strict=False) if len(index) else ():
            for target in ("predicted", "label"):
                arrays[f"{gallery}/{layer}/{target}"] = _maps(generator, len(index), side)
    for layer in layers:
        if len(wrong) > 1:
            arrays[f"mistakes/{layer}/predicted"][0] = -1
            arrays[f"mistakes/{layer}/predicted"][1, 0, 0] = np.nan
    np.savez(folder / "explanations.npz", **arrays)
    return folder


def _maps(generator: np.random.Generator, number: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    centre = generator.uniform(0.2, 0.8, (number, 2, 1, 1))
    distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    return (np.exp(-8 * distance) - 0.3).astype(np.float32)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_texts(folder: Path, predictions: Predictions) -> None:
    names = list(predictions.class_names)
    counts = np.bincount(predictions.labels, minlength=len(predictions.class_names)).tolist()
    recipe = 'name = "shapes-quick"\n\n[data]\nname = "shapes"\n\n[model]\nname = "speednet"\n'
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    hardware = {"cpu": "2 cores", "device": "cpu"}
    environment = {"command": "sightline run shapes-quick", "python": "3.12.4", "hardware": hardware}
    _write_json(folder / "environment.json", environment | {"started": "2030-01-01 12:00:00"})
    summary = "Layer (type)        Output shape        Param #\n" + "Conv2d  [1, 64, 32, 32]  1,728\n" * 40
    model = {"name": "speednet", "parameters": 1234567, "summary": summary, "class_names": names}
    _write_json(folder / "model.json", model | {"image_size": [8, 8]})
    skipped = ["train/cat/broken.png: not an image"]
    data = {
        "name": "shapes",
        "skipped": skipped,
        "planted": {"wrong_labels": 2},
        "source": "generated, seed 0",
        "image_size": [8, 8],
        "class_names": names,
    }
    moments = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616]}
    _write_json(
        folder / "data.json",
        data | moments | {"train_counts": [5 * c for c in counts], "test_counts": counts},
    )
    correct = predictions.correct
    metrics = {
        "accuracy": float(correct.mean()),
        "loss": float(predictions.loss.mean()),
        "images": len(correct),
        "mistakes": int((~correct).sum()),
        "selection": "last epoch",
        "seconds": {"train": 134.2, "explain": 1.5},
        "published": {"train": 94.84, "test": 90.88, "note": "six views of each image"},
        "planted": [
            {"what": "shortcut", "value": 0.6125, "expected": "over 0.5", "meaning": "the mark is used"},
        ],
    }
    _write_json(folder / "metrics.json", metrics)
    _write_json(
        folder / "explanations.json",
        {"method": "Grad-CAM", "layers": ["layer2", "layer3"], "main_layer": "layer3", "galleries": {}},
    )
    suggestions = {"steepest": 0.12, "minimum/10": 0.06}
    _write_json(folder / "range_test.json", {"suggestions": suggestions})


def _write_training(folder: Path) -> None:
    epochs = np.arange(1, 13)
    history = pd.DataFrame(
        {
            "epoch": epochs,
            "lr": 0.1,
            "train_loss": 2.2 * np.exp(-epochs / 4) + 0.1,
            "train_accuracy": 1 - 0.8 * np.exp(-epochs / 4),
            "test_loss": 2.0 * np.exp(-epochs / 4) + 0.3,
            "test_accuracy": 0.92 - 0.7 * np.exp(-epochs / 4),
            "seconds": 3.0,
            "images_per_second": 800.0,
        }
    )
    history.to_csv(folder / "history.csv", index=False)
    step = np.arange(1, 601)
    rates = np.interp(step, [1, 240, 600], [0.0385, 0.385, 0.0])
    steps = pd.DataFrame({"step": step, "epoch": 1 + (step - 1) // 50, "lr": rates, "loss": 1.0})
    steps.to_csv(folder / "steps.csv", index=False)
    lr = np.geomspace(1e-5, 10, 100)
    smoothed = 2.3 - 1.2 / (1 + np.exp(-2 * np.log(lr / 0.02))) + 3 * lr
    noise = np.random.default_rng(3).normal(0, 0.05, 100)
    table = pd.DataFrame({"lr": lr, "loss": smoothed + noise, "smoothed": smoothed})
    table.to_csv(folder / "range_test.csv", index=False)
