"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning multiple layers of features from tiny images").

50,000 training and 10,000 test images of 32x32, from the published Python archives: downloaded once, with
their checksum, into a cache (pooch), or read where the user has them. The members of an archive are read in
memory; nothing is extracted. They are pickles, and a pickle can name any function to be called:
`_ArrayUnpickler` knows the five names that an array of bytes needs and refuses all others.
"""

from __future__ import annotations

import _codecs
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy._core.multiarray import _reconstruct

from sightline import logs
from sightline.data.dataset import Dataset, Split
from sightline.errors import DamagedFileError, NotFoundError, WriteError

_RETRIES = 2  # of a download that breaks

_SITE = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Archive:
    """Where one of the two data sets is published, and what its files hold."""

    url: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    rows: tuple[int, int]  # of each training file, of the test file
    labels: str  # the key of the labels in those files
    meta: str
    class_names: str  # the key of the names in `meta`
    classes: int

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


ARCHIVES = {
    "cifar10": Archive(
        url=_SITE + "cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        rows=(10_000, 10_000),
        labels="labels",
        meta="batches.meta",
        class_names="label_names",
        classes=10,
    ),
    "cifar100": Archive(
        url=_SITE + "cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        train=("train",),
        test="test",
        rows=(50_000, 10_000),
        labels="fine_labels",
        meta="meta",
        class_names="fine_label_names",
        classes=100,
    ),
}


def load_cifar(name: str, *, data_dir: str | Path | None = None) -> Dataset:
    """Return CIFAR-10 (`name="cifar10"`) or CIFAR-100 with its 100 fine labels (`"cifar100"`).

    Args:
        name: "cifar10" or "cifar100".
        data_dir: A folder that holds the published archive or the unpacked folder, or one of the two itself;
            None for the download in the cache (environment variable SIGHTLINE_CACHE), fetched once.

    Raises:
        NotFoundError: A file is missing, or the network is.
        DamagedFileError: A file is not what CIFAR publishes.
        WriteError: The cache cannot be written.
    """
    archive = ARCHIVES[name]
    path = _download(archive) if data_dir is None else _find(archive, Path(data_dir))
    found = dict(_read_folder(archive, path) if path.is_dir() else _read_archive(archive, path))
    missing = [member for member in archive.members if member not in found]
    if missing:
        raise NotFoundError(
            f"{path} lacks {', '.join(missing)}; {archive.folder} holds {', '.join(archive.members)}: "
            "download or unpack it again"
        )
    return Dataset(
        name,
        _class_names(archive, found[archive.meta], path),
        train=_split(archive, [(member, found[member]) for member in archive.train], 0, path),
        test=_split(archive, [(archive.test, found[archive.test])], 1, path),
        source=archive.url if data_dir is None else str(path),
    )


def _download(archive: Archive) -> Path:
    """Return the archive in the cache, downloaded if it is not there; what is there is whole."""
    import pooch  # slow to import, as is the next
    import requests

    name, otherwise = archive.file_name, f"name a folder that holds {archive.file_name} (--data-dir)"
    cache = Path(os.environ.get("SIGHTLINE_CACHE") or pooch.os_cache("sightline"))
    store = pooch.create(
        cache,
        base_url="",
        registry={name: f"md5:{archive.md5}"},
        urls={name: archive.url},
        retry_if_failed=_RETRIES,
    )
    try:
        with logs.stage(f"downloading {archive.url}"):
            return Path(store.fetch(name))
    except requests.RequestException as error:
        raise NotFoundError(
            f"cannot download {archive.url} ({_reason(error)}); try again with a network, or {otherwise}"
        ) from error
    except ValueError as error:
        raise DamagedFileError(
            f"{archive.url} does not have the published checksum (md5 {archive.md5}), and what came was "
            f"deleted; try again, or {otherwise}"
        ) from error
    except OSError as error:
        raise WriteError(
            f"cannot write {name} to {cache} ({error.strerror or error}); name a folder with room in the "
            f"environment variable SIGHTLINE_CACHE, or {otherwise}"
        ) from error


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer"
    broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
    return "the connection broke" if broken else "no connection"


def _find(archive: Archive, data_dir: Path) -> Path:
    if data_dir.is_file():
        return data_dir
    for path in (data_dir / archive.folder, data_dir, data_dir / archive.file_name):
        if (path / archive.meta).is_file() or path.is_file():
            return path
    raise NotFoundError(
        f"no {archive.folder}/ and no {archive.file_name} in {data_dir}; name the folder that holds one of "
        "them, or leave the data folder out to download it"
    )


def _read_folder(archive: Archive, folder: Path) -> Iterator[tuple[str, dict]]:
    for member in archive.members:
        path = folder / member
        if path.is_file():
            yield member, _unpickle(path.read_bytes(), str(path))


def _read_archive(archive: Archive, path: Path) -> Iterator[tuple[str, dict]]:
    wanted = {f"{archive.folder}/{member}": member for member in archive.members}
    try:
        with tarfile.open(path) as tar:
            for entry in tar:
                _refuse_escape(entry, path)
                member = wanted.get(str(PurePosixPath(entry.name)))
                if member and (file := tar.extractfile(entry)):
                    yield member, _unpickle(file.read(), f"{path}/{entry.name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DamagedFileError(
            f"{path} is not a whole archive ({_first_line(error)}); "
            f"delete it and download {archive.url} again"
        ) from error


def _refuse_escape(entry: tarfile.TarInfo, path: Path) -> None:
    # Nothing is extracted, so nothing can be overwritten; but no published archive looks like this.
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or not (entry.isfile() or entry.isdir()):
        raise DamagedFileError(
            f"{path} holds {entry.name!r}, which is a link or leads out of the archive; "
            "use the published archive"
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")


class _ArrayUnpickler(pickle.Unpickler):
    """Knows numpy arrays, written by numpy 1 or 2 and Python 2 or 3, and nothing else."""

    _KNOWN = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _codecs.encode,
    }

    def find_class(self, module_name: str, global_name: str) -> object:
        try:
            return self._KNOWN[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None


def _unpickle(content: bytes, where: str) -> dict:
    try:
        found = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # damaged bytes can make an unpickler raise anything
        raise DamagedFileError(
            f"{where} is not a CIFAR file ({_first_line(error)}); download it again"
        ) from error
    if not isinstance(found, dict):
        raise DamagedFileError(f"{where} holds a {type(found).__name__}, not the table of a CIFAR file")
    return found


def _split(archive: Archive, batches: list[tuple[str, dict]], which: int, path: Path) -> Split:
    arrays = [_rows(archive, batch, archive.rows[which], f"{path}/{member}") for member, batch in batches]
    planes = np.concatenate([images for images, _ in arrays]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in arrays])
    return Split(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _rows(archive: Archive, batch: dict, rows: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = batch.get("data"), batch.get(archive.labels)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (rows, 3072):
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DamagedFileError(f"{where} has images {what}; CIFAR publishes uint8 ({rows}, 3072)")
    if (
        not isinstance(labels, list)
        or len(labels) != rows
        or not all(type(label) is int and 0 <= label < archive.classes for label in labels)
    ):
        raise DamagedFileError(
            f"{where} has no {rows} {archive.labels} from 0 to {archive.classes - 1}; download it again"
        )
    return images, np.array(labels, np.int64)


def _class_names(archive: Archive, meta: dict, path: Path) -> tuple[str, ...]:
    names = meta.get(archive.class_names)
    if (
        not isinstance(names, list)
        or len(names) != archive.classes
        or not all(isinstance(name, str) and name.isprintable() and name for name in names)
    ):
        raise DamagedFileError(
            f"{path}/{archive.meta} has no {archive.classes} {archive.class_names}; download it again"
        )
    return tuple(names)
