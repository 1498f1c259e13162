"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning multiple layers of features from tiny images").

50,000 training and 10,000 test images of 32x32, from the published Python archives. The members
of an archive are read in memory; nothing is extracted. They are pickles, and a pickle can name
any function to be called: `_ArrayUnpickler` knows the five names that an array of bytes needs and
refuses all others.

Download a published file once, into a cache, with its checksum, going on where it stopped.

pooch owns the cache and the checksum. It has no resume, so the bytes come through
`resume_download`: they gather in `NAME.part`, and a second attempt asks the server for
what is missing.
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
from typing import Any

import numpy as np
import pooch
import requests
from numpy._core.multiarray import _reconstruct

from sightline.data.dataset import Dataset, Split
from sightline.errors import SightlineError

_CHUNK = 1 << 16  # bytes; what a broken connection loses is less than one of them


def cache_folder() -> Path:
    """Return the folder of downloads: the variable SIGHTLINE_CACHE, or the system's cache folder."""
    return Path(os.environ.get("SIGHTLINE_CACHE") or pooch.os_cache("sightline"))


def fetch(url: str, *, md5: str, otherwise: str) -> Path:
    """Return the path of the file at `url` in the cache, downloaded if it is not there whole.

    otherwise: the other way to get the file, for the error message.
    Raises SightlineError without a network, on a wrong checksum (nothing is kept) or a cache that
    cannot be written. A connection that breaks keeps what came: the next call goes on from there.
    """
    name, cache = url.rsplit("/", 1)[-1], cache_folder()
    try:
        downloader: Any = resume_download  # pooch declares its downloaders as something else
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=name, path=cache, downloader=downloader))
    except requests.RequestException as error:
        raise SightlineError(
            f"cannot download {url} ({_reason(error)}); try again with a network (it goes on where it "
            f"stopped), or {otherwise}"
        ) from error
    except ValueError as error:
        raise SightlineError(
            f"{name} from {url} does not have the published checksum (md5 {md5}) and was deleted; "
            f"try again, or {otherwise}"
        ) from error
    except OSError as error:
        raise SightlineError(
            f"cannot write {name} to {cache} ({error.strerror or error}); name a folder with room in the "
            f"variable SIGHTLINE_CACHE, or {otherwise}"
        ) from error


def resume_download(url: str, output_file: str, _pooch: object = None) -> None:
    """Download `url` to `output_file`, beginning after the bytes in `NAME.part` beside it.

    A downloader for pooch. Raises requests.RequestException; what came by then stays in the part.
    """
    part = Path(output_file).parent / (url.rsplit("/", 1)[-1] + ".part")
    start = part.stat().st_size if part.exists() else 0
    # Without "identity" a server may compress again, and Content-Length would count other bytes.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        if response.status_code != requests.codes.requested_range_not_satisfiable:  # else nothing is missing
            response.raise_for_status()
            _append(response, part, start)
    part.replace(output_file)


def _append(response: requests.Response, part: Path, start: int) -> None:
    resumed = response.status_code == requests.codes.partial_content  # else the server ignored the range
    with part.open("ab" if resumed else "wb") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
        size = file.tell()
    expected = response.headers.get("Content-Length")
    if expected is not None and size != int(expected) + start * resumed:
        raise requests.ConnectionError(f"the connection broke after {size} bytes")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer"
    if "broke after" in str(error) or isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "no connection"


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

    data_dir: a folder that holds the published archive or the unpacked folder, or one of the two
    itself; None: the download in the cache (SIGHTLINE_CACHE), fetched at the first call.
    Raises SightlineError if the files are missing, damaged or not what CIFAR publishes.
    """
    archive = ARCHIVES[name]
    place = _download(archive) if data_dir is None else _find(archive, Path(data_dir))
    found = dict(_read_folder(archive, place) if place.is_dir() else _read_archive(archive, place))
    missing = [member for member in archive.members if member not in found]
    if missing:
        raise SightlineError(
            f"{place} lacks {', '.join(missing)}; {archive.folder} holds {', '.join(archive.members)}: "
            "download or unpack it again"
        )
    return Dataset(
        name,
        _class_names(archive, found[archive.meta], place),
        train=_split(archive, [(member, found[member]) for member in archive.train], 0, place),
        test=_split(archive, [(archive.test, found[archive.test])], 1, place),
        source=archive.url if data_dir is None else str(place),
    )


def _download(archive: Archive) -> Path:
    pass  # the network's libraries are slow to import

    otherwise = f"name a data folder that holds {archive.file_name} or {archive.folder}/ (--data-dir)"
    return fetch(archive.url, md5=archive.md5, otherwise=otherwise)


def _find(archive: Archive, data_dir: Path) -> Path:
    if data_dir.is_file():
        return data_dir
    for place in (data_dir / archive.folder, data_dir, data_dir / archive.file_name):
        if (place / archive.meta).is_file() or place.is_file():
            return place
    raise SightlineError(
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
        raise SightlineError(
            f"{path} is not a whole archive ({_first_line(error)}); "
            f"delete it and download {archive.url} again"
        ) from error


def _refuse_escape(entry: tarfile.TarInfo, path: Path) -> None:
    # Nothing is extracted, so nothing can be overwritten; but no published archive looks like this.
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or not (entry.isfile() or entry.isdir()):
        raise SightlineError(
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
        raise SightlineError(
            f"{where} is not a CIFAR file ({_first_line(error)}); download it again"
        ) from error
    if not isinstance(found, dict):
        raise SightlineError(f"{where} holds a {type(found).__name__}, not the table of a CIFAR file")
    return found


def _split(archive: Archive, batches: list[tuple[str, dict]], which: int, place: Path) -> Split:
    arrays = [_rows(archive, batch, archive.rows[which], f"{place}/{member}") for member, batch in batches]
    planes = np.concatenate([images for images, _ in arrays]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in arrays])
    return Split(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _rows(archive: Archive, batch: dict, rows: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = batch.get("data"), batch.get(archive.labels)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (rows, 3072):
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise SightlineError(f"{where} has images {what}; CIFAR publishes uint8 ({rows}, 3072)")
    if (
        not isinstance(labels, list)
        or len(labels) != rows
        or not all(type(label) is int and 0 <= label < archive.classes for label in labels)
    ):
        raise SightlineError(
            f"{where} has no {rows} {archive.labels} from 0 to {archive.classes - 1}; download it again"
        )
    return images, np.array(labels, np.int64)


def _class_names(archive: Archive, meta: dict, place: Path) -> tuple[str, ...]:
    names = meta.get(archive.class_names)
    if not isinstance(names, list) or len(names) != archive.classes:
        raise SightlineError(
            f"{place}/{archive.meta} has no {archive.classes} {archive.class_names}; download it again"
        )
    return tuple(str(name) for name in names)
