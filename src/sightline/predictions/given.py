"""Predictions and features that were computed elsewhere: read, told apart, matched with the images by name.

    given = read_scores("predictions.parquet", images=ImageNames(test=paths), class_names=("cat", "dog"))
    given.test, given.what           # logits (N, C), "probabilities"

Nothing is guessed: a table that does not fit is refused in one line that names both sides.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import DamagedFileError, InputError, NotFoundError, SightlineError
from sightline.files import check_regular

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ("path", "index")
# Columns of Sightline's own tables and of tables of labels, which are no classes.
_OTHERS = {
    *_KEYS,
    "",
    "Unnamed: 0",
    "label",
    "split",
    "hash",
    "predicted",
    "loss",
    "confidence",
    "margin",
    "entropy",
    "group",
}
_CLOSE = 1e-3  # that the sum of a row of probabilities may be off: what three decimals leave of many classes
_FLOOR = 1e-12


@dataclass(frozen=True)
class ImageNames:
    """What the images of a data set are called, by which rows are matched with them.

    Attributes:
        test: The paths of the N test images.
        train: The paths of the training images.
        order: The paths in the order of the table that the data was read from, those left out too; by default
            training images first, then test images.
    """

    test: Sequence[str]
    train: Sequence[str] = ()
    order: Sequence[str] = field(default=())

    @property
    def all(self) -> Sequence[str]:
        """The paths in the order in which a table without names has its rows."""
        return self.order or [*self.train, *self.test]


@dataclass(frozen=True, eq=False)
class Given:
    """Rows of a table by image.

    Attributes:
        test: (N, K) of the test images.
        train: (N_train, K) of the training images; None where the table does not have all of them.
        what: What the numbers were: "probabilities", "logits" and so on.
    """

    test: np.ndarray
    train: np.ndarray | None
    what: str


def read_scores(
    source: str | Path | np.ndarray,
    *,
    images: ImageNames,
    class_names: Sequence[str],
    name: str = "predictions",
) -> Given:
    """Return the logits of a table of predictions, a column per class.

    Args:
        source: Parquet or CSV with a column `path` or `index` and one per class, in any order; without both
            columns its rows are in the order of the data. Or an array (rows, C), in that order.
        images: Of the data.
        class_names: Of the data; C names.
        name: What an error calls the table.

    Raises:
        NotFoundError, DamagedFileError: The file is missing, or no table.
        InputError: Columns, rows or numbers do not fit.
    """
    if isinstance(source, str | Path):
        name = f"{name} {source}"
        keys, columns, values = _read(Path(source), name)
        values = values[:, _class_columns(name, columns, class_names)]
    else:
        keys, values = None, np.asarray(source, np.float64)
    if values.ndim != 2 or values.shape[1] != len(class_names):
        raise InputError(
            f"{name} is {values.shape}; {len(class_names)} classes need (rows, {len(class_names)})"
        )
    logits, what = tell_scores(values, name)
    test, train = match_rows(len(values), keys, images, name)
    return Given(logits[test], None if train is None else logits[train], what)


def read_features(
    source: str | Path | np.ndarray | Sequence[np.ndarray], *, images: ImageNames, name: str = "features"
) -> Given:
    """Return features by image.

    Args:
        source: `.npy` (rows, D); `.npz` with `features` and perhaps `path`, or with `test` and perhaps
            `train`; Parquet or CSV with a column per dimension, or one of lists, and perhaps `path` or
            `index`. Or an array, or a pair of those of test and training images.
        images: Of the data.
        name: What an error calls them.

    Raises:
        NotFoundError, DamagedFileError: The file is missing, or holds no features.
        InputError: Rows or numbers do not fit.
    """
    keys, pair = None, None
    if isinstance(source, str | Path):
        path, name = Path(source), f"{name} {source}"
        if path.suffix in (".npy", ".npz"):
            arrays = _arrays(path, name)
            pair = (arrays["test"], arrays.get("train")) if "test" in arrays else None
            values = arrays.get("features", next(iter(arrays.values())))
            keys = next(
                ([str(one) for one in arrays[key]] for key in ("path", "paths") if key in arrays), None
            )
        else:
            keys, _, values = _read(path, name)
    elif isinstance(source, np.ndarray):
        values = source
    else:
        pair = (source[0], source[1] if len(source) > 1 else None)
        values = source[0]
    if pair is not None:
        test, train = _numbers(pair[0], name), None if pair[1] is None else _numbers(pair[1], name)
        for rows, wanted in ((test, images.test), (train, images.train)):
            if rows is not None and len(rows) != len(wanted):
                raise InputError(f"{name} has {len(rows)} rows where the data has {len(wanted)} images")
        return Given(test, train, f"{test.shape[1]} dimensions")
    values = _numbers(values, name)
    test, train = match_rows(len(values), keys, images, name)
    return Given(values[test], None if train is None else values[train], f"{values.shape[1]} dimensions")


def tell_scores(values: np.ndarray, name: str = "predictions") -> tuple[np.ndarray, str]:
    """Return logits of numbers (rows, C), and what they were: probabilities, percentages or logits.

    Logits are what is negative somewhere, or larger than 1. Between 0 and 1, rows have to sum to 1.

    Raises:
        InputError: They are not finite, or neither of these.

    >>> tell_scores(np.array([[0.25, 0.75], [0.5, 0.5]]))[1], tell_scores(np.array([[-1.0, 2.0]]))[1]
    ('probabilities', 'logits')
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=1).argmax())
        raise InputError(f"{name} has a number in row {bad} that is not finite or missing; leave none out")
    sums = values.sum(axis=1)
    for total, what in ((1.0, "probabilities"), (100.0, "percentages")):
        off = np.abs(sums - total) / total
        if len(values) and values.min() >= 0 and off.max() <= max(_CLOSE, 5e-4 * values.shape[1]):
            return np.log(np.maximum(values / sums[:, None], _FLOOR)), what
    if len(values) and values.min() >= 0 and values.max() <= 1:
        worst = int(np.abs(sums - 1).argmax())
        raise InputError(
            f"{name} has numbers between 0 and 1 whose rows do not sum to 1 (row {worst}: "
            f"{sums[worst]:.4g}); it needs probabilities of one class out of all, or logits"
        )
    return values, "logits"


def match_rows(
    count: int, keys: Sequence[Any] | None, images: ImageNames, name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the row of each test image (N,), and of each training image, None if not all have one.

    Args:
        count: Rows of the table.
        keys: A path or an index in the data's order for each row; None for rows in that order.
        images: Of the data.
        name: What an error calls the table.

    Raises:
        InputError: Another count, a name twice, or test images without a row.
    """
    everything = images.all
    if keys is None:
        if count == len(everything):
            keys = list(range(count))
        elif count == len(images.test):
            return np.arange(count), None
        else:
            both = f" or {len(images.test)}, its test images" if len(everything) != len(images.test) else ""
            raise InputError(
                f"{name} has {count} rows and names no image; the data has {len(everything)}{both}: give as "
                "many rows in its order, or a column 'path'"
            )
    named = [everything[key] if isinstance(key, int) and 0 <= key < len(everything) else key for key in keys]
    named = [one.replace("\\", "/").removeprefix("./") if isinstance(one, str) else one for one in named]
    twice = [one for one, number in Counter(named).items() if number > 1]
    if twice:
        raise InputError(f"{name} has {len(twice)} images twice (the first: {twice[0]}); give each one row")
    rows = {one: row for row, one in enumerate(named)}
    missing = [one for one in images.test if one not in rows]
    if missing:
        raise InputError(
            f"{name} has no row for {len(missing)} of {len(images.test)} images (the first: {missing[0]}; "
            f"the first row is of: {named[0] if named else 'none'}); paths have to be those of the data"
        )
    test = np.array([rows[one] for one in images.test], int)
    whole = len(images.train) and all(one in rows for one in images.train)
    return test, np.array([rows[one] for one in images.train], int) if whole else None


def _class_columns(name: str, columns: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The place of each class among the columns.

    Raises InputError with both lists if one is missing, there twice, or no class.
    """
    counts = Counter(columns)
    problems = {
        "missing": [one for one in class_names if one not in counts],
        "twice": [one for one, number in counts.items() if number > 1],
        "no class": [one for one in counts if one not in class_names],
    }
    if any(problems.values()):
        said = "; ".join(f"{what}: {_listed(names)}" for what, names in problems.items() if names)
        hint = "; classes without an image are named with --classes" if problems["no class"] else ""
        raise InputError(
            f"{name} has the columns {_listed(columns)} and the labels the classes {_listed(class_names)} "
            f"({said}){hint}"
        )
    return [list(columns).index(one) for one in class_names]


def _listed(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(map(str, names[:limit])) + (
        f" and {len(names) - limit} more" if len(names) > limit else ""
    )


def _read(path: Path, name: str) -> tuple[list[Any] | None, list[str], np.ndarray]:
    """Keys of the rows, if there are any; the names of the columns of numbers; and those, (rows, K)."""
    try:
        check_regular(path)
        table, columns = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except FileNotFoundError:
        raise NotFoundError(f"{name} is missing; check the path") from None
    except SightlineError:
        raise
    except Exception as error:  # a damaged file can make a reader raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DamagedFileError(f"{name} cannot be read as a table, Parquet or CSV: {reason}") from None
    keys = None
    for key in _KEYS:
        if key in columns:
            found = table.iloc[:, columns.index(key)].tolist()
            keys = [str(one) for one in found] if key == "path" else [int(one) for one in found]
            break
    kept = [place for place, column in enumerate(columns) if column not in _OTHERS]
    values = table.iloc[:, kept]
    names = [columns[place] for place in kept]
    if len(names) == 1 and len(values) and isinstance(values.iloc[0, 0], list | np.ndarray):
        own = table.attrs.get("class_names")
        return keys, list(own or names), _numbers(np.stack(values.iloc[:, 0].to_list()), name)
    text = [column for column, one in zip(names, values.dtypes, strict=True) if one.kind not in "iufb"]
    if text:
        raise InputError(f"{name} has text in the column {text[0]!r}; a column of predictions holds numbers")
    return keys, names, values.to_numpy(np.float64)


def _parquet(path: Path) -> tuple[pd.DataFrame, list[str]]:
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    columns = [str(one).strip() for one in schema.names]
    if len(set(columns)) < len(columns):  # what reads it would choose one of them
        import pandas as pd

        return pd.DataFrame(np.zeros((0, len(columns)))), columns
    table = pq.read_table(path).to_pandas()
    table = table.reset_index() if table.index.name in _KEYS else table
    if own := (schema.metadata or {}).get(b"class_names"):  # one of Sightline's own
        table.attrs["class_names"] = json.loads(own)
    return table, [str(one).strip() for one in table.columns]


def _csv(path: Path) -> tuple[pd.DataFrame, list[str]]:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as file:
        columns = [one.strip() for one in next(csv.reader(file))]
    table = pd.read_csv(path, header=None, skiprows=1, encoding="utf-8-sig")
    if table.shape[1] != len(columns):
        raise ValueError(f"{len(columns)} names of columns and {table.shape[1]} columns")
    return table, columns


def _arrays(path: Path, name: str) -> Mapping[str, np.ndarray]:
    try:
        check_regular(path)
        with path.open("rb") as file:
            found: Any = np.load(file, allow_pickle=False)
            return (
                {"features": found} if isinstance(found, np.ndarray) else {key: found[key] for key in found}
            )
    except FileNotFoundError:
        raise NotFoundError(f"{name} is missing; check the path") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DamagedFileError(f"{name} cannot be read as arrays: {reason}") from None


def _numbers(values: Any, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.shape[1]:
        raise InputError(f"{name} is {values.dtype} {values.shape}; it needs numbers (rows, D)")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name} has numbers that are not finite or missing; leave none out")
    return values
