"""What it costs to train from picture files instead of memory, and that memory does not grow with them.

    python benchmarks/streaming.py [--side 256] [--size 64] [--images 1500] [--json FILE]

Writes `--images` JPEG pictures of `--side` pixels into a temporary folder, trains on them at `--size` pixels
for two epochs and reports the second: from memory, and from the files through workers. "bare step" is the
step of the same model on one resident batch; "decode alone" is what the workers deliver when nothing trains.
All take turns.

Then a process of its own trains a network of one convolution for an epoch on four times as many pictures,
and another on sixteen times as many (links to the same files), and both report the peak of their memory:
their own and their largest worker's. With the smaller number the largest blocks, those of the evaluation,
are full already.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import publish
from PIL import Image
from torch import nn

from sightline.data import Augmentation, Dataset, StreamedBatches, load_data
from sightline.models import choose_precision, create_model
from sightline.training import fit, sgd
from sightline.training.train_step import train_step

AUGMENTATION = Augmentation(crop_padding=4, flip="random", cutout_size=16, cutout_p=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--side", type=int, default=256, help="pixels of the pictures in their files")
    parser.add_argument("--size", type=int, default=64, help="pixels that the model sees")
    parser.add_argument("--model", default="speednet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _train_once(options.child, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        small = _write(Path(folder) / "small", options.images, options.side)
        rows = _throughput(small, options)
        more = [_copies(small, Path(folder) / f"{times} times", times) for times in (4, 16)]
        rows += _memory(more, options)
    publish("streaming", rows, device=options.device, json_file=options.json)


def _write(root: Path, count: int, side: int) -> Path:
    """Two classes of JPEG pictures: smooth noise, which takes about as many bytes as a photograph."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    return root


def _copies(root: Path, target: Path, times: int) -> Path:
    for path in root.glob("*/*.jpg"):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        for copy in range(times):
            os.link(path, target / path.parent.name / f"{path.stem}-{copy}.jpg")
    return target


def _throughput(root: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    data = {
        word: load_data(root, image_size=options.size, stream=word == "files") for word in ("memory", "files")
    }
    turns = []
    for _ in range(options.repeats + 1):  # the first turn warms up
        turns.append(
            {
                "bare step": _bare(data["memory"], options),
                "training from memory": _fit(data["memory"], options),
                "training from files": _fit(data["files"], options),
                "decode alone": _decode(data["files"], options),
            }
        )
    rows = []
    for name in turns[0]:
        rates = [turn[name] for turn in turns[1:]]
        ratios = [turn[name] / turn["bare step"] for turn in turns[1:]]
        row = {
            "what": name,
            "pictures": len(data["files"].train),
            "images/s": round(statistics.median(rates), 1),
        }
        row |= {"over bare step": round(statistics.median(ratios), 3)}
        row |= {"low": round(min(ratios), 3), "high": round(max(ratios), 3), "peak MiB": ""}
        rows.append(row)
    return rows


def _bare(data: Dataset, options: argparse.Namespace) -> float:
    device = torch.device(options.device)
    precision = choose_precision("auto", device)
    model = create_model(options.model, data).to(device, memory_format=torch.channels_last).train()
    optimizer = sgd()(model)
    images = torch.rand(options.batch, 3, options.size, options.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch, device=device) % 2
    steps = max(2, len(data.train) // options.batch)
    for timed in (2, steps):  # the first round warms up
        begin = time.perf_counter()
        for _ in range(timed):
            train_step(model, optimizer, images, labels, precision=precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return steps * options.batch / (time.perf_counter() - begin)


def _fit(
    data: Dataset, options: argparse.Namespace, *, model: nn.Module | None = None, epochs: int = 2
) -> float:
    history = fit(
        model or create_model(options.model, data),
        data,
        epochs=epochs,
        batch_size=options.batch,
        augmentation=AUGMENTATION,
        device=options.device,
        verbose=False,
    )
    return history.epochs[-1]["images_per_second"]


def _decode(data: Dataset, options: argparse.Namespace) -> float:
    batches = StreamedBatches(data.train, AUGMENTATION, batch_size=options.batch, fill=(0, 0, 0), seed=0)
    begin = time.perf_counter()
    images = sum(len(batch.labels) for batch in batches.epoch(0))
    return images / (time.perf_counter() - begin)


def _memory(roots: Sequence[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for root in roots:
        command = [sys.executable, __file__, "--child", str(root), "--size", str(options.size)]
        command += ["--batch", str(options.batch), "--device", options.device]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, count = map(int, done.stdout.split()[-2:])
        row = {"what": "peak memory, one convolution, from files", "pictures": count, "images/s": ""}
        rows.append(row | {"over bare step": "", "low": "", "high": "", "peak MiB": peak >> 10})
    return rows


def _train_once(root: Path, options: argparse.Namespace) -> None:
    """Train an epoch; print the peak of this process and of its largest worker, KiB, and the pictures."""
    import resource

    data = load_data(root, image_size=options.size, stream=True)
    # Nothing of a large network: whitening, say, looks at the first 5,000 images at once.
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    _fit(data, options, model=net, epochs=1)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(sum(peaks), len(data.train))


if __name__ == "__main__":
    main()
