"""Is B better than A on the same images: fixed, broken, churned, and whether chance alone explains it.

>>> labels, names = np.array([0, 1, 1, 0]), ("a", "b")
>>> a = Predictions(np.eye(2)[[0, 1, 0, 1]], labels, names)
>>> b = Predictions(np.eye(2)[[0, 1, 1, 1]], labels, names)
>>> result = compare_predictions(a, b)
>>> result.fixed.tolist(), result.broken.tolist(), result.difference, result.p
([2], [], 0.25, 1.0)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.data.image_files import content_hash
from sightline.errors import InputError
from sightline.predictions import Predictions
from sightline.predictions.scores import Change, compare_scores
from sightline.stats import paired_interval

if TYPE_CHECKING:
    import pandas as pd

_NOTHING = content_hash(b"")  # of labels without pictures


@dataclass(frozen=True)
class Comparison:
    """Two models' predictions on the same images.

    Together fixed, broken and churned are all images whose prediction changed.

    Attributes:
        fixed: Indices of the images that only B gets right.
        broken: Indices of the images that only A gets right.
        churned: Indices of the images that both get wrong in different ways.
        accuracy_a: In [0, 1].
        accuracy_b: In [0, 1].
        difference: Accuracy of B minus that of A.
        interval: Of the difference, 95 %.
        p: Exact McNemar test (two-sided) of "fixed and broken are equally likely".
        per_class: A row for each class: label, count, a, b, difference, interval_low, interval_high, fixed,
            broken (NaN shares for a class without images).
        metrics: By name what each metric was and is, with the paired bootstrap interval of the difference.
    """

    fixed: np.ndarray
    broken: np.ndarray
    churned: np.ndarray
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval: tuple[float, float]
    p: float
    per_class: pd.DataFrame
    metrics: dict[str, Change] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON (NaN as None)."""
        rows = self.per_class.astype(object).where(self.per_class.notna(), None)
        return {
            "fixed": self.fixed.tolist(),
            "broken": self.broken.tolist(),
            "churned": self.churned.tolist(),
            "mcnemar": {"b": len(self.broken), "c": len(self.fixed), "p": self.p},
            "accuracy": {
                "a": self.accuracy_a,
                "b": self.accuracy_b,
                "difference": self.difference,
                "interval": list(self.interval),
            },
            "per_class": rows.to_dict("records"),
            "metrics": {name: dataclasses.asdict(change) for name, change in self.metrics.items()},
        }


def compare_predictions(a: Predictions, b: Predictions) -> Comparison:
    """Compare two models image by image.

    The interval of a difference is that of Agresti & Min (2005) for paired shares.

    Raises:
        InputError: They are not about the same images: as many, with the same labels and classes.
    """
    import pandas as pd
    from scipy.stats import binomtest

    _check_same(a, b)
    fixed, broken = ~a.correct & b.correct, a.correct & ~b.correct
    churned = ~a.correct & ~b.correct & (a.predicted != b.predicted)
    gained, lost = int(fixed.sum()), int(broken.sum())
    low, high = paired_interval(gained, lost, len(a))
    classes = len(a.class_names)
    count, right_a, right_b, better, worse = (
        np.bincount(a.labels[chosen], minlength=classes)
        for chosen in (slice(None), a.correct, b.correct, fixed, broken)
    )
    totals = np.where(count, count, np.nan)
    lows, highs = paired_interval(better, worse, totals)
    per_class = pd.DataFrame(
        {
            "label": list(a.class_names),
            "count": count,
            "a": right_a / totals,
            "b": right_b / totals,
            "difference": (better - worse) / totals,
            "interval_low": lows,
            "interval_high": highs,
            "fixed": better,
            "broken": worse,
        }
    )
    return Comparison(
        fixed=np.flatnonzero(fixed),
        broken=np.flatnonzero(broken),
        churned=np.flatnonzero(churned),
        accuracy_a=float(a.correct.mean()),
        accuracy_b=float(b.correct.mean()),
        difference=(gained - lost) / len(a),
        interval=(float(low), float(high)),
        p=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        per_class=per_class,
        metrics=compare_scores(a, b),
    )


def match_images(a: pd.DataFrame, b: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows of two tables with the columns path and hash are of the same image, (M,) each.

    The content decides: what has another content under the same path is another image. By their paths go
    images of which no content is known. Copies within a table are matched in the order of their paths.

    >>> import pandas as pd
    >>> old = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "hash": ["1", "2", "3"]})
    >>> new = pd.DataFrame({"path": ["c.png", "moved.png", "b.png"], "hash": ["9", "1", "2"]})
    >>> [rows.tolist() for rows in match_images(old, new)]
    [[0, 1], [1, 2]]
    """
    keys = [_keys(table) for table in (a, b)]
    both = keys[0].merge(keys[1], on=["key", "copy"], suffixes=("_a", "_b")).sort_values("row_a")
    return both["row_a"].to_numpy(np.int64), both["row_b"].to_numpy(np.int64)


def _keys(files: pd.DataFrame) -> pd.DataFrame:
    """What each row is known by: key and, among equal ones, the number of the copy."""
    import pandas as pd

    hashes = files["hash"].fillna("").astype(str).to_numpy()
    paths = files["path"].fillna("").astype(str).to_numpy()
    known = (hashes != "") & (hashes != _NOTHING)
    keys = pd.DataFrame(
        {"key": np.where(known, "hash " + hashes.astype(object), "path " + paths.astype(object))}
    )
    keys["row"], keys["path"] = np.arange(len(keys)), paths
    keys = keys.sort_values(["key", "path"], kind="stable")
    keys["copy"] = keys.groupby("key").cumcount()
    return keys.drop(columns="path")


def _check_same(a: Predictions, b: Predictions) -> None:
    if a.class_names != b.class_names:
        raise InputError(
            f"the classes differ: {', '.join(a.class_names[:5])} ... and {', '.join(b.class_names[:5])} ...; "
            "only models of the same classes can be compared"
        )
    if len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} images; compare both models on the same test split")
    differing = int((a.labels != b.labels).sum())
    if differing:
        raise InputError(
            f"the labels of {differing} of {len(a)} images differ; predict both with the same labels, or "
            "give both the corrected ones: Predictions(a.logits, b.labels, a.class_names)"
        )
