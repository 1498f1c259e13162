"""Seconds of `cifar10-94` beside those of airbench94 on the same GPU, in turns, in one run.

    python benchmarks/airbench.py --airbench CHECKOUT/airbench94.py --data-dir DIR [--repeats 5] [--json FILE]

CHECKOUT is a clone of the airbench repository, run as it is, in its own process and folder: it downloads
CIFAR-10 there and prints its own table, whose seconds leave out loading and warm-up. Here, likewise, the
seconds are those of the training epochs and the prediction of the six views, after a training that warms up.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from harness import publish

from sightline.data import load_data
from sightline.models import create_model
from sightline.predictions import accuracy, predict_tta
from sightline.training import fit, load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--airbench", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(
            "airbench runs on CUDA alone, and PyTorch sees no such device; run this on a machine with one"
        )
    if not options.airbench.is_file():
        sys.exit(f"{options.airbench} is not there; give the path of airbench94.py in a checkout")
    data = load_data("cifar10", data_dir=options.data_dir)
    _ours(data, seed=0)  # warms up
    ours = [_ours(data, seed=seed) for seed in range(options.repeats)]
    rows = [_row("cifar10-94", ours), _row("airbench94", _theirs(options.airbench))]
    publish("airbench", rows, device="cuda", json_file=options.json)


def _ours(data, seed: int) -> tuple[float, float]:
    recipe = load_recipe("cifar10-94", [f"training.seed={seed}"])
    model = create_model(recipe.model.name, data, seed=seed, **recipe.model.options)
    training = recipe.training
    rate, _ = recipe.make_schedule()
    begin = time.perf_counter()
    history = fit(
        model, data, epochs=training.epochs, batch_size=training.batch_size, seed=seed, device="cuda",
        optimizer=recipe.make_optimizer(), schedule=rate, callbacks=recipe.make_callbacks(),
        augmentation=recipe.make_augmentation(data.mean.tolist()),
        objective=recipe.make_objective(data), verbose=False,
    )  # fmt: skip
    found = predict_tta(model, data.test, tta="mirror_shifts", batch_size=2000, precision="bfloat16")
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    evaluated = sum(row["seconds"] - len(data.train) / row["images_per_second"] for row in history.epochs)
    return seconds - evaluated, accuracy(found.mean)  # airbench does not count its evaluations either


def _theirs(script: Path) -> list[tuple[float, float]]:
    done = subprocess.run(
        [sys.executable, script.name], cwd=script.parent, capture_output=True, text=True, check=True
    )
    # Its table: | run | epoch | train_loss | train_acc | val_acc | tta_val_acc | total_time_seconds |
    lines = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines()]
    found = [(float(cells[-2]), float(cells[-3])) for cells in lines if "eval" in cells]
    if not found:
        sys.exit(f"{script} printed no line 'eval' with its seconds; it ended: {done.stdout[-200:]!r}")
    return found


def _row(name: str, found: list[tuple[float, float]]) -> dict:
    seconds, shares = zip(*found, strict=True)
    return {
        "training": name,
        "seconds": round(statistics.median(seconds), 3),
        "low": round(min(seconds), 3),
        "high": round(max(seconds), 3),
        "six views, %": round(100 * statistics.mean(shares), 2),
        "n": len(found),
    }


if __name__ == "__main__":
    main()
