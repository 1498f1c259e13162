"""The audit of a run as data: the files that a run with an audit has beside its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sightline.errors import SightlineError
from sightline.report.reading import read_file, read_json

_TEST = ("index", "label", "predicted", "loss", "confidence", "margin", "ambiguity", "suspicion", "suggested")
_TEST_MORE = ("cause", "slice", "twin", "set_size", "difficulty")
_TRAIN = ("index", "label", "suspicion", "suggested", "aum", "forgetting", "p_mean", "p_std", "twin")


@dataclass(frozen=True)
class AuditFiles:
    """What an audit left. test: a row per test image, in data order. train: the same of training images.

    facts: `audit.json`. arrays: `audit.npz`; `thumbnails` and `train_rows` are always there, maps and
    neighbours where the audit made them. probability: (E, N_train) of each epoch, NaN where unseen, or None.
    """

    test: pd.DataFrame
    train: pd.DataFrame
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    probability: np.ndarray | None


def read_audit(folder: Path, rows: int) -> AuditFiles | None:
    """Return the audit of a run's folder with `rows` predictions, or None if it has none.

    Raises SightlineError if a file of it is missing, damaged, or of another run.
    """
    if not (folder / "audit.json").is_file():
        return None
    audit = AuditFiles(
        test=read_file(folder / "audit_test.parquet", lambda path: _table(path, (*_TEST, *_TEST_MORE))),
        train=read_file(folder / "audit_train.parquet", lambda path: _table(path, _TRAIN)),
        facts=read_json(folder / "audit.json", ()),
        arrays=read_file(folder / "audit.npz", _arrays),
        probability=read_file(folder / "dynamics.npz", _probability, required=False),
    )
    _check(audit, folder, rows)
    return audit


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.read_parquet(path, columns=list(columns))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("thumbnails", "train_rows", "train_thumbnails"):
        if name not in arrays:
            raise ValueError(f"it lacks {name}")
    return arrays


def _probability(path: Path) -> np.ndarray:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return file["probability"]


def _check(audit: AuditFiles, folder: Path, rows: int) -> None:
    arrays, train = audit.arrays, len(audit.train)
    per_image = [name for name in ("thumbnails", "maps_predicted", "maps_true") if name in arrays]
    lengths = [("audit_test.parquet", len(audit.test))]
    lengths += [("audit.npz", len(arrays[name])) for name in per_image]
    for name, length in lengths:
        if length != rows:
            raise SightlineError(
                f"{folder / name} has {length} test images and predictions.parquet {rows}; the files are of "
                "different runs: audit the run again"
            )
    named = arrays["train_rows"]
    if len(named) and not 0 <= named.min() <= named.max() < train:
        raise SightlineError(
            f"{folder / 'audit.npz'} names training image {named.max()} and audit_train.parquet has {train} "
            "rows; the files are of different runs: audit the run again"
        )
    if audit.probability is not None and audit.probability.shape[1:] != (train,):
        raise SightlineError(
            f"{folder / 'dynamics.npz'} follows {audit.probability.shape[1]} training images and "
            f"audit_train.parquet has {train} rows; the files are of different runs: audit the run again"
        )
