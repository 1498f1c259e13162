"""The predictions of a model on a split: one row per image, in the order of the data.

    >>> import numpy as np
    >>> p = Predictions(np.array([[2.0, 0.0], [1.0, 1.5]]), np.array([0, 0]), ("cat", "dog"))
    >>> p.predicted.tolist(), p.margin.tolist()
    ([0, 1], [2.0, -0.5])

Everything but the logits and the labels is derived, so a table can never disagree with itself.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import DamagedFileError, InputError, NotFoundError, SightlineError
from sightline.files import SCHEMA, atomic_path, check_regular, check_schema

if TYPE_CHECKING:
    import pandas as pd


_FILE_COLUMNS = ("path", "hash")


@dataclass(frozen=True)
class Predictions:
    """Logits of N images and C classes, with their labels.

    Attributes:
        logits: (N, C) float.
        labels: (N,) integers in 0..C-1.
        class_names: C strings.
        files: N rows with the columns path and hash, as `Split.files` has them; None where nothing is known.

    Raises:
        InputError: Shapes that do not agree.
    """

    logits: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    files: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        n, c = len(self.labels), len(self.class_names)
        if self.logits.shape != (n, c):
            raise InputError(
                f"logits are {self.logits.shape}; {n} labels and {c} class names need ({n}, {c})"
            )
        if self.files is not None and len(self.files) != n:
            raise InputError(f"files has {len(self.files)} rows; {n} labels need {n}")

    @classmethod
    def from_probabilities(
        cls, probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
    ) -> Predictions:
        """Return the predictions of rows of probabilities: their logarithms are logits.

        Args:
            probabilities: (N, C), each row sums to 1.
            labels: (N,) integers in 0..C-1.
            class_names: C strings.

        Raises:
            InputError: A row is not of probabilities, or shapes do not agree.

        >>> Predictions.from_probabilities(np.array([[0.25, 0.75]]), np.array([1]), ("cat", "dog")).confidence
        array([0.75])
        """
        rows = np.asarray(probabilities, np.float64)
        if rows.ndim != 2 or not np.isfinite(rows).all() or rows.min(initial=0) < 0:
            raise InputError(f"probabilities are {rows.shape}; they need (N, C) numbers of 0 or more")
        sums = rows.sum(axis=1)
        if len(rows) and np.abs(sums - 1).max() > 1e-3:
            worst = int(np.abs(sums - 1).argmax())
            raise InputError(f"row {worst} of the probabilities sums to {sums[worst]:.4g}; it needs 1")
        return cls(np.log(np.maximum(rows, 1e-12)), labels, tuple(class_names))

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def log_probabilities(self) -> np.ndarray:
        """Log-softmax of the logits, (N, C) float64."""
        logits = self.logits.astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, (N, C) float64."""
        return np.exp(self.log_probabilities)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """Class with the largest logit, the first one where several are equal, (N,) int64."""
        return self.logits.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Whether predicted equals the label, (N,) bool."""
        return self.predicted == self.labels

    @functools.cached_property
    def loss(self) -> np.ndarray:
        """Cross-entropy of each image in nats, (N,) float64."""
        return -self.log_probabilities[np.arange(len(self)), self.labels]

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, (N,) in [1/C, 1]."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def margin(self) -> np.ndarray:
        """Logit of the label minus the largest other logit, (N,); negative where the model is wrong."""
        rows = np.arange(len(self))
        others = self.logits.astype(np.float64)
        own = others[rows, self.labels].copy()
        others[rows, self.labels] = -np.inf
        return own - others.max(axis=1)

    @functools.cached_property
    def entropy(self) -> np.ndarray:
        """Entropy of the probabilities in nats, (N,) in [0, log C]."""
        return -(self.probabilities * self.log_probabilities).sum(axis=1)

    def to_frame(self) -> pd.DataFrame:
        """Return the table without the logits: index, label, predicted, loss, confidence, margin, entropy.

        The columns path and hash follow where they are known.
        """
        import pandas as pd

        columns = ("label", "predicted", "loss", "confidence", "margin", "entropy")
        values = {name: getattr(self, name if name != "label" else "labels") for name in columns}
        if self.files is not None:
            values |= {name: self.files[name].to_numpy() for name in _FILE_COLUMNS}
        return pd.DataFrame({"index": np.arange(len(self)), **values})


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the table with its logits as Parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(predictions.to_frame(), preserve_index=False)
    flat = pa.array(np.ascontiguousarray(predictions.logits, dtype=np.float32).ravel())
    logits = pa.FixedSizeListArray.from_arrays(flat, predictions.logits.shape[1])
    table = table.append_column("logits", logits)
    names = json.dumps(list(predictions.class_names))
    table = table.replace_schema_metadata({"class_names": names, "schema": str(SCHEMA)})
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_predictions(path: Path) -> Predictions:
    """Read what :func:`write_predictions` wrote.

    Raises:
        NotFoundError: There is no such file.
        DamagedFileError: It is damaged, or has no logits.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_regular(path)
        known = set(pq.read_schema(path).names)
        named = [name for name in _FILE_COLUMNS if name in known]
        table = pq.read_table(path, columns=["label", "logits", *named])
        metadata = table.schema.metadata
        check_schema(path, int(metadata.get(b"schema", 1)))
        names = json.loads(metadata[b"class_names"])
        if not names or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names")
        logits = table["logits"].combine_chunks().flatten().to_numpy().reshape(-1, len(names))
        labels = table["label"].to_numpy()
        if (
            not len(labels)
            or len(labels) != len(logits)
            or not 0 <= labels.min() <= labels.max() < len(names)
        ):
            raise ValueError("label")
        "".join(names).encode()  # half a character could not be written anywhere
    except SightlineError:
        raise
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing; 'sightline analyze RUN' writes it") from None
    except (
        *(pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError),
        *(RecursionError, MemoryError),
    ) as error:
        raise DamagedFileError(
            f"{path} is not a table of predictions ({type(error).__name__}: {_first_line(error)}); "
            "write it again with 'sightline analyze RUN'"
        ) from None
    files = table.select(named).to_pandas() if len(named) == len(_FILE_COLUMNS) else None
    return Predictions(logits, labels, tuple(names), files)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
