"""The training loop's images per second over those of the bare step of the same model.

    python benchmarks/training_loop.py [--model speednet] [--device cuda] [--json FILE]

"bare step": forward, loss, backward, optimizer on one batch that lies on the device, again and again.
"loop": `fit` with shuffling, crop, flip, cutout, schedule, metrics and a look at each loss; the
evaluation at the end of an epoch is left out. "without dynamics": the same loop, with each image's margin and
probability not gathered. All take turns, and each turn gives its ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from harness import publish

from sightline.data import Augmentation, Dataset, Split
from sightline.models import MODELS, choose_precision, create_model
from sightline.training import Execution, fit, sgd
from sightline.training.callbacks import RecordDynamics
from sightline.training.train_step import train_step

AUGMENTATION = Augmentation(crop_padding=4, flip="random", cutout_size=16, cutout_p=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8, help="steps of one turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    precision = choose_precision(options.precision, device)
    data = _random_data(options.steps * options.batch)
    rows = []
    for name in options.model or ["speednet", "resnet18"]:
        turns = []
        for _ in range(options.repeats + 1):  # the first turn warms up
            bare = _bare(name, data, options.batch, options.steps, precision, device)
            loop = _loop(name, data, options.batch, precision, options.device)
            with mock.patch.object(RecordDynamics, "note"):
                without = _loop(name, data, options.batch, precision, options.device)
            turns.append((bare, loop, without))
        ratios = [loop / bare for bare, loop, _ in turns[1:]]
        costs = [1 - loop / without for _, loop, without in turns[1:]]
        row = {"model": name, "precision": precision, "batch": options.batch}
        row |= {"bare step": statistics.median(bare for bare, _, _ in turns[1:])}
        row |= {"loop": statistics.median(loop for _, loop, _ in turns[1:])}
        row |= {"loop / bare": round(statistics.median(ratios), 3)}
        row |= {"low": round(min(ratios), 3), "high": round(max(ratios), 3), "n": options.repeats}
        row |= {"dynamics, % of the loop": round(100 * statistics.median(costs), 2)}
        row |= {"least": round(100 * min(costs), 2), "most": round(100 * max(costs), 2)}
        rows.append(row)
    publish("training_loop", rows, device=options.device, json_file=options.json)


def _random_data(count: int) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    train = Split(images, rng.integers(0, 10, count))
    return Dataset("random", tuple("0123456789"), train, train.take(np.arange(2)))


def _bare(name: str, data: Dataset, batch: int, steps: int, precision: str, device: torch.device) -> float:
    model = create_model(name, data).to(device, memory_format=torch.channels_last).train()
    optimizer = sgd()(model)
    images = torch.rand(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(data.train.labels[:batch]).to(device)
    for timed in (steps, steps):  # the first round warms up
        begin = time.perf_counter()
        for _ in range(timed):
            train_step(model, optimizer, images, labels, precision=precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return steps * batch / (time.perf_counter() - begin)


def _loop(name: str, data: Dataset, batch: int, precision: str, device: str) -> float:
    history = fit(
        create_model(name, data),
        data,
        epochs=2,
        batch_size=batch,
        augmentation=AUGMENTATION,
        execution=Execution(precision),
        device=device,
        verbose=False,
    )
    return history.epochs[-1]["images_per_second"]


if __name__ == "__main__":
    main()
