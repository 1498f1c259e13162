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
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sightline.data.dataset import Dataset, Split
from sightline.data.image_files import ImageFiles, Interpolation, Resize, content_hash
from sightline.data.image_folder import common_resizing, draw_split, streams
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
    *,
    columns: Columns = Columns(),
    image_size: int | tuple[int, int] | None = None,
    resize: Resize = "crop",
    interpolation: Interpolation = "bicubic",
    test_fraction: float = 0.2,
    seed: int = 0,
    stream: bool | Literal["auto"] = "auto",
    keep_together: Literal["", "near-duplicates"] = "",
    pictures: bool = True,
) -> Dataset:
    """Return the pictures that a CSV or Parquet file names.

    Without a column of splits the share `test_fraction` of each class is tested, drawn by `seed`; no group
    is in both splits. With one, "train" is trained on and the first of "test", "val" and "valid" that there
    is, tested; where none is for training, there is a test split alone. Rows that do not fit (no such file,
    no label, a path twice, an unknown split, a picture that cannot be read) are left
    out and named in `Dataset.skipped`, and counted in `Dataset.notes`.

    Args:
        file: The manifest.
        columns: What its columns are called.
        image_size, resize, interpolation, test_fraction, seed, stream, keep_together: As in `load_folder`.
        pictures: False for the labels alone: no file is opened, and a row is known by its path, or by its
            number where there is no column of paths.

    Raises:
        DamagedFileError: It is no table.
        InputError: A column is missing, more than half of the rows do not fit, labels are lists (several
            labels of one picture are not supported), or fewer than two classes are left.
    """
    path = Path(file)
    table = _read_table(path)
    rows, problems = _checked_rows(path, table, columns, pictures=pictures)
    _enough(path, len(table), rows, problems)
    if not pictures:
        known = rows.assign(hash=[content_hash(name.encode()) for name in rows["path"]])
        images = np.zeros((len(rows), 0, 0, 3), np.uint8)
        how = {"test_fraction": test_fraction, "seed": seed, "keep_together": ""}
        return _dataset(path, table, known, images, problems, how, {"source": f"{path}, without pictures"})
    paths = [os.path.join(path.parent, name) for name in rows["path"]]  # noqa: PTH118 - an absolute one stays
    resizing = common_resizing(paths, image_size, resize, interpolation)
    streamed = streams(stream, resizing, len(paths))
    opened = open_pictures(paths, resizing, stream=streamed, root=path)
    for number, reason in opened.failures.items():
        problems.append((int(rows["row"].iloc[number]), rows["path"].iloc[number], reason))
    rows = rows.iloc[opened.rows].reset_index(drop=True).assign(hash=opened.hashes)
    _enough(path, len(table), rows, problems)
    source = f"{path}, streamed" if streamed else str(path)
    how = {"test_fraction": test_fraction, "seed": seed, "keep_together": keep_together}
    found = {"source": source, "resizing": resizing}
    return _dataset(path, table, rows, opened.images, problems, how, found)


def _dataset(
    path: Path,
    table: pd.DataFrame,
    rows: pd.DataFrame,
    images: np.ndarray | ImageFiles,
    problems: list[tuple[int, str, str]],
    how: dict[str, Any],
    found: dict[str, Any],
) -> Dataset:
    """The data set of the rows that fit. how: to split them, where no column does. found: what is known."""
    trained = np.ones(len(rows), bool)
    if "split" in rows and "train" in rows["split"].to_numpy():
        trained = rows["split"].to_numpy() == "train"
    names = tuple(sorted(set(rows["label"].to_numpy()[trained]), key=_in_order))
    if len(names) < 2:
        raise InputError(f"{path} has {len(names)} classes to train on; a data set needs two or more")
    known = rows["label"].isin(names).to_numpy()
    for row in rows[~known].itertuples():
        problems.append((row.row, row.path, f"label {row.label!r} is not among those of training"))  # pyright: ignore
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers.get(label, -1) for label in rows["label"]])
    whole = Split(images, labels, rows.drop(columns=["row", "label"]))
    notes = _notes(path, len(table), problems)
    if "split" in rows:
        marks = rows["split"].to_numpy()
        train, test = (whole.take(np.flatnonzero((marks == word) & known)) for word in ("train", "test"))
        notes += _shared_groups(train, test)
    else:
        train, test, more = draw_split(whole, names, **how)
        notes += more
    skipped = [f"row {row}: {shown_name(name)}: {reason}" for row, name, reason in sorted(problems)]
    found |= {"skipped": tuple(skipped), "notes": tuple(notes)}
    return Dataset(path.stem, names, train, test, **found)


def manifest_paths(file: Path, column: str) -> list[str]:
    """Return what the rows of a manifest are known by, in their order: their paths, or else their numbers.

    Raises DamagedFileError if it is no table.
    """
    return _paths(_read_table(file), column)


def _paths(table: pd.DataFrame, column: str) -> list[str]:
    if column in table:
        return [_text(name).replace("\\", "/") for name in table[column]]
    numbers = table["index"] if "index" in table else np.arange(len(table))
    return [f"{_text(number):>05}" for number in numbers]


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


def _checked_rows(
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
            "row": np.arange(len(table)) + (1 if path.suffix.lower() == ".parquet" else 2),
            "path": [_text(name).replace("\\", "/") for name in table[columns.path]],
            "label": [_text(label) for label in labels],
        }
    )
    if columns.split in table:
        rows["split"] = _splits(table[columns.split])
    if group:
        rows["group"] = [_text(value) for value in table[group]]
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
    words = [_text(word).lower() for word in given]
    tested = next((word for word in _TEST if word in words), "")
    return ["train" if word in _TRAIN else "test" if word and word == tested else word for word in words]


def _text(value: object) -> str:
    if value is None or value != value:  # a missing number is not equal to itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _numbers(column: Any) -> Any:
    """A column of texts as numbers, where all of them are."""
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column.astype(str)


def _refuse_many_labels(path: Path, labels: Iterable[Any]) -> None:
    several = "several labels of one picture are not supported; give each row one label"
    if any(isinstance(one, list | tuple | set | np.ndarray) for one in labels):
        raise InputError(f"{path} has lists in its column of labels: {several}")
    texts = {_text(one) for one in labels}
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


def _enough(path: Path, total: int, rows: pd.DataFrame, problems: list[tuple[int, str, str]]) -> None:
    if not total:
        raise InputError(f"{path} has no rows; each row names a picture and its label")
    if 2 * len(rows) < total:
        row, name, reason = min(problems)
        raise InputError(
            f"{len(problems)} of {total} rows of {path} do not fit (row {row}: {shown_name(name)}: "
            f"{reason}); paths are seen from the manifest's folder"
        )


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
