"""What corruptions cost: error rates next to those on clean images, from arrays of right and wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sightline.audit.result import CorruptionError, Robustness
from sightline.errors import InputError
from sightline.stats import mean_interval, wilson_interval


def measure_robustness(
    clean_correct: np.ndarray, corrupted_correct: Mapping[tuple[str, int], np.ndarray]
) -> Robustness:
    """Return the error rates on clean and on corrupted images.

    Args:
        clean_correct: (n,) bool.
        corrupted_correct: (name, severity) to (n,) bool of the same images.

    Raises:
        InputError: There is no image or no corruption, or one has another number of images.

    >>> clean = np.array([True, True, True, False])
    >>> found = measure_robustness(clean, {("fog", 1): clean, ("fog", 3): np.zeros(4, bool)})
    >>> found.clean, [row.error for row in found.rows], found.mean, found.increase
    (0.25, [0.25, 1.0], 0.625, 0.375)
    """
    n = len(clean_correct)
    if not n or not corrupted_correct:
        raise InputError(f"{n} images and {len(corrupted_correct)} corruptions; robustness needs both")
    for (name, severity), correct in corrupted_correct.items():
        if len(correct) != n:
            raise InputError(
                f"{name} at severity {severity} has {len(correct)} images and the clean ones are {n}; "
                "both have to be the same images"
            )
    clean_wrong = ~np.asarray(clean_correct, bool)
    clean = float(clean_wrong.mean())
    wrong = {key: ~np.asarray(correct, bool) for key, correct in corrupted_correct.items()}
    rows = []
    for (name, severity), flags in wrong.items():
        error, interval = float(flags.mean()), wilson_interval(int(flags.sum()), n)
        rows.append(CorruptionError(name, severity, error, interval, error - clean))
    names = list(dict.fromkeys(name for name, _ in wrong))
    by_name = [np.mean([wrong[key] for key in wrong if key[0] == name], axis=0) for name in names]
    errors = np.mean(by_name, axis=0)  # (n,): of each image, over severities, then over corruptions
    differences = errors - clean_wrong
    low, high = mean_interval(differences)
    return Robustness(
        clean=clean,
        interval=wilson_interval(int(clean_wrong.sum()), n),
        n=n,
        rows=tuple(rows),
        mean=float(errors.mean()),
        increase=float(differences.mean()),
        increase_interval=(max(-1.0, low), min(1.0, high)),
    )
