"""Data sets of the library `datasets`: `hf/NAME` from the hub or its cache, `hf/FOLDER`, or a saved folder.

A folder that `save_to_disk` has written is known without the prefix. The column of type Image holds the
pictures, that of type ClassLabel the classes; every other column of plain values is metadata. Needs the extra
`[datasets]`. No code of a data set is run: the library has no loading scripts any more, and files of pickles
are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from sightline import logs
from sightline.data.dataset import Dataset
from sightline.data.image_files import picture_inside
from sightline.data.image_folder import Reading
from sightline.data.manifest import Columns, Listed, checked_rows
from sightline.data.picture_cache import cache_folder
from sightline.errors import InputError, MissingExtraError, NotFoundError
from sightline.files import write_atomic

PREFIX = "hf/"
_TRAIN, _TEST = ("train", "training"), ("test", "validation", "val", "valid")
_BLOCK = 256  # pictures that are taken from the table at once


def is_hugging_face(name: str | Path) -> bool:
    """Return whether this is `hf/...`, or a folder that `save_to_disk` has written."""
    text = str(name)
    return _is_saved(text) or (text.startswith(PREFIX) and not Path(text).exists())


def _is_saved(folder: str) -> bool:
    """Whether `save_to_disk` has written this folder: of several splits, or of one."""
    files = ("dataset_dict.json",), ("state.json", "dataset_info.json")
    return any(all(Path(folder, name).is_file() for name in names) for names in files)


def load_hugging_face(name: str | Path, reading: Reading, *, columns: Columns) -> Dataset:
    """Return the pictures of a data set of the library `datasets`.

    The split "train" is trained on and the first of "test", "validation" and "valid" tested; where there is
    one split alone, it is split by class, or by group, as a manifest is.

    Args:
        name: "hf/NAME" of the hub, "hf/NAME:CONFIGURATION", "hf/FOLDER", or a folder of `save_to_disk`.
        reading: How the pictures are read. They stay in the library's files, but for those that are embedded
            in its tables, which are copied once into the user's cache folder.
        columns: What the columns of labels and groups are called; `label` where no ClassLabel is.

    Raises:
        MissingExtraError: The library is not installed.
        NotFoundError: It has no such data set, or the hub cannot be reached.
        InputError: No column of pictures or of labels, or what `load_manifest` raises.
    """
    parts = _splits(str(name).removeprefix(PREFIX))
    trained = [word for word in parts if word in _TRAIN]
    tested = [word for word in _TEST if word in parts][:1]
    chosen = {word: parts[word] for word in (trained[:1] + tested or list(parts)[:1])}
    tables, places = [], []
    for word, part in chosen.items():
        picture, label = _columns(part, columns)
        table = _table(part, word, picture, label, columns)
        if len(chosen) > 1:
            table[columns.split] = "train" if word in _TRAIN else "test"
        tables.append(table)
        places += _places(part.select_columns([picture]), picture)
    given = pd.concat(tables, ignore_index=True)
    names = _class_names(chosen, columns)
    short = Path(str(name).removeprefix(PREFIX)).name
    rows, problems = checked_rows(Path(str(name)), given, columns, pictures=False)
    for number, place in enumerate(places):
        if not place:
            problems.append((number + 1, str(given[columns.path].iloc[number]), "no picture"))
    rows = rows.loc[[bool(places[row - 1]) for row in rows["row"]], :].reset_index(drop=True)
    listed = Listed(Path(str(name)), short.partition(":")[0], len(given), rows, problems, names)
    return listed.opened([places[row - 1] for row in rows["row"]], reading)


def _splits(name: str) -> dict[str, Any]:
    """The data set's splits by their names."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            f"the data set hf/{name} needs the library datasets; pip install 'sightline-vision[datasets]'"
        ) from None
    try:
        with logs.stage(f"opening {name} with the library datasets"):
            if _is_saved(name):
                found: Any = datasets.load_from_disk(name)
            elif Path(name).exists():
                found = datasets.load_dataset(name)
            else:
                hub, _, configuration = name.partition(":")
                found = datasets.load_dataset(hub, configuration or None)
    except Exception as error:  # of many kinds: no such name, no network, no pictures
        reason = " ".join(str(error).split())[:160]
        raise NotFoundError(
            f"the library datasets cannot open {name!r} ({reason}); it needs a name of the hub, which has to "
            "be reached or to be in its cache, or a folder that save_to_disk has written"
        ) from None
    return dict(found) if isinstance(found, dict) else {str(found.split or "all"): found}


def _columns(part: Any, columns: Columns) -> tuple[str, str]:
    """The columns of the pictures and of the labels."""
    from datasets import ClassLabel, Image

    kinds = part.features
    pictures = [name for name, kind in kinds.items() if isinstance(kind, Image)]
    if not pictures:
        raise InputError(f"no column of type Image, only {', '.join(kinds)}; cast_column makes one")
    if columns.label in kinds:
        return pictures[0], columns.label
    labels = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
    if len(labels) != 1 or columns.label != "label":
        raise InputError(
            f"no column {columns.label!r}, and {len(labels)} of type ClassLabel, only {', '.join(kinds)}; "
            "name the one of labels with --set data.label_column=NAME"
        )
    return pictures[0], labels[0]


def _class_names(parts: dict[str, Any], columns: Columns) -> tuple[str, ...]:
    part = next(iter(parts.values()))
    kind = part.features[_columns(part, columns)[1]]
    return tuple(getattr(kind, "names", ()) or ())


def _table(part: Any, word: str, picture: str, label: str, columns: Columns) -> pd.DataFrame:
    """The plain columns of a split, with the names of its classes as labels, and a path for each row."""
    plain = [n for n, kind in part.features.items() if n != picture and getattr(kind, "dtype", None)]
    table = part.select_columns(plain).with_format("pandas")[:]
    names = getattr(part.features[label], "names", None)
    if names:
        table[label] = [names[n] if 0 <= n < len(names) else "" for n in table[label]]  # -1 is "no label"
    table = table.rename(columns={label: columns.label})
    if columns.path in table:
        table = table.rename(columns={columns.path: f"given_{columns.path}"})
    table[columns.path] = [f"{word}/{number:06d}" for number in range(len(table))]
    return table.drop(columns=[c for c in table if c == columns.split])


def _places(part: Any, column: str) -> list[str]:
    """Where each picture is: a file of its own, or a span of the file that embedded ones are copied to."""
    from datasets import Image

    raw = part.cast_column(column, Image(decode=False))
    digest = hashlib.blake2b(f"{part._fingerprint} {column} {len(part)}".encode(), digest_size=12).hexdigest()
    copy = cache_folder("pictures") / f"embedded-{digest}.bin"
    found: list[str] = []
    sizes = [_size(one) for one in _entries(raw, column)]
    if any(size for size, _ in sizes) and not _holds(copy, sum(size for size, _ in sizes)):
        copy.parent.mkdir(parents=True, exist_ok=True)
        contents = (one.get("bytes") for one in _entries(raw, column) if one)
        with logs.stage("copying embedded pictures to the cache"):
            write_atomic(copy, lambda file: file.writelines(content for content in contents if content))
    offset = 0
    for size, path in sizes:
        found.append(picture_inside(copy, offset, size) if size else path)
        offset += size
    return found


def _holds(copy: Path, size: int) -> bool:
    return copy.is_file() and copy.stat().st_size == size


def _size(entry: dict[str, Any] | None) -> tuple[int, str]:
    """The length of an embedded picture, or 0 and the path of its file; "" where there is neither."""
    if not entry:
        return 0, ""
    return len(entry.get("bytes") or b""), entry.get("path") or ""


def _entries(raw: Any, column: str) -> Iterator[dict[str, Any] | None]:
    for start in range(0, len(raw), _BLOCK):
        yield from raw[start : start + _BLOCK][column]
