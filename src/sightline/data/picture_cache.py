"""Pictures of a folder or a manifest, opened once: what can be read, and a cache of what was found out.

For pictures that stay in their files, each would be decoded at the start of every process, to know whether
it can be read and what its pixels sum up to. Both are kept in the user's cache folder, by path, size and
time of the last change, together with the hash of the file. A cache that is missing, damaged or of other
files is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.image_files import ImageFiles, Resizing, file_of, read_hashed
from sightline.files import write_atomic

_VERSION = 1  # of what is kept; another one is read anew


@dataclass(frozen=True)
class OpenedPictures:
    """The pictures that can be read, of M paths.

    Attributes:
        images: (N, H, W, 3) uint8, an array or files.
        hashes: N hashes of the files' bytes.
        rows: (N,) which of the M paths they are, ascending.
        failures: For each other path, by its number, why it cannot be read.
    """

    images: np.ndarray | ImageFiles
    hashes: list[str]
    rows: np.ndarray
    failures: dict[int, str]


def open_pictures(paths: Sequence[str], resizing: Resizing, *, stream: bool, root: Path) -> OpenedPictures:
    """Open the pictures at `paths`, each brought to one size; stream: leave them in their files.

    root: what the cache is kept under; the folder, or the manifest.
    """
    results = _read_through_cache(paths, resizing, root) if stream else read_hashed(paths, resizing)
    failures = {number: one for number, one in enumerate(results) if isinstance(one, str)}
    found = [one for one in results if not isinstance(one, str)]
    rows = np.array([number for number in range(len(paths)) if number not in failures], int)
    hashes = [own for _, own in found]
    if not found:
        return OpenedPictures(np.zeros((0, *resizing.size, 3), np.uint8), [], rows, failures)
    stacked = np.stack([values for values, _ in found])
    if not stream:
        return OpenedPictures(stacked, hashes, rows, failures)
    how: dict[str, Any] = {"resize": resizing.rule, "interpolation": resizing.interpolation}
    files = ImageFiles([str(paths[row]) for row in rows.tolist()], size=resizing.size, sums=stacked, **how)
    return OpenedPictures(files, hashes, rows, failures)


def _read_through_cache(
    paths: Sequence[str], resizing: Resizing, root: Path
) -> list[tuple[np.ndarray, str] | str]:
    """What `read_hashed` says of the sums; only files that are new or have changed are decoded."""
    place = _place(root, resizing)
    kept = _load(place)
    keys = [_key(path) for path in paths]
    results: list[Any] = [kept.get(key) if key else None for key in keys]
    new = [number for number, result in enumerate(results) if result is None]
    for number, result in zip(new, read_hashed([paths[n] for n in new], resizing, sums=True), strict=True):
        results[number] = result
    whole = [n for n, result in enumerate(results) if keys[n] and not isinstance(result, str)]
    if new and whole:
        with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to stop
            _save(place, [keys[n] or "" for n in whole], [results[n] for n in whole])
    return results


def cache_folder(room: str) -> Path:
    """Return the folder of this name in the user's cache; it may not be there yet."""
    import pooch  # slow to import

    return Path(os.environ.get("SIGHTLINE_CACHE") or pooch.os_cache("sightline")) / room


def _place(root: Path, resizing: Resizing) -> Path:
    folder = cache_folder("pictures")
    what = f"{_VERSION} {root.resolve()} {resizing}"
    return folder / f"{hashlib.blake2b(os.fsencode(what), digest_size=12).hexdigest()}.npz"


def _key(path: str) -> str | None:
    try:
        found = Path(file_of(path)).stat()
    except (OSError, ValueError):
        return None
    spelled = os.fsencode(Path(path).absolute()).decode("utf-8", "backslashreplace")
    return f"{found.st_size} {found.st_mtime_ns} {spelled}"


def _load(place: Path) -> dict[str | None, tuple[np.ndarray, str]]:
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys, hashes, sums = (arrays[name] for name in ("keys", "hashes", "sums"))
        if sums.shape != (len(keys), 2, 3) or sums.dtype != np.int64 or hashes.shape != keys.shape:
            return {}
        texts = [bytes(key).decode() for key in keys]
        return dict(zip(texts, zip(sums, [bytes(one).decode() for one in hashes], strict=True), strict=True))
    except (OSError, ValueError, KeyError, EOFError, TypeError, NotImplementedError, zipfile.BadZipFile):
        return {}


def _save(place: Path, keys: list[str], results: list[tuple[np.ndarray, str]]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "keys": np.array([key.encode() for key in keys]),
        "hashes": np.array([own.encode() for _, own in results]),
        "sums": np.stack([sums for sums, _ in results]),
    }
    write_atomic(place, lambda file: np.savez(file, **arrays))
