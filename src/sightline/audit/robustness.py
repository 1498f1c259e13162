"""What corruptions cost: errors beside those on clean images, from arrays of right and wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import SightlineError
from sightline.stats import wilson_interval

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Robustness:
    """Errors of one model on n images, as they are and corrupted; shares in [0, 1].

    clean: error on the clean images. interval: its 95 % Wilson interval. rows: one per corruption and
    severity, in the order given: name, severity, error, low, high (95 % Wilson), increase (error - clean).
    mean: error averaged over severities, then over corruptions: the mean corruption error of Hendrycks &
    Dietterich (2019), not divided by that of AlexNet, which is another model's. increase: mean - clean, which
    they call relative; increase_interval: 95 %, from the spread of the n paired differences.
    """

    clean: float
    interval: tuple[float, float]
    n: int
    rows: pd.DataFrame
    mean: float
    increase: float
    increase_interval: tuple[float, float]


def robustness_table(
    clean_correct: np.ndarray, corrupted_correct: Mapping[tuple[str, int], np.ndarray]
) -> Robustness:
    """Return the errors on clean and on corrupted images.

    clean_correct: (n,) bool. corrupted_correct: (name, severity) to (n,) bool of the same images.
    Raises SightlineError if there is none, or one has another length.

    >>> clean = np.array([True, True, True, False])
    >>> found = robustness_table(clean, {("fog", 1): clean, ("fog", 3): np.zeros(4, bool)})
    >>> found.clean, found.rows["error"].tolist(), found.mean, found.increase
    (0.25, [0.25, 1.0], 0.625, 0.375)
    """
    import pandas as pd

    n = len(clean_correct)
    if not n or not corrupted_correct:
        raise SightlineError(f"{n} images and {len(corrupted_correct)} corruptions; robustness needs both")
    for (name, severity), correct in corrupted_correct.items():
        if len(correct) != n:
            raise SightlineError(
                f"{name} at severity {severity} has {len(correct)} images and the clean ones are {n}; "
                "both have to be the same images"
            )
    clean_wrong = ~np.asarray(clean_correct, bool)
    wrong = {key: ~np.asarray(correct, bool) for key, correct in corrupted_correct.items()}
    rows = []
    for (name, severity), flags in wrong.items():
        low, high = wilson_interval(int(flags.sum()), n)
        error = float(flags.mean())
        increase = error - float(clean_wrong.mean())
        rows.append((name, severity, error, low, high, increase))
    names = list(dict.fromkeys(name for name, _ in wrong))
    by_name = [np.mean([wrong[key] for key in wrong if key[0] == name], axis=0) for name in names]
    errors = np.mean(by_name, axis=0)  # (n,): of each image, over severities, then over corruptions
    differences = errors - clean_wrong
    half = 1.96 * float(differences.std(ddof=1)) / n**0.5 if n > 1 else float("inf")
    increase = float(differences.mean())
    return Robustness(
        clean=float(clean_wrong.mean()),
        interval=wilson_interval(int(clean_wrong.sum()), n),
        n=n,
        rows=pd.DataFrame(rows, columns=["name", "severity", "error", "low", "high", "increase"]),
        mean=float(errors.mean()),
        increase=increase,
        increase_interval=(max(-1.0, increase - half), min(1.0, increase + half)),
    )
