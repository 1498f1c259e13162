"""Accuracy and time of a recipe over several seeds: plain, and with test-time augmentation.

    python benchmarks/accuracy.py cifar10-quick --data-dir DIR --seeds 0,1,2 --json FILE
    python benchmarks/accuracy.py cifar10-quick --holdout --set schedule.max_lr=1.0 ...

Each seed is trained and its test split predicted; no explanations, no report. Seconds are those of the
training with the evaluation after each epoch and, apart, of the prediction with test-time augmentation; the
file has those of the start too, in which data are loaded and precision and memory format measured. With
--json the file is written after each seed; seeds that it holds for the same recipe and changes are not run
again.

--holdout chooses hyperparameters honestly: the test split is put away, a tenth of the training split (5,000
images of CIFAR-10, the same ones for every seed) takes its place, and the rest is trained on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import hardware

from sightline import logs
from sightline.data import Dataset
from sightline.data.dataset import stratified_split
from sightline.files import write_text
from sightline.models import keep_freed_memory, load_model
from sightline.predictions import accuracy, predict_tta
from sightline.runs import Run, train
from sightline.runs.pipeline import start_run
from sightline.training import recipe_toml

_SPLIT_SEED = 0  # of the held-out tenth, never that of a training


def main() -> None:
    options = _options()
    keep_freed_memory()
    rows = _finished(options)
    for seed in options.seeds:
        if all(row["seed"] != seed for row in rows):
            rows.append(_one(options, seed))
            if options.json:
                result = {"benchmark": "accuracy", "hardware": hardware(options.device), **_identity(options)}
                result["command"] = shlex.join(["python", *sys.argv])
                write_text(options.json, json.dumps({**result, "rows": rows}, indent=2) + "\n")
    _summarize([row for row in rows if row["seed"] in options.seeds], options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument(
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="changes")
    parser.add_argument("--holdout", action="store_true", help="measure on a tenth of the training split")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _identity(options: argparse.Namespace) -> dict[str, Any]:
    return {"recipe": options.recipe, "changes": options.changes, "holdout": options.holdout}


def _finished(options: argparse.Namespace) -> list[dict[str, Any]]:
    if not options.json or not options.json.exists():
        return []
    found = json.loads(options.json.read_text(encoding="utf-8"))
    wanted = _identity(options)
    if {key: found.get(key) for key in wanted} != wanted:
        sys.exit(f"{options.json} holds another recipe or other changes; give another --json")
    return found["rows"]


def _one(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    changes = [*options.changes, f"training.seed={seed}", "analysis.range_test=false"]
    if options.data_dir:
        changes.insert(0, f"data.dir={json.dumps(options.data_dir)}")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        run = start_run(options.recipe, changes=changes, out=Path(folder) / "run", device=options.device)
        started = time.perf_counter() - begin
        data = _held_out(run.data()) if options.holdout else run.data()
        begin = time.perf_counter()
        with logs.shown():
            history = train(run, data, device=options.device)
        trained = time.perf_counter() - begin
        last = history.epochs[-1]
        row: dict[str, Any] = {"seed": seed, **_predicted(run, data, options.device)}
    row |= {
        "start_seconds": started,
        "train_seconds": trained,
        "epochs": len(history.epochs),
        "train_accuracy": last["train_accuracy"],
    }
    row |= {"precision": run.recipe.training.precision, "memory_format": run.recipe.training.memory_format}
    return {**row, "resolved": recipe_toml(run.recipe)}


def _predicted(run: Run, data: Dataset, device: str) -> dict[str, Any]:
    model, _ = load_model(run.folder)
    tta, precision = run.recipe.analysis.tta, run.recipe.training.precision
    begin = time.perf_counter()
    found = predict_tta(
        model.to(device), data.test, tta=tta, class_names=data.class_names, precision=precision
    )
    seconds = time.perf_counter() - begin
    return {
        "images": len(data.test),
        "accuracy": accuracy(found.plain),
        "accuracy_with_tta": accuracy(found.mean),
        "tta": tta,
        "predict_seconds": seconds,
    }


def _held_out(data: Dataset) -> Dataset:
    kept, held = stratified_split(data.train.labels, test_fraction=0.1, seed=_SPLIT_SEED)
    return dataclasses.replace(data, train=data.train.take(kept), test=data.train.take(held), truth=None)


def _summarize(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    split = "held-out tenth of the training split" if options.holdout else "test split"
    print(f"{options.recipe} {' '.join(options.changes)}: {split}, {rows[0]['images']} images")
    print(f"seed  plain    {rows[0]['tta']:<14}  training  prediction")
    for row in rows:
        shares = f"{100 * row['accuracy']:.2f} %  {100 * row['accuracy_with_tta']:.2f} %"
        print(
            f"{row['seed']:>4}  {shares:<24}  {row['train_seconds']:6.1f} s  {row['predict_seconds']:6.1f} s"
        )
    for name in ("accuracy", "accuracy_with_tta", "train_seconds"):
        values = np.array([row[name] for row in rows]) * (1 if name == "train_seconds" else 100)
        spread = f", standard deviation {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        extent = f"{values.min():.2f} to {values.max():.2f}{spread}, n = {len(values)}"
        print(f"{name}: mean {values.mean():.2f}, {extent}")
    print(", ".join(f"{key} {value}" for key, value in hardware(options.device).items()))


if __name__ == "__main__":
    main()
