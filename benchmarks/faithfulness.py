"""What a measure costs, in forward passes per image: deletion over 50 steps, and the others beside it.

    python benchmarks/faithfulness.py [--model resnet18] [--size 32] [--device cuda] [--json FILE]

A forward pass is that of the same model on the same images, at the measure's own batch size, in float32
and evaluation mode. Deletion over 50 steps makes 51 of them; what goes beyond is ranking, filling and
masking. The weights are random: they do not change the cost. Every row is timed in turn with the plain
passes, and the ratio is the median over the turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import publish, repeat

from sightline.faithfulness import (
    average_drop,
    blur,
    class_probability,
    deletion,
    infidelity,
    insertion,
    noisy_linear_imputation,
    road,
    zero,
)
from sightline.models import MODELS, Normalize, evaluating

MEASURES = {
    "deletion, zero": partial(deletion, fill=zero),
    "deletion, mean": deletion,
    "deletion, blur": partial(deletion, fill=blur),
    "deletion, imputed": partial(deletion, fill=noisy_linear_imputation),
    "insertion": insertion,
    "road": road,
    "average drop": average_drop,
    "infidelity": infidelity,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = MODELS[options.model](10, Normalize()).eval().to(options.device)
    images = torch.rand(options.images, 3, options.size, options.size, device=options.device)
    maps = torch.rand(options.images, options.size, options.size)
    score = class_probability(model, [0] * len(images))
    rows = []
    for name, measure in MEASURES.items():
        work = partial(measure, score, images, maps, batch_size=options.batch)
        rows.append({"measure": name} | _cost(model, images, work, options))
    publish("faithfulness", rows, device=options.device, json_file=options.json)


def _cost(
    model: torch.nn.Module, images: torch.Tensor, work: Callable, options: argparse.Namespace
) -> dict[str, Any]:
    """Time the measure and plain passes in turn; return ms per image and the ratio of the two."""
    variants = images.repeat(-(-options.batch // len(images)), 1, 1, 1)[: options.batch]

    def pass_() -> int:
        with torch.no_grad(), evaluating(model):
            model(variants)
        return len(variants)

    def measured() -> int:
        work()
        return len(images)

    passes, costs = [], []
    for _ in range(options.repeats):
        passes.append(1000 / repeat(pass_, repeats=5, device=options.device)["median"])
        costs.append(1000 / repeat(measured, repeats=1, device=options.device)["median"])
    ratios = [cost / one for cost, one in zip(costs, passes, strict=True)]
    return {
        "ms per image": round(statistics.median(costs), 2),
        "ms per forward pass": round(statistics.median(passes), 3),
        "forward passes per image": round(statistics.median(ratios), 1),
        "low": round(min(ratios), 1),
        "high": round(max(ratios), 1),
        "images": len(images),
        "repeats": options.repeats,
    }


if __name__ == "__main__":
    main()
