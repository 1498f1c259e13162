"""Data sets in one `.npz` file: `x`, `y`, and if there are any `x_test`, `y_test`, `class_names`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from sightline.data.dataset import Dataset, Split
from sightline.data.splits import stratified_split
from sightline.errors import SightlineError


def load_npz(path: str | Path, *, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Return the data set in the `.npz` file at `path`.

    x: uint8 (N, H, W, 3) RGB, or grey (N, H, W) or (N, H, W, 1). y: integers (N,). class_names: strings;
    without them classes are "0" to the highest label. Without x_test and y_test the share
    `test_fraction` of each class, drawn by `seed`, is tested.
    Raises SightlineError if the file or an array in it is something else. Pickles in it are not read.
    """
    path = Path(path)
    arrays = _read(path)
    train = _split(arrays, "x", "y", path)
    if "x_test" in arrays or "y_test" in arrays:
        test = _split(arrays, "x_test", "y_test", path)
    else:
        chosen = stratified_split(train.labels, test_fraction=test_fraction, seed=seed)
        train, test = train.take(chosen[0]), train.take(chosen[1])
    highest = max(int(split.labels.max(initial=0)) for split in (train, test))
    names = arrays.get("class_names", np.arange(highest + 1)).tolist()
    return Dataset(path.stem, tuple(str(name) for name in names), train, test, source=str(path))


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here, because numpy leaves a file that is no zip open.
        with path.open("rb") as file, zipfile.ZipFile(file):
            file.seek(0)
            return dict(np.load(file, allow_pickle=False))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SightlineError(f"{path} is not a whole .npz file of plain arrays ({error})") from error


def _split(arrays: dict[str, np.ndarray], x: str, y: str, path: Path) -> Split:
    for name in (x, y):
        if name not in arrays:
            raise SightlineError(f"{path} has no array {name!r}, only {', '.join(sorted(arrays))}; add it")
    images, labels = arrays[x], arrays[y]
    if images.dtype != np.uint8:
        raise SightlineError(
            f"{path} has {x} in {images.dtype}; it needs uint8 from 0 to 255: for floats in [0, 1] save "
            f"(255 * {x}).round().astype('uint8')"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[3] == 1:
        images = images.repeat(3, axis=3)
    if images.ndim != 4 or images.shape[3] != 3:
        raise SightlineError(
            f"{path} has {x} of shape {arrays[x].shape}; it needs (N, H, W, 3), or for grey "
            "(N, H, W) or (N, H, W, 1)"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return Split(images, labels)
