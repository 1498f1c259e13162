"""An audit as users and the report have it: its result, a row for each image, and the files of both."""

from __future__ import annotations

import html
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from sightline.audit.inputs import first_problem
from sightline.audit.neighbors import Neighbors
from sightline.audit.result import (
    ADAPTER,
    SCHEMA,
    Accuracy,
    AuditResult,
    AuditWarning,
    Calibration,
    ConformalSets,
    ConfusedPair,
    Difficulty,
    Duplicates,
    ErrorBudget,
    Finding,
    Fix,
    LabelIssues,
    Robustness,
    Selective,
    Slice,
)
from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.files import atomic_path, check_regular, write_atomic

if TYPE_CHECKING:
    import pandas as pd

RESULT_FILE, TEST_FILE, TRAIN_FILE = "audit.json", "audit_test.parquet", "audit_train.parquet"
NEIGHBORS_FILE = "audit_neighbors.npz"

TEST_COLUMNS = (
    *(
        "index",
        "label",
        "predicted",
        "loss",
        "confidence",
        "margin",
        "ambiguity",
        "label_quality",
        "suggested",
    ),
    *("cause", "slice", "near_duplicate", "difficulty", "set_size"),
)
"""Of the table of test images; `Audit` says what they hold."""

MAP_COLUMNS = ("map_x", "map_y")
"""And of audits that had features: where the image lies on the map, in [0, 1]."""

TRAIN_COLUMNS = (
    *("index", "label", "label_quality", "suggested", "flagged", "aum", "forgetting", "p_mean", "p_std"),
    "near_duplicate",
)
"""Of the table of training images."""

WHOLE = {"index", "label", "predicted", "suggested", "slice", "near_duplicate", "set_size"}
"""Columns of whole numbers: of images, or of classes."""

FILE_COLUMNS = ("path", "hash")
"""Of both tables, where it is known: where the picture is, and the hash of its content."""

TableName = Literal[
    "causes",
    "confused_pairs",
    "duplicates",
    "fixes",
    "robustness",
    "slices",
    "label_issues",
    "train_label_issues",
]


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found. In a notebook it shows itself: accuracy, causes of the mistakes, what to fix
    first.

    Attributes:
        result: All findings; each is also an attribute here: `audit.calibration.ece`, `audit.fixes`.
        test: A row for each test image, in data order. index, label, predicted, loss, confidence, margin
            (largest minus second largest probability), ambiguity, label_quality, suggested (class in the
            label's place), cause (of `Cause`, "" for images that are right), slice (number in `slices`, -1
            for none), near_duplicate (most alike training image, -1 for none), difficulty (of
            `DifficultyKind`, "" for none), set_size (classes in its conformal set for a coverage of 0.9).
        train: A row for each training image, in data order. index, label, label_quality, suggested, flagged,
            aum (area under the margin), forgetting (events; -1 for an image that was never right), p_mean,
            p_std (of the label's probability over the epochs), near_duplicate (most alike test image, -1 for
            none). What is not known is NaN. Both tables end with path and hash of the picture, where known.
        neighbors: Of the mistakes, in training; None without features.
    """

    result: AuditResult
    test: pd.DataFrame
    train: pd.DataFrame
    neighbors: Neighbors | None

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy, its interval, and that with test-time augmentation."""
        return self.result.accuracy

    @property
    def calibration(self) -> Calibration:
        """How far confidence is from accuracy."""
        return self.result.calibration

    @property
    def selective(self) -> Selective:
        """What it costs to answer only when sure."""
        return self.result.selective

    @property
    def conformal(self) -> tuple[ConformalSets, ...]:
        """Sets of classes that hold the true one as often as wanted."""
        return self.result.conformal

    @property
    def confused_pairs(self) -> tuple[ConfusedPair, ...]:
        """Pairs of classes, the most frequently confused first."""
        return self.result.confused_pairs

    @property
    def difficulty(self) -> Difficulty:
        """Images that are ambiguous, hard but right, easy but wrong."""
        return self.result.difficulty

    @property
    def label_issues(self) -> LabelIssues:
        """Labels that are in doubt, and what may be said of them."""
        return self.result.label_issues

    @property
    def duplicates(self) -> Duplicates | None:
        """Near-duplicates within and between the splits; None without images."""
        return self.result.duplicates

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Kinds of test images that are wrong more often than others."""
        return self.result.slices

    @property
    def robustness(self) -> Robustness | None:
        """Error rates under corruption; None where they were not measured."""
        return self.result.robustness

    @property
    def error_budget(self) -> ErrorBudget:
        """The mistakes by cause."""
        return self.result.error_budget

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """The actions, in the order to do them."""
        return self.result.fixes

    @property
    def warnings(self) -> tuple[AuditWarning, ...]:
        """What makes the numbers mean less than they seem to."""
        return self.result.warnings

    @property
    def ground_truth(self) -> tuple[Finding, ...]:
        """On generated data: findings next to what was planted."""
        return self.result.ground_truth

    def table(self, name: TableName) -> pd.DataFrame:
        """Return a part of the result as a table, a row for each of its entries.

        Args:
            name: "causes", "confused_pairs", "duplicates", "fixes", "robustness" or "slices"; "label_issues"
                (of the test split) and "train_label_issues" have every image, the lowest quality first.

        Returns:
            Columns are the fields of the entries; (low, high) of an interval are two columns, and so are the
            fields of a gain. Empty for a part that is not available.

        Raises:
            InputError: There is no such table.
        """
        import pandas as pd

        if name in ("label_issues", "train_label_issues"):
            every = self.test if name == "label_issues" else self.train
            return every.sort_values("label_quality", kind="stable", na_position="last")
        parts = {
            "causes": ("error_budget", "causes"),
            "duplicates": ("duplicates", "pairs"),
            "robustness": ("robustness", "rows"),
        }
        known = (*parts, "confused_pairs", "fixes", "label_issues", "slices", "train_label_issues")
        if name not in known:
            raise InputError(f"there is no table {name!r} of an audit; there are: {', '.join(sorted(known))}")
        value: object = self.result.to_dict()
        for key in parts.get(name, (name,)):
            value = value[key] if isinstance(value, dict) else []
        rows = value if isinstance(value, list) else []
        return pd.DataFrame([_flat(row) for row in rows])

    def _repr_html_(self) -> str:
        """The page's summary for a notebook; every text is escaped."""
        low, high = self.accuracy.interval
        head = (
            f"<p><b>{100 * self.accuracy.value:.2f} %</b> right on {self.accuracy.n} test images "
            f"({100 * low:.2f} to {100 * high:.2f} %)</p>"
        )
        warnings = "".join(f"<li>{html.escape(one.text)}</li>" for one in self.warnings)
        causes = self.table("causes")[["cause", "count", "share"]]
        fixes = self.table("fixes").reindex(columns=["title", "gain_value", "gain_unit", "why"]).head(5)
        return (
            f"{head}<ul>{warnings}</ul><p>Why the mistakes happen</p>"
            f"{causes.to_html(index=False, float_format='{:.3f}'.format)}<p>What to fix first</p>"
            f"{fixes.to_html(index=False, na_rep='–', float_format='{:.2f}'.format)}"
        )


def _flat(row: dict[str, object]) -> dict[str, object]:
    """One row of a table: an interval and a gain in columns of their own, overlaps left out."""
    flat: dict[str, object] = {}
    for key, value in row.items():
        if key == "interval" and isinstance(value, list):
            flat["interval_low"], flat["interval_high"] = value
        elif key == "gain":
            flat |= {f"gain_{name}": part for name, part in value.items()} if isinstance(value, dict) else {}
        elif key != "overlaps":
            flat[key] = value
    return flat


def write_audit(folder: str | Path, audit: Audit) -> None:
    """Write `audit.json`, `audit_test.parquet`, `audit_train.parquet` and `audit_neighbors.npz`.

    Each is whole or absent; `audit.json` is written last, so that a folder that has it has the others.
    """
    folder = Path(folder)
    for name, table in ((TEST_FILE, audit.test), (TRAIN_FILE, audit.train)):
        with atomic_path(folder / name) as partial:
            table.to_parquet(partial, index=False, compression="zstd")
    near = audit.neighbors
    if near is None:
        (folder / NEIGHBORS_FILE).unlink(missing_ok=True)  # of an audit before this one
    else:
        arrays = {
            "rows": near.rows,
            "indices": near.indices,
            "similarity": near.similarity.astype(np.float16),
        }
        write_atomic(folder / NEIGHBORS_FILE, lambda file: np.savez(file, **arrays))
    content = ADAPTER.dump_json(audit.result, indent=1)
    write_atomic(folder / RESULT_FILE, lambda file: file.write(content))


def read_audit(folder: str | Path) -> Audit:
    """Read what :func:`write_audit` wrote.

    Raises:
        NotFoundError: The folder has no audit, or a part of it is missing.
        DamagedFileError: A file cannot be read, is of another version of the package, or of another audit.
    """
    folder = Path(folder)
    again = f"'sightline audit {folder}' writes it anew"
    path = folder / RESULT_FILE
    try:
        result = _read_result(path, path.read_bytes(), again)
        tables = []
        for name, columns in ((TEST_FILE, TEST_COLUMNS), (TRAIN_FILE, TRAIN_COLUMNS)):
            path = folder / name
            tables.append(_read_table(path, columns))
        path = folder / NEIGHBORS_FILE
        near = _read_neighbors(path) if path.exists() else None
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing; 'sightline audit {folder}' writes it") from None
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, DamagedFileError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise DamagedFileError(f"{path} is damaged ({reason}); {again}") from None
    audit = Audit(result, tables[0], tables[1], near)
    _check_lengths(audit, folder, again)
    return audit


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd
    import pyarrow.parquet as pq

    check_regular(path)  # a pipe would be waited for
    known = set(pq.read_schema(path).names)
    table = pd.read_parquet(
        path, columns=[*columns, *(name for name in (*MAP_COLUMNS, *FILE_COLUMNS) if name in known)]
    )
    for name in WHOLE.intersection(columns):
        if table[name].dtype.kind not in "iu" or not table[name].between(-1, 2**31 - 1).all():
            raise ValueError(f"its column {name} holds something else than numbers of images or classes")
    return table


@checked_dataclass(frozen=True, config={"extra": "ignore"})
class _Header:
    schema: int | None = None


_HEADER = TypeAdapter(_Header)


def _read_result(path: Path, content: bytes, again: str) -> AuditResult:
    try:
        schema = _HEADER.validate_json(content, strict=True).schema
        if schema is None:
            raise DamagedFileError(f"{path} was written by version 0.1 of Sightline; {again}")
        if schema != SCHEMA:
            words = (
                "a newer Sightline: update this one" if schema > SCHEMA else f"an older Sightline: {again}"
            )
            raise DamagedFileError(
                f"{path} has schema {schema}, this Sightline reads {SCHEMA}; it is of {words}"
            )
        return ADAPTER.validate_json(content, strict=True)
    except ValidationError as error:
        raise DamagedFileError(f"{path} is damaged ({first_problem(error)}); {again}") from None


def _read_neighbors(path: Path) -> Neighbors:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        near = Neighbors(rows=file["rows"], indices=file["indices"], similarity=file["similarity"])
    if near.indices.ndim != 2 or near.indices.shape != near.similarity.shape:
        raise ValueError(f"indices are {near.indices.shape} and similarities {near.similarity.shape}")
    if near.rows.shape != near.indices.shape[:1]:
        raise ValueError(f"{near.rows.shape} rows have {len(near.indices)} lists of neighbors")
    return near


def _check_lengths(audit: Audit, folder: Path, again: str) -> None:
    """Raise if the files are of different audits."""
    tests, near = audit.accuracy.n, audit.neighbors
    if len(audit.test) != tests:
        raise DamagedFileError(
            f"{folder / TEST_FILE} has {len(audit.test)} rows and {RESULT_FILE} is about {tests}; {again}"
        )
    if near is None or not near.indices.size:
        return
    for values, size in ((near.rows, tests), (near.indices, len(audit.train))):
        if not 0 <= values.min() <= values.max() < size:
            raise DamagedFileError(f"{folder / NEIGHBORS_FILE} names image {values.max()} of {size}; {again}")
