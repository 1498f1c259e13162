"""Which labels are probably wrong: from probabilities, from the course of training, and do the two agree.

    >>> labels = np.array([0, 0, 1, 1])
    >>> p = np.array([[0.9, 0.1], [0.05, 0.95], [0.2, 0.8], [0.3, 0.7]])
    >>> label_suspects(labels, p)[["label", "suggested", "issue"]].values.tolist()[1]
    [0, 1, True]

Suspicion is in [0, 1] everywhere: above 1/2 the model speaks for another class. `issue` is the shorter list
to read first. Nothing here proves a label wrong: a hard image looks the same to a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.arrays import CHUNK, best_other, labelled, of_label
from sightline.errors import SightlineError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return p_y, (N,) in [0, 1]: low where the image is strange to its label, or to every class."""
    return of_label(labels, probabilities)


def normalized_margin(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return (p_y - max_{k != y} p_k + 1) / 2, (N,) in [0, 1]: low where another class fits better."""
    others = probabilities[np.arange(len(labels)), best_other(labels, probabilities)]
    return (of_label(labels, probabilities) - others + 1) / 2


def confident_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return t_k, the mean p_k of the images labelled k: (C,), infinite for a class without images.

    Source: Northcutt, Jiang & Chuang (2021), "Confident learning", eq. 2.
    """
    classes = probabilities.shape[1]
    count = np.bincount(labels, minlength=classes)
    total = np.bincount(labels, of_label(labels, probabilities), classes)
    return np.divide(total, count, out=np.full(classes, np.inf), where=count > 0)


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the images of each label (row) that are confidently of each class (column): (C, C) int64.

    Northcutt et al. (2021), eq. 1, uncalibrated: an image counts for the most probable of the classes
    whose threshold it reaches, and for none if it reaches none. What is off the diagonal estimates how
    often one class is labelled as another.
    """
    places, classes = _confident_class(labels, probabilities), probabilities.shape[1]
    known = places >= 0
    cells = labels[known] * classes + places[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def off_diagonal(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the images that `confident_joint` counts off its diagonal, (N,) bool.

    Those whose label is the most probable class after all are left out. It is what cleanlab's
    `find_label_issues(filter_by="confident_learning")` finds, except where an image reaches several
    thresholds but not that of its most probable class: cleanlab then counts that class, eq. 1 the most
    probable of those it reached.
    """
    places = _confident_class(labels, probabilities)
    return (places >= 0) & (places != labels) & (probabilities.argmax(axis=1) != labels)


def noise_rate_pruning(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return cleanlab's `find_label_issues`, (N,) bool: pruned by the noise rate of each pair of classes.

    For probabilities of images that did not train the model: of a test split, or from folds. Raises
    SightlineError where the extra `cleanlab` is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise SightlineError(
            "confident learning with pruning needs cleanlab; pip install 'sightline[cleanlab]'"
        ) from None
    return np.asarray(find_label_issues(labels, probabilities, n_jobs=1))


def label_suspects(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    quality: Callable[[np.ndarray, np.ndarray], np.ndarray] = normalized_margin,
    find: Callable[[np.ndarray, np.ndarray], np.ndarray] = off_diagonal,
) -> pd.DataFrame:
    """Return how suspicious each label is, a row per image in data order.

    labels: (N,). probabilities: (N, C) of a model that was not trained on these images: on its own training
    images a model repeats their labels. quality: a function of both, (N,) in [0, 1], low where the label is
    doubtful: `normalized_margin`, `self_confidence`. find: a function of both, (N,) bool: `off_diagonal`,
    `noise_rate_pruning`. Columns: index, label, suggested (the most probable other class), suspicion
    (1 - quality), issue (bool).
    """
    labels, probabilities = labelled(labels, probabilities)
    suggested = best_other(labels, probabilities)
    suspicion = 1 - np.asarray(quality(labels, probabilities), np.float64)
    return suspect_table(labels, suggested, suspicion, np.asarray(find(labels, probabilities)))


def _confident_class(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The most probable class among those whose threshold the image reaches, (N,); -1 for none."""
    thresholds = confident_thresholds(labels, probabilities) - 1e-6  # cleanlab's tolerance
    found = np.empty(len(labels), np.int64)
    for start in range(0, len(labels), CHUNK):
        rows = probabilities[start : start + CHUNK]
        reached = rows >= thresholds  # (n, C)
        best = np.where(reached, rows, -1.0).argmax(axis=1)
        found[start : start + CHUNK] = np.where(reached.any(axis=1), best, -1)
    return found


def suspect_table(
    labels: np.ndarray, suggested: np.ndarray, suspicion: np.ndarray, issue: np.ndarray
) -> pd.DataFrame:
    """Return what every list of suspects holds: index, label, suggested, suspicion, issue."""
    import pandas as pd

    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "suggested": suggested,
            "suspicion": suspicion,
            "issue": issue.astype(bool),
        }
    )
