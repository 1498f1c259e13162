"""Seconds and peak memory of each part of the audit on synthetic predictions, and how both grow.

    python benchmarks/audit.py [--images 100000,300000,1000000] [--classes 10] [--json FILE]

The exponent is that of seconds ~ images^exponent between the smallest and the largest size: 1 is linear.
Memory is what a part allocates at its peak on top of its input, by tracemalloc, in a run that is not timed.
"""

from __future__ import annotations

import argparse
import math
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import publish

from sightline.audit import (
    ambiguity,
    calibration,
    compare_predictions,
    conformal,
    confusion,
    error_budget,
    label_issues,
    label_noise,
    selective,
)
from sightline.audit.result import Cause
from sightline.predictions import Predictions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", default="100000,300000,1000000", help="sizes, comma-separated")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.images.split(","))
    columns = [measure(parts(size, options.classes)) for size in sizes]
    rows: list[dict[str, Any]] = []
    for name in columns[0]:
        row: dict[str, Any] = {"part": name}
        for size, column in zip(sizes, columns, strict=True):
            row[f"{size:,} s"] = round(column[name][0], 3)
        row["exponent"] = _exponent(sizes, [column[name][0] for column in columns])
        row["peak MiB"] = round(columns[-1][name][1] / 2**20)
        row["exponent of memory"] = _exponent(sizes, [column[name][1] for column in columns])
        rows.append(row)
    total = {"part": "all"}
    for key in rows[0]:
        if key.endswith(" s"):
            total[key] = round(sum(row[key] for row in rows), 3)
    total["exponent"] = _exponent(sizes, [total[f"{size:,} s"] for size in sizes])
    total["peak MiB"] = max(row["peak MiB"] for row in rows)
    total["exponent of memory"] = ""
    publish("audit", [*rows, total], device="cpu", json_file=options.json)


def parts(count: int, classes: int) -> dict[str, Callable[[], object]]:
    """Return each part as a function of nothing, on predictions that are right in about nine of ten."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    names = tuple(f"class {k}" for k in range(classes))
    models = []
    for _ in range(2):
        logits = rng.standard_normal((count, classes), np.float32)
        logits[np.arange(count), labels] += 2.9
        models.append(Predictions(2 * logits, labels, names))
    first, second = models
    p, confidence, correct = first.probabilities, first.confidence, first.correct
    answers = np.stack([p, second.probabilities]).astype(np.float32)
    aum = np.where(rng.random(count) < 0.02, rng.normal(-2.4, 0.9, count), rng.normal(2.4, 0.85, count))
    causes = {cause: rng.random(count) < 0.2 for cause in list(Cause)[:-1]}
    for model in models:
        _ = model.loss  # kept by the predictions, whoever asks first
    return {
        "calibration error": lambda: calibration.calibration_error(confidence, correct),
        "calibration error, equal mass": lambda: calibration.calibration_error(
            confidence, correct, binning=calibration.equal_mass
        ),
        "noise floor (200 draws)": lambda: calibration.calibration_noise(confidence),
        "reliability": lambda: calibration.reliability_bins(confidence, correct),
        "temperature (2 folds)": lambda: calibration.cross_fit_temperature(first.logits, labels),
        "risk-coverage": lambda: selective.risk_coverage(confidence, correct, limit=200),
        "AURC": lambda: selective.aurc(confidence, correct),
        "AUGRC": lambda: selective.augrc(confidence, correct),
        "threshold": lambda: selective.choose_threshold(confidence, correct, error=0.05),
        "conformal sets": lambda: conformal.check_conformal(labels, p),
        "label issues": lambda: label_issues.find_label_issues(labels, p),
        "labels judged by a witness": lambda: label_noise.judge_labels(labels, [p]),
        "agreement of label issues": lambda: label_issues.compare_rankings(aum, confidence, top=count // 50),
        "ambiguity (2 models)": lambda: ambiguity.measure_ambiguity(answers),
        "difficulty": lambda: ambiguity.sort_by_difficulty(1 - confidence, confidence, correct),
        "confusions": lambda: confusion.confusion_pairs(first),
        "error budget": lambda: error_budget.assign_causes(correct, causes),
        "comparison of two models": lambda: compare_predictions(first, second),
    }


def measure(work: dict[str, Callable[[], object]]) -> dict[str, tuple[float, int]]:
    """Return for each part the seconds of the faster of two runs, and the bytes at the peak of a third."""
    found = {}
    for name, part in work.items():
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            part()
            seconds.append(time.perf_counter() - begin)
        tracemalloc.start()
        part()
        found[name] = min(seconds), tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


def _exponent(sizes: list[int], values: list[float]) -> float:
    """The slope between the ends on doubly logarithmic axes; 0 for one size."""
    if len(sizes) < 2 or min(values[0], values[-1]) <= 0:
        return 0.0
    return round(math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0]), 2)


if __name__ == "__main__":
    main()
