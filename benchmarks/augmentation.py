"""Images per second of crop, flip and cutout: batched on the device, and by albumentations in workers.

    python benchmarks/augmentation.py [--device cuda] [--json FILE]

"none" is the same source with no augmentation: a gather of whole images, and the conversion to float.
Every row is an epoch over random 32x32 images, drawing of the randomness and start of workers included.
With `--photographs`: batches of 64 at 224 pixels, by ours and by Kornia (pip install kornia), settings alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import publish, repeat

from sightline.data import Augmentation, PhotoAugmentation, ResidentBatches, Split, StreamedBatches

FILL = (0.49, 0.48, 0.45)
SETTINGS = {
    "none": Augmentation(),
    "crop": Augmentation(crop_padding=4),
    "crop, flip": Augmentation(crop_padding=4, flip="random"),
    "crop, flip, cutout": Augmentation(crop_padding=4, flip="random", cutout_size=16, cutout_p=0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--photographs", action="store_true")
    options = parser.parse_args()
    if options.photographs:
        rows = list(_photographs(options))
        publish("augmentation", rows, device=options.device, json_file=options.json)
        return
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8), np.zeros(options.images, int)
    )
    shared = {"batch_size": options.batch, "seed": 0, "fill": FILL, "device": options.device}
    rows: list[dict[str, Any]] = []
    for name, augmentation in SETTINGS.items():
        batches = ResidentBatches(split, augmentation=augmentation, **shared)
        rows.append(_row("batched", name, _epochs(batches), rows, options))
    for workers in sorted({0, options.workers}):
        transform = SETTINGS["crop, flip, cutout"].to_albumentations((32, 32), fill=FILL)
        batches = StreamedBatches(split, transform, num_workers=workers, **shared)
        name = f"albumentations, {workers} workers"
        rows.append(_row(name, "crop, flip, cutout", _epochs(batches), rows, options))
    publish("augmentation", rows, device=options.device, json_file=options.json)


def _photographs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of ours and Kornia's, turn by turn."""
    import kornia.augmentation as kornia  # pyright: ignore[reportMissingImports]

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 224, 224, 3), dtype=torch.uint8, generator=generator)
    images, everyone = images.to(options.device), torch.arange(64, device=options.device)
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    for name, ours, more in (
        ("crop, flip", {}, []),
        ("crop, flip, colours", jitter, [kornia.ColorJiggle(0.4, 0.4, 0.4, 0.0, p=1.0)]),
        ("crop, flip, TrivialAugment", {"trivial_p": 1.0}, [kornia.auto.TrivialAugment()]),
    ):
        settings = PhotoAugmentation(smallest=0.35, **ours)
        crop = kornia.RandomResizedCrop((224, 224), scale=(0.35, 1.0), ratio=(3 / 4, 4 / 3), p=1.0)
        theirs = kornia.AugmentationSequential(
            crop, kornia.RandomHorizontalFlip(), *more, data_keys=["input"]
        )
        epochs = iter(range(1_000_000))

        def batched(settings: PhotoAugmentation = settings, epochs: Iterator[int] = epochs) -> int:
            draws = settings.draw(64, (224, 224), seed=0, epoch=next(epochs)).to(options.device)
            return len(settings.apply(images, everyone, draws, fill=FILL))

        def peer(theirs: Any = theirs) -> int:
            return len(theirs(images.permute(0, 3, 1, 2).float().div(255)))

        for path, work in (("ours", batched), ("kornia", peer)):
            yield _row(path, name, work, [], options)


def _epochs(batches: ResidentBatches | StreamedBatches) -> Callable[[], int]:
    number = iter(range(1_000_000))
    return lambda: sum(len(batch.labels) for batch in batches.epoch(next(number)))


def _row(
    path: str, name: str, work: Callable[[], int], rows: list[dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    rate = repeat(work, repeats=options.repeats, device=options.device)
    share = rate["median"] / rows[0]["images/s"] if rows else 1.0
    return {
        "path": path,
        "augmentation": name,
        "images/s": rate["median"],
        "low": rate["low"],
        "high": rate["high"],
        "repeats": options.repeats,
        "of none": round(share, 3),
    }


if __name__ == "__main__":
    main()
