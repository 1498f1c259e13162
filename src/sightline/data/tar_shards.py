"""Pictures in tar files, as WebDataset writes them: `key.jpg` beside `key.cls` or `key.json`.

    photos/train-000000.tar, photos/train-000001.tar, photos/test-000000.tar

No file is unpacked: an index, kept in the user's cache folder, says where each picture begins. `key.cls`
holds a class, as a number or a name; `key.json` a table with its label, and with what else is known of the
picture. A file `classnames.txt` beside the shards names classes that are numbers, one in a line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sightline import logs
from sightline.data.dataset import Dataset
from sightline.data.image_files import picture_inside, picture_suffixes
from sightline.data.image_folder import Reading
from sightline.data.manifest import Columns, Listed, as_text, checked_rows
from sightline.data.picture_cache import cache_folder
from sightline.errors import DamagedFileError, InputError
from sightline.files import check_regular, shown_name, write_atomic

_VERSION = 1  # of the index; another one is made anew
_NAMES = ("classnames.txt", "classes.txt")
_TRAIN, _TEST = ("train", "training"), ("test", "val", "valid", "validation")
_LONGEST = 1 << 20  # bytes of a label or a table
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_shards(name: str | Path) -> bool:
    """Return whether this is a tar file, a pattern of them, or a folder of them without class folders."""
    text = os.fspath(name)
    if text.lower().endswith(".tar"):
        return Path(text).is_file() or (bool(_RANGE.search(text)) and bool(shard_files(text)))
    path, known = Path(text), (*_TRAIN, *_TEST)
    if not path.is_dir() or not shard_files(path):
        return False
    return not any(one.is_dir() and one.name not in known and one.name[0] != "." for one in path.iterdir())


def shard_files(name: str | Path) -> list[Path]:
    """Return the tar files of a folder and of its folders train and test, or of a pattern `{000..012}`."""
    text = os.fspath(name)
    if found := _RANGE.search(text):
        first, last = found.groups()
        numbers = range(int(first), min(int(last), int(first) + 10**6) + 1)
        spelled = [f"{text[: found.start()]}{n:0{len(first)}}{text[found.end() :]}" for n in numbers]
        return [Path(one) for one in spelled if Path(one).is_file()]
    path = Path(text)
    if not path.is_dir():
        return [path]
    folders = [path / word for word in (*_TRAIN, *_TEST)]
    return sorted(
        file
        for folder in (path, *folders)
        if folder.is_dir()
        for file in folder.glob("*.tar")
        if file.is_file()
    )


def load_shards(name: str | Path, reading: Reading, *, columns: Columns) -> Dataset:
    """Return the pictures of tar files.

    Shards whose name or folder begins with "train" are trained on, those of "test", "val" or "valid" (the
    first that there is) are tested; shards without such names are split as a manifest is.

    Args:
        name: A tar file, a folder of them, or a pattern such as `photos/train-{000..012}.tar`.
        reading: How the pictures are read.
        columns: What label, split and group are called in the `json` members.

    Raises:
        DamagedFileError: A file is no tar, or it is compressed.
        InputError: There is no picture, no label, some shards name a split and others none, or what
            `load_manifest` raises.
    """
    files = shard_files(name)
    table = _indexed(files)
    if not len(table):
        raise InputError(f"{name} has no pictures; each key.jpg needs a key.cls or a key.json")
    root = Path(name) if Path(name).is_dir() else files[0].parent
    given = pd.DataFrame([json.loads(text) for text in table["known"]])
    lists = [key for key in given if key != columns.label and any(isinstance(v, list) for v in given[key])]
    given = given.drop(columns=lists)
    shards = [os.path.relpath(file, root) for file in files]
    given[columns.path] = [
        f"{shards[n]}/{member}" for n, member in zip(table["shard"], table["member"], strict=True)
    ]
    if (words := _split_words(files)) is not None:
        given[columns.split] = np.array(words)[table["shard"].to_numpy(int)]
    classes = _class_names(root)
    if classes and columns.label in given:
        given[columns.label] = [_named(label, classes) for label in given[columns.label]]
    rows, problems = checked_rows(root, given, columns, pictures=False)
    listed = Listed(root, _stem(name), len(given), rows, problems, classes)
    chosen = table.iloc[rows["row"].to_numpy() - 1]
    places = [
        picture_inside(files[shard], offset, length)
        for shard, offset, length in zip(chosen["shard"], chosen["offset"], chosen["length"], strict=True)
    ]
    data = listed.opened(places, reading)
    cut = [f"{file} lacks the mark of its end; it may have been cut short" for file in files if _is_cut(file)]
    return dataclasses.replace(data, notes=(*data.notes, *cut))


def _is_cut(file: Path) -> bool:
    """Whether a tar lacks the zeros that it ends with."""
    with file.open("rb") as opened:
        opened.seek(-min(tarfile.BLOCKSIZE, file.stat().st_size), os.SEEK_END)
        return any(opened.read())


def _stem(name: str | Path) -> str:
    path = Path(name)
    return path.resolve().name if path.is_dir() else _RANGE.sub("", path.stem).strip("-_.") or path.stem


def _split_words(files: list[Path]) -> list[str] | None:
    """The split of each shard by its name or its folder's; None where no name says one."""
    known = (*_TRAIN, *_TEST)
    found = []
    for file in files:
        words = [re.split(r"[-_.\d]", text.lower())[0] for text in (file.name, file.parent.name)]
        found.append(next((word for word in words if word in known), ""))
    if not any(found) or set(found) <= set(_TRAIN):  # of one split alone a part is tested
        return None
    if not all(found):
        nameless = files[found.index("")]
        raise InputError(
            f"{nameless} says no split and other shards do; let each begin with train, test, val or valid"
        )
    return found


def _class_names(root: Path) -> tuple[str, ...]:
    for place in (root / name for name in _NAMES):
        if place.is_file():
            lines = place.read_text(encoding="utf-8", errors="replace").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return ()


def _named(label: object, classes: tuple[str, ...]) -> object:
    text = as_text(label)
    number = int(text) if text.isdecimal() and len(text) < 10 else -1
    return classes[number] if 0 <= number < len(classes) else label


def _indexed(files: list[Path]) -> pd.DataFrame:
    """A row for each picture: member, shard, offset, length, known (JSON); from the cache, if it is there."""
    stamps = []
    for file in files:
        found = file.stat()
        stamps.append(f"{file.resolve()} {found.st_size} {found.st_mtime_ns}")
    what = f"{_VERSION} {stamps}"
    digest = hashlib.blake2b(os.fsencode(what), digest_size=12).hexdigest()
    place = cache_folder("pictures") / f"shards-{digest}.parquet"
    columns = ["member", "shard", "offset", "length", "known"]
    with contextlib.suppress(Exception):  # a cache that cannot be read is as good as none
        kept = pd.read_parquet(place)
        if list(kept) == columns:
            return kept
    rows = []
    with logs.stage("reading the index of the shards", total=len(files)) as progress:
        for number, file in enumerate(files):
            rows += [(member, number, *rest) for member, *rest in _samples(file)]
            progress.advance(1)
    table = pd.DataFrame(rows, columns=columns)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, lambda out: table.to_parquet(out))
    return table


def _samples(file: Path) -> Iterator[tuple[str, int, int, str]]:
    """(member, offset, length, known) of each picture of a tar, with its label among what is known."""
    try:
        check_regular(file)
        with tarfile.open(file, "r:") as tar:
            picture: tuple[str, int, int] | None = None
            key, known = None, {}
            for member in _members(tar):
                if not member.isreg() or member.issparse():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if (folder, stem) != key:
                    if picture:
                        yield (*picture, json.dumps(known))
                    key, known, picture = (folder, stem), {}, None
                if "." + ending.lower().rpartition(".")[2] in picture_suffixes():
                    picture = shown_name(member.name), member.offset_data, member.size
                elif ending.lower() in ("cls", "json") and member.size <= _LONGEST:
                    known |= _known(tar, member, ending.lower())
            if picture:
                yield (*picture, json.dumps(known))
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DamagedFileError(
            f"{file} cannot be read as an uncompressed tar file ({str(error)[:80]}); make it again"
        ) from None


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar; of one that was cut short, those before the cut."""
    number = 0
    while True:
        try:
            member = tar.next()
        except tarfile.ReadError:
            if not number:
                raise
            return
        if member is None:
            return
        number += 1
        yield member


def _known(tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> dict[str, Any]:
    opened = tar.extractfile(member)  # a file object; nothing is unpacked
    text = opened.read().decode("utf-8", "replace").strip() if opened else ""
    if ending == "cls":
        return {"label": text}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(key): value for key, value in found.items() if isinstance(value, str | int | float | bool | list)
    }
