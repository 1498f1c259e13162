"""Data sets in one `.npz` file: `x`, `y`, and if there are any `x_test`, `y_test`, `class_names`.

`save_npz` adds the data set's name and, as JSON, what else is known of each image.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sightline.data.dataset import Dataset, Split, stratified_split
from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.files import write_atomic

_HIGHEST_LABEL = 2**16 - 1  # more classes than any data set of pictures has
_MOST_COMPRESSED = 1100  # times its size is what a compressed file can hold (deflate: 1032)


def load_npz(path: str | Path, *, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Return the data set in the `.npz` file at `path`.

    It holds `x`, uint8 (N, H, W, 3) in RGB, or grey (N, H, W) or (N, H, W, 1), and `y`, integers (N,). It may
    hold `class_names`, strings; without them the classes are "0" to the highest label. It may hold `x_test`
    and `y_test`; without them the share `test_fraction` of each class, drawn by `seed`, is tested.

    Args:
        path: The file. Pickles in it are not read.
        test_fraction: Share of each class that is tested.
        seed: Of the split.

    Raises:
        NotFoundError: There is no such file.
        DamagedFileError: It is no `.npz` file of plain arrays, or claims more than it holds.
        InputError: An array is missing, or of another type or shape.
    """
    path = Path(path)
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except Exception as error:  # damaged bytes can make a reader raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DamagedFileError(f"{path} is not a whole .npz file of plain arrays ({reason})") from error
    train = _known(_split(arrays, "x", "y", path), arrays, "metadata", path)
    if "x_test" in arrays or "y_test" in arrays:
        test = _known(_split(arrays, "x_test", "y_test", path), arrays, "metadata_test", path)
    else:
        chosen = stratified_split(train.labels, test_fraction=test_fraction, seed=seed)
        train, test = train.take(chosen[0]), train.take(chosen[1])
    highest = max(int(split.labels.max(initial=0)) for split in (train, test))
    names = arrays.get("class_names", np.arange(highest + 1))
    if names.ndim != 1:
        raise InputError(f"{path} has class_names of shape {names.shape}; it needs one name for each class")
    if len(names) < 2:
        raise InputError(f"{path} names {len(names)} classes; a data set needs two or more")
    name = str(arrays["name"]) if "name" in arrays else path.stem
    return Dataset(name, tuple(str(name) for name in names.tolist()), train, test, source=str(path))


def save_npz(path: Path, data: Dataset) -> None:
    """Write a data set, with what is known of its images, whole or not at all; `load_npz` reads it."""
    arrays: dict[str, Any] = {"name": np.array(data.name), "class_names": np.array(data.class_names)}
    for end, split in (("", data.train), ("_test", data.test)):
        arrays |= {f"x{end}": split.images[np.arange(len(split))], f"y{end}": split.labels}
        arrays[f"metadata{end}"] = np.array(split.metadata.to_json(orient="split"))
    write_atomic(path, lambda file: np.savez(file, **arrays))


def _known(split: Split, arrays: Mapping[str, np.ndarray], name: str, path: Path) -> Split:
    """The split with the table that `save_npz` wrote of its images."""
    if name not in arrays:
        return split
    try:
        kept: Any = False  # as they were written
        table = pd.read_json(io.StringIO(str(arrays[name])), orient="split", dtype=kept)
        return Split(split.images, split.labels, table.astype({"path": str}))
    except (ValueError, LookupError, TypeError, InputError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedFileError(f"{path} has {name} that is no table of its images ({reason})") from None


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by name; pickles are not read.

    Before anything is allocated, the size that each array claims is compared with what the file holds.
    Raises whatever the reader does of a damaged file: ValueError, OSError, zipfile.BadZipFile and more.
    """
    # Opened here, because numpy leaves a file that is no zip open.
    with Path(path).open("rb") as file, zipfile.ZipFile(file) as members:
        most = _MOST_COMPRESSED * Path(path).stat().st_size
        for member in members.infolist():
            _check_claim(members, member, most)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def _check_claim(members: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> None:
    with members.open(member) as array:
        version = np.lib.format.read_magic(array)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} has the format {version}, which plain arrays do not have")
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(array)
        claimed, held = math.prod(shape) * dtype.itemsize, member.file_size - array.tell()
    if not dtype.hasobject and (claimed != held or claimed > most):
        raise ValueError(f"{member.filename} claims to hold {claimed} bytes and does not")


def _split(arrays: dict[str, np.ndarray], x: str, y: str, path: Path) -> Split:
    for name in (x, y):
        if name not in arrays:
            raise InputError(f"{path} has no array {name!r}, only {', '.join(sorted(arrays))}; add it")
    images, labels = arrays[x], arrays[y]
    if images.dtype != np.uint8:
        raise InputError(
            f"{path} has {x} in {images.dtype}; it needs uint8 from 0 to 255: for floats in [0, 1] save "
            f"(255 * {x}).round().astype('uint8')"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[3] == 1:
        images = images.repeat(3, axis=3)
    if images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"{path} has {x} of shape {arrays[x].shape}; it needs (N, H, W, 3), or for grey "
            "(N, H, W) or (N, H, W, 1)"
        )
    if 0 in images.shape[1:]:
        word = "training" if x == "x" else "test"
        raise InputError(f"{path} has {word} images of {images.shape[1]}x{images.shape[2]} pixels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if np.issubdtype(labels.dtype, np.integer) and labels.size:
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label <= _HIGHEST_LABEL:
                raise InputError(f"{path} has the label {label} in {y}; labels number the classes, from 0 on")
    return Split(images, labels)
