"""Which labels are doubtful, from probabilities alone: scores, and rules by which others flag.

    >>> labels = np.array([0, 0, 1, 1])
    >>> p = np.array([[0.9, 0.1], [0.05, 0.95], [0.2, 0.8], [0.3, 0.7]])
    >>> find_label_issues(labels, p)[["label", "suggested", "flagged"]].values.tolist()[1]
    [0, 1, True]

Label quality is in [0, 1] everywhere, low is bad: below 1/2 the model speaks for another class. `flagged` is
the shorter list to read first. Nothing here proves a label wrong: a hard image looks the same to a model.
What an audit claims of labels is decided in `label_claims`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.inputs import CHUNK, best_other, labelled, of_label
from sightline.audit.result import Agreement
from sightline.errors import InputError, MissingExtraError

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
    confident, classes = _confident_class(labels, probabilities), probabilities.shape[1]
    known = confident >= 0
    cells = labels[known] * classes + confident[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def off_diagonal(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the images that `confident_joint` counts off its diagonal, (N,) bool.

    Those whose label is the most probable class after all are left out. It is what cleanlab's
    `find_label_issues(filter_by="confident_learning")` finds, except where an image reaches several
    thresholds but not that of its most probable class: cleanlab then counts that class, eq. 1 the most
    probable of those it reached.
    """
    confident = _confident_class(labels, probabilities)
    return (confident >= 0) & (confident != labels) & (probabilities.argmax(axis=1) != labels)


def noise_rate_pruning(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return cleanlab's `find_label_issues`, (N,) bool: pruned by the noise rate of each pair of classes.

    For probabilities of images that did not train the model: of a test split, or from folds.

    Raises:
        MissingExtraError: The extra `cleanlab` is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise MissingExtraError(
            "confident learning with pruning needs cleanlab; pip install 'sightline-vision[cleanlab]'"
        ) from None
    return np.asarray(find_label_issues(labels, probabilities, n_jobs=1))


def find_label_issues(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    quality: Callable[[np.ndarray, np.ndarray], np.ndarray] = normalized_margin,
    find: Callable[[np.ndarray, np.ndarray], np.ndarray] = off_diagonal,
) -> pd.DataFrame:
    """Return how well each label fits its image, a row for each in data order.

    Args:
        labels: (N,) integers in 0..C-1.
        probabilities: (N, C) of a model that was not trained on these images: on its own training images a
            model repeats their labels.
        quality: A function of both, (N,) in [0, 1], low where the label is doubtful: `normalized_margin`,
            `self_confidence`.
        find: A function of both, (N,) bool: `off_diagonal`, `noise_rate_pruning`.

    Returns:
        Columns: index, label, suggested (the most probable other class), label_quality, flagged (bool). With
            one class no label can be another: quality 1.

    Raises:
        InputError: Shapes do not fit, or a value is outside its range.
    """
    labels, probabilities = labelled(labels, probabilities)
    if probabilities.shape[1] == 1:
        return issue_table(labels, labels, np.ones(len(labels)), np.zeros(len(labels), bool))
    suggested = best_other(labels, probabilities)
    values = np.asarray(quality(labels, probabilities), np.float64)
    return issue_table(labels, suggested, values, np.asarray(find(labels, probabilities)))


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


def issue_table(
    labels: np.ndarray, suggested: np.ndarray, label_quality: np.ndarray, flagged: np.ndarray
) -> pd.DataFrame:
    """What every table of label issues holds."""
    import pandas as pd

    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "suggested": suggested,
            "label_quality": label_quality,
            "flagged": flagged.astype(bool),
        }
    )


def compare_rankings(a: ArrayLike, b: ArrayLike, *, top: int) -> Agreement:
    """Compare the `top` images of two scores of the same images, low first: of two label qualities.

    Equal scores stand in data order; NaN stands last.

    Args:
        a: (N,).
        b: (N,).
        top: From 1 to N.

    Raises:
        InputError: Shapes differ, or top is outside its range.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"the scores are {a.shape} and {b.shape}; two rankings need the same (N,)")
    if not 1 <= top <= len(a):
        raise InputError(f"the top {top} of {len(a)} images; from 1 to the number of images fit")
    top_a, top_b = (np.argsort(scores, kind="stable")[:top] for scores in (a, b))
    both, first, second = np.intersect1d(top_a, top_b, return_indices=True)
    both = both[np.argsort(first + second, kind="stable")]
    chance = top**2 / len(a)
    jaccard = len(both) / (2 * top - len(both))
    return Agreement(top, tuple(both.tolist()), jaccard, chance / (2 * top - chance))
