"""What an audit looks at (arrays, of a run or of anybody's model), and the checks of them.

Also here: random halves of arrays, one to choose on and one to check on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.result import Robustness
from sightline.data import Dataset
from sightline.errors import InputError
from sightline.predictions import Dynamics, Predictions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from pydantic import ValidationError

CHUNK = 1 << 16  # rows at a time, where a step needs a table of floats of its own


def confident(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence (N,) float64 in [0, 1] and correct (N,) bool, or say what does not fit."""
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise InputError(
            f"confidence is {confidence.shape} and correct {correct.shape}; both need the same (N,), N > 0"
        )
    if not (np.isfinite(confidence).all() and confidence.min() >= 0 and confidence.max() <= 1):
        raise InputError("confidence holds values outside [0, 1]; give probabilities, not logits")
    if not np.isin(correct, (0, 1)).all():
        raise InputError("correct holds values other than true and false; give one per image")
    return confidence, correct.astype(bool)


def labelled(
    labels: ArrayLike, table: ArrayLike, what: str = "probabilities"
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) int64 and the finite table (N, C) of `what`, or say what does not fit."""
    labels, table = np.asarray(labels), np.asarray(table)
    if table.ndim != 2 or labels.shape != table.shape[:1] or not table.size:
        raise InputError(
            f"labels are {labels.shape} and {what} {table.shape}; (N,) and (N, C) are needed, N and C > 0"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= table.shape[1]:
        raise InputError(
            f"labels are {labels.dtype} from {labels.min()} to {labels.max()}; {table.shape[1]} columns of "
            f"{what} need integers from 0 to {table.shape[1] - 1}"
        )
    if not np.isfinite(table).all():
        raise InputError(f"{what} hold values that are not finite; leave those images out")
    if what == "probabilities" and not (table.min() >= 0 and table.max() <= 1 + 1e-6):
        raise InputError("probabilities hold values outside [0, 1]; give the softmax of the logits")
    return labels.astype(np.int64, copy=False), table


def of_label(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The entry of each row at its label, (N,)."""
    return table[np.arange(len(labels)), labels]


def best_other(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The column of the largest entry of each row except that at its label, the first of equals, (N,).

    With one column it is the label itself.
    """
    found = np.empty(len(labels), np.int64)
    for start in range(0, len(labels), CHUNK):
        rows = table[start : start + CHUNK].astype(np.float64)
        rows[np.arange(len(rows)), labels[start : start + CHUNK]] = -np.inf
        found[start : start + CHUNK] = rows.argmax(axis=1)
    return found


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split 0..count-1 at random in one half to choose something on and one to check it on."""
    if count < 2:
        raise InputError(f"{count} image cannot be halved; choosing and checking need at least 2")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def first_problem(error: ValidationError) -> str:
    """Return where a file is wrong and how, in at most 120 characters of one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return " ".join(f"{where}: {first['msg']}".removeprefix(": ").split())[:120]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The data, predictions on its test split, and what else is known of the model; all in data order.

    Only the predictions are needed. Each thing more gives the audit parts more.

    Attributes:
        data: Both splits with their images; None where there are none.
        predictions: On the test split.
        train: Predictions on the training split, by the model that was trained on it.
        features: (N, D) of the test split.
        train_features: (N_train, D) of the training split.
        frozen: (N, D) of the test split, by a network that has not learned from the labels of this data.
        train_frozen: (N_train, D) the same of the training split.
        tta: (V, N, C) probabilities of V versions of each test image (test-time augmentation), the image
            itself first.
        others: (R, N, C) probabilities by R other models, of other seeds say; where they and this one differ,
            an image is ambiguous.
        maps: (N, h, w) raw signed maps of the test images for the predicted class.
        believed: Whether these maps beat maps that know nothing; without, no slice rests on them.
        dynamics: Of the training split.
        out_of_fold: (N_train, C) probabilities by models that were not trained on the image.
        robustness: Of `measure_robustness`.
        seed: Of the halves on which a finding is made and checked.
        plant: Plant wrong labels and measure how many of them the lists find; takes a minute.

    Raises:
        InputError: An array is not about this data.
    """

    data: Dataset | None
    predictions: Predictions
    train: Predictions | None = None
    features: np.ndarray | None = None
    train_features: np.ndarray | None = None
    frozen: np.ndarray | None = None
    train_frozen: np.ndarray | None = None
    tta: np.ndarray | None = None
    others: np.ndarray | None = None
    maps: np.ndarray | None = None
    believed: bool = True
    dynamics: Dynamics | None = None
    out_of_fold: np.ndarray | None = None
    robustness: Robustness | None = None
    seed: int = 0
    plant: bool = False

    def __post_init__(self) -> None:
        test, train = len(self.predictions), None if self.data is None else len(self.data.train)
        found = {
            "predictions": (test, test if self.data is None else len(self.data.test)),
            "train": (_length(self.train), train),
            "features": (_length(self.features), test),
            "train_features": (_length(self.train_features), train),
            "frozen": (_length(self.frozen), test),
            "train_frozen": (_length(self.train_frozen), train),
            "tta": (None if self.tta is None else self.tta.shape[1], test),
            "others": (None if self.others is None else self.others.shape[1], test),
            "maps": (_length(self.maps), test),
            "dynamics": (_length(self.dynamics), train),
            "out_of_fold": (_length(self.out_of_fold), train),
        }
        for name, (came, fits) in found.items():
            if came is not None and fits is None:
                raise InputError(f"{name} is about training images and there is no data; give data as well")
            if came not in (None, fits):
                raise InputError(f"{name} has {came} rows and the data's split {fits}; both need the same")
        if not test:
            raise InputError("there are no predictions; an audit needs at least one test image")
        if self.data is not None and not np.array_equal(self.predictions.labels, self.data.test.labels):
            raise InputError(
                "the labels of the predictions are not those of data.test; predict this very data set"
            )


def _length(value: object) -> int | None:
    return None if value is None else len(value)  # pyright: ignore[reportArgumentType]
