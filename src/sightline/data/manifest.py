"""Pictures named by a table: a CSV or Parquet file with a path and a label in each row.

    path,label,split,patient
    a/1.jpg,cat,train,7
    b/2.jpg,dog,test,9

`path` is seen from the manifest's folder. `split` (train or test) and a group are optional; all other
columns are kept in `Split.metadata`. A row that does not fit is left out and named with its number; nothing
is guessed. Where the pictures are elsewhere, the table alone is a data set of labels (`pictures=False`).
"""

from __future__ import annotations

import ast
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sightline.data.dataset import Dataset, Split
from sightline.data.image_files import ImageFiles, content_hash
from sightline.data.image_folder import Reading, draw_split
from sightline.data.picture_cache import open_pictures
from sightline.errors import DamagedFileError, InputError
from sightline.files import check_regular, shown_name

MANIFESTS = (".csv", ".parquet")
_TRAIN, _TEST = ("train", "training"), ("test", "val", "valid", "validation")
_SEPARATORS = "|;,"


@dataclass(frozen=True)
class Columns:
    """What the columns of a manifest are called. group: "" for a column `group`, if there is one."""

    path: str = "path"
    label: str = "label"
    split: str = "split"
    group: str = ""


def load_manifest(
    file: str | Path,
    reading: Reading,
    *,
    columns: Columns,
    pictures: bool = True,
) -> Dataset:
    """Return the pictures that a CSV or Parquet file names.

    Without a column of splits a share of each class is tested, drawn by seed; no group
    is in both splits. With one, "train" is trained on and the first of "test", "val" and "valid" that there
    is, tested; where none is for training, there is a test split alone. Rows that do not fit (no such file,
    no label, a path twice, an unknown split, a picture that cannot be read) are left
    out and named in `Dataset.skipped`, and counted in `Dataset.notes`.

    Args:
        file: The manifest.
        reading: How its pictures are read.
        columns: What its columns are called.
        pictures: False for the labels alone: no file is opened, and a row is known by its path, or by its
            number where there is no column of paths.

    Raises:
        DamagedFileError: It is no table.
        InputError: A column is missing, more than half of the rows do not fit, labels are lists (several
            labels of one picture are not supported), or fewer than two classes are left.
    """
    path = Path(file)
    table = _read_table(path)
    rows, problems = checked_rows(path, table, columns, pictures=pictures)
    listed = Listed(path, path.stem, len(table), rows, problems)
    if not pictures:
        listed.check()
        listed.rows["hash"] = [content_hash(name.encode()) for name in rows["path"]]
        images = np.zeros((len(rows), 0, 0, 3), np.uint8)
        reading = dataclasses.replace(reading, keep_together="")
        return listed.dataset(images, reading, source=f"{path}, without pictures")
    paths = [os.path.join(path.parent, name) for name in rows["path"]]  # noqa: PTH118 - an absolute one stays
    return listed.opened(paths, reading)


@dataclass
class Listed:
    """Pictures that a table names, on their way to a data set.

    Attributes:
        origin: The file or folder that lists them, for messages, and for the cache of what was decoded.
        name: What the data set is called.
        total: Rows that there were.
        rows: Those that fit, with the columns row, path and label; split, group and more where given.
        problems: (row, path, reason) of the others.
        classes: Names of the classes, where they do not follow from the labels.
    """

    origin: Path
    name: str
    total: int
    rows: pd.DataFrame
    problems: list[tuple[int, str, str]]
    classes: tuple[str, ...] = ()

    def opened(self, places: list[str], reading: Reading) -> Dataset:
        """Return the data set with the pictures at `places`, one for each row; those that can be read."""
        self.check()
        resizing = reading.resizing(places)
        streamed = reading.streams(resizing, len(places))
        found = open_pictures(places, resizing, stream=streamed, root=self.origin)
        for number, reason in found.failures.items():
            one = self.rows.iloc[number]
            self.problems.append((int(one["row"]), one["path"], reason))
        self.rows = self.rows.iloc[found.rows].reset_index(drop=True).assign(hash=found.hashes)
        source = f"{self.origin}, streamed" if streamed else str(self.origin)
        return self.dataset(found.images, reading, source=source, resizing=resizing)

    def dataset(self, images: np.ndarray | ImageFiles, reading: Reading, **known: Any) -> Dataset:
        """Return the data set of these images, one for each row."""
        self.check()
        rows, path = self.rows, self.origin
        trained = np.ones(len(rows), bool)
        if "split" in rows and "train" in rows["split"].to_numpy():
            trained = rows["split"].to_numpy() == "train"
        names = self.classes or tuple(sorted(set(rows["label"].to_numpy()[trained]), key=_in_order))
        if len(names) < 2:
            raise InputError(f"{path} has {len(names)} classes to train on; a data set needs two or more")
        fits = rows["label"].isin(names).to_numpy()
        for row in rows[~fits].itertuples():
            reason = f"label {row.label!r} is not among those of training"  # pyright: ignore
            self.problems.append((row.row, row.path, reason))  # pyright: ignore
        numbers = {name: number for number, name in enumerate(names)}
        labels = np.array([numbers.get(label, -1) for label in rows["label"]])
        whole = Split(images, labels, rows.drop(columns=["row", "label"]))
        notes = _notes(path, self.total, self.problems)
        if "split" in rows:
            marks = rows["split"].to_numpy()
            train, test = (whole.take(np.flatnonzero((marks == word) & fits)) for word in ("train", "test"))
            notes += _shared_groups(train, test)
        else:
            train, test, more = draw_split(whole, names, reading)
            notes += more
        skipped = [f"row {row}: {shown_name(name)}: {reason}" for row, name, reason in sorted(self.problems)]
        known |= {"skipped": tuple(skipped), "notes": tuple(notes)}
        return Dataset(self.name, names, train, test, **known)

    def check(self) -> None:
        """Raise InputError where there is no row, or more than half of them do not fit."""
        path, problems = self.origin, self.problems
        if not self.total:
            raise InputError(f"{path} has no rows; each row names a picture and its label")
        if 2 * len(self.rows) < self.total:
            row, name, reason = min(problems)
            raise InputError(
                f"{len(problems)} of {self.total} rows of {path} do not fit (row {row}: {shown_name(name)}: "
                f"{reason}); paths are seen from the manifest's folder"
            )


def manifest_paths(file: Path, column: str) -> list[str]:
    """Return what the rows of a manifest are known by, in their order: their paths, or else their numbers.

    Raises DamagedFileError if it is no table.
    """
    return _paths(_read_table(file), column)


def _paths(table: pd.DataFrame, column: str) -> list[str]:
    if column in table:
        return [as_text(name).replace("\\", "/") for name in table[column]]
    numbers = table["index"] if "index" in table else np.arange(len(table))
    return [f"{as_text(number):>05}" for number in numbers]


def _read_table(path: Path) -> pd.DataFrame:
    try:
        check_regular(path)
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except Exception as error:  # a damaged file can make a reader raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DamagedFileError(f"{path} cannot be read as a table of pictures: {reason}") from None
    table.columns = [str(name).strip() for name in table.columns]
    if table.columns.has_duplicates:
        raise InputError(f"{path} has two columns of one name; name each once")
    return table.reset_index(drop=True)


def checked_rows(
    path: Path, table: pd.DataFrame, columns: Columns, *, pictures: bool
) -> tuple[pd.DataFrame, list[tuple[int, str, str]]]:
    """Rows that fit, with the columns row, path, label, and split and group where given; and the others."""
    if not pictures and columns.path not in table:
        table = table.assign(**{columns.path: _paths(table, columns.path)})
    for name, key in ((columns.path, "path_column"), (columns.label, "label_column")):
        if name not in table:
            raise InputError(
                f"{path} has no column {name!r}, only {', '.join(table.columns)}; "
                f"name the right one with --set data.{key}=NAME"
            )
    group = columns.group or ("group" if "group" in table else "")
    if group and group not in table:
        raise InputError(f"{path} has no column {group!r}, only {', '.join(table.columns)}; see data.group")
    labels = table[columns.label]
    _refuse_many_labels(path, labels)
    rows = pd.DataFrame(
        {
            "row": np.arange(len(table)) + (2 if path.suffix.lower() == ".csv" else 1),
            "path": [as_text(name).replace("\\", "/") for name in table[columns.path]],
            "label": [as_text(label) for label in labels],
        }
    )
    if columns.split in table:
        rows["split"] = _splits(table[columns.split])
    if group:
        rows["group"] = [as_text(value) for value in table[group]]
    used = {columns.path, columns.label, columns.split, group, *rows.columns}
    for name in table.columns:
        if name not in used:
            rows["given_hash" if name == "hash" else name] = _numbers(table[name])
    reasons = _reasons(path, rows, pictures=pictures)
    problems = [
        (int(row), name, reason)
        for row, name, reason in zip(rows["row"], rows["path"], reasons, strict=True)
        if reason
    ]
    fits = np.flatnonzero([not reason for reason in reasons])
    return rows.iloc[fits].reset_index(drop=True), problems


def _reasons(path: Path, rows: pd.DataFrame, *, pictures: bool) -> list[str]:
    """Why each row is left out; "" for one that fits."""
    seen: dict[str, int] = {}
    labels: dict[str, int] = rows.groupby("path")["label"].nunique().to_dict()
    found = []
    for row in rows.to_dict("records"):
        name, reason = row["path"], ""
        if not name:
            reason = "no path"
        elif not row["label"]:
            reason = "no label"
        elif pictures and ("\0" in name or not Path(path.parent, name).is_file()):
            reason = "no such file"
        elif labels[name] > 1:
            reason = f"duplicate path with {labels[name]} labels"
        elif name in seen:
            reason = f"duplicate path, as row {seen[name]}"
        elif "split" in row and row["split"] in _TEST and row["split"] != "test":
            reason = f"rows of {row['split']!r} are not used, as there are others to test"
        elif "split" in row and row["split"] not in ("train", "test"):
            reason = f"unknown split {row['split']!r}; known: train, test, val, valid"
        elif "group" in row and not row["group"]:
            reason = "no group"
        seen.setdefault(name, row["row"])
        found.append(reason)
    return found


def _splits(given: Iterable[Any]) -> list[str]:
    words = [as_text(word).lower() for word in given]
    tested = next((word for word in _TEST if word in words), "")
    return ["train" if word in _TRAIN else "test" if word and word == tested else word for word in words]


def as_text(value: object) -> str:
    if value is None or value != value:  # a missing number is not equal to itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _numbers(column: Any) -> Any:
    """A column of texts as numbers, where all of them are; of other texts a missing one is ""."""
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column.where(column.notna(), "").astype(str)


def _refuse_many_labels(path: Path, labels: Iterable[Any]) -> None:
    several = "several labels of one picture are not supported; give each row one label"
    if any(isinstance(one, list | tuple | set | np.ndarray) for one in labels):
        raise InputError(f"{path} has lists in its column of labels: {several}")
    texts = {as_text(one) for one in labels}
    for text in texts:
        if text[:1] == "[" and _is_list(text):
            raise InputError(f"{path} has the label {text!r}: {several}")
        for separator in _SEPARATORS:
            parts = [part.strip() for part in text.split(separator)]
            if len(parts) > 1 and all(part in texts for part in parts):
                raise InputError(f"{path} has the label {text!r}, whose parts are labels too: {several}")


def _is_list(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _in_order(name: str) -> tuple[int, str]:
    """Numbers by their size, before words."""
    return (int(name), "") if name.isdecimal() and len(name) < 10 else (2**31, name)


def _notes(path: Path, total: int, problems: list[tuple[int, str, str]]) -> list[str]:
    if not problems:
        return []
    kinds = Counter(reason.partition(",")[0].partition(";")[0] for _, _, reason in problems)
    words = ", ".join(f"{count} × {reason}" for reason, count in kinds.most_common(5))
    return [f"{len(problems)} of {total} rows of {path.name} are left out: {words}"]


def _shared_groups(train: Split, test: Split) -> list[str]:
    if "group" not in train.metadata:
        return []
    shared = sorted(set(train.metadata["group"]) & set(test.metadata["group"]))
    if not shared:
        return []
    some = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
    return [f"{len(shared)} groups are in both splits ({some}): what is measured is too good"]
