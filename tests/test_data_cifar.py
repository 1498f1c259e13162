from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from sightline.data import cifar, load_data
from sightline.data.cifar import ARCHIVES, load_cifar
from sightline.errors import DamagedFileError, NotFoundError, SightlineError, WriteError

ROWS = 4
NAMES = [f"class {i}" for i in range(10)]


def _batch(seed: int, **changes) -> dict:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8)
    return {"data": data, "labels": rng.integers(0, 10, ROWS).tolist()} | changes


def _members(**changes) -> dict[str, bytes]:
    tables = {f"data_batch_{i}": _batch(i) for i in range(1, 6)} | {"test_batch": _batch(6)}
    tables["batches.meta"] = {"label_names": NAMES}
    return {name: pickle.dumps(table, protocol=2) for name, table in (tables | changes).items()}


def _write_folder(folder: Path, **changes) -> Path:
    folder.mkdir()
    for name, content in _members(**changes).items():
        (folder / name).write_bytes(content)
    return folder


def _archive_bytes(extra: tarfile.TarInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in _members().items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if extra is not None:
            tar.addfile(extra)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def small_archive(monkeypatch):
    monkeypatch.setitem(ARCHIVES, "cifar10", dataclasses.replace(ARCHIVES["cifar10"], rows=(ROWS, ROWS)))


@pytest.fixture
def folder(tmp_path) -> Path:
    return _write_folder(tmp_path / "cifar-10-batches-py")


def _check(dataset) -> None:
    assert dataset.class_names == tuple(NAMES)
    assert (len(dataset.train), len(dataset.test)) == (5 * ROWS, ROWS)
    row, batch = 2, _batch(3)
    image = dataset.train.images[2 * ROWS + row]
    for y, x, channel in ((0, 0, 0), (3, 17, 1), (31, 31, 2)):
        assert image[y, x, channel] == batch["data"][row, channel * 1024 + y * 32 + x]
    assert dataset.train.labels[2 * ROWS + row] == batch["labels"][row]
    assert dataset.test.labels.tolist() == _batch(6)["labels"]


def test_the_unpacked_folder_is_found_below_or_as_the_data_folder(folder):
    _check(load_cifar("cifar10", data_dir=folder.parent))
    _check(load_cifar("cifar10", data_dir=folder))
    _check(load_data("cifar10", data_dir=str(folder)))


def test_the_archive_is_read_in_memory(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(_archive_bytes())
    _check(load_cifar("cifar10", data_dir=tmp_path))
    _check(load_cifar("cifar10", data_dir=archive))
    assert list(tmp_path.iterdir()) == [archive]


def test_cifar100_has_its_fine_labels(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHIVES, "cifar100", dataclasses.replace(ARCHIVES["cifar100"], rows=(ROWS, ROWS)))
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    table = {"data": _batch(0)["data"], "fine_labels": [99, 0, 50, 3], "coarse_labels": [1, 1, 1, 1]}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(table, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    assert load_cifar("cifar100", data_dir=tmp_path).train.labels.tolist() == [99, 0, 50, 3]


def test_a_python_2_pickle_of_a_numpy_1_array_is_read():
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x03\x07\xfe\xfftbU\x06labels](K\x01K\x02eu."
    )
    table = cifar._unpickle(content, "here")
    assert table["data"].tolist() == [[7, 254, 255]]
    assert table["labels"] == [1, 2]


class _Malice:
    def __reduce__(self):
        return os.system, ("echo never",)


def test_a_pickle_that_calls_a_function_is_refused(tmp_path, monkeypatch):
    folder = _write_folder(tmp_path / "cifar-10-batches-py", data_batch_2={"data": _Malice()})
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("it ran"))
    with pytest.raises(
        SightlineError, match=r"data_batch_2 is not a CIFAR file \(it asks for posix\.system\)"
    ):
        load_cifar("cifar10", data_dir=folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            _batch(0, data=np.zeros((ROWS, 3072))),
            r"images float64 \(4, 3072\); CIFAR publishes uint8 \(4, 3072\)",
        ),
        (_batch(0, data=np.zeros((3, 3072), np.uint8)), r"images uint8 \(3, 3072\); CIFAR publishes"),
        (_batch(0, data="text"), "images str; CIFAR publishes"),
        (_batch(0, labels=[0, 1, 2, 10]), "has no 4 labels from 0 to 9"),
        (_batch(0, labels=[0, 1, 2]), "has no 4 labels from 0 to 9"),
        (["no table"], "holds a list, not the table of a CIFAR file"),
    ],
)
def test_a_batch_that_is_not_what_cifar_publishes_is_an_error(tmp_path, table, message):
    folder = _write_folder(tmp_path / "cifar-10-batches-py", test_batch=table)
    with pytest.raises(SightlineError, match=f"test_batch.*{message}"):
        load_cifar("cifar10", data_dir=folder)


def test_missing_or_torn_files_are_named(folder):
    (folder / "data_batch_4").write_bytes(_members()["data_batch_4"][:2000])
    with pytest.raises(SightlineError, match="data_batch_4 is not a CIFAR file"):
        load_cifar("cifar10", data_dir=folder)
    (folder / "data_batch_4").unlink()
    with pytest.raises(SightlineError, match="lacks data_batch_4; cifar-10-batches-py holds data_batch_1, "):
        load_cifar("cifar10", data_dir=folder)


def test_a_folder_without_cifar_names_both_ways_out(tmp_path):
    with pytest.raises(SightlineError) as caught:
        load_cifar("cifar10", data_dir=tmp_path)
    assert str(caught.value) == (
        f"no cifar-10-batches-py/ and no cifar-10-python.tar.gz in {tmp_path}; name the folder that holds "
        "one of them, or leave the data folder out to download it"
    )


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_archive_is_an_error(tmp_path, share):
    content = _archive_bytes()
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SightlineError, match=r"is not a whole archive .*; delete it and download"):
        load_cifar("cifar10", data_dir=tmp_path)


def test_a_file_that_is_no_archive_is_an_error_of_one_line(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_text("<html>not found</html>")
    with pytest.raises(SightlineError, match="is not a whole archive") as caught:
        load_cifar("cifar10", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "cifar-10-batches-py/../../up", "link"])
def test_an_archive_that_leads_out_of_itself_is_an_error(tmp_path, name):
    entry = tarfile.TarInfo(name)
    if name == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(_archive_bytes(entry))
    with pytest.raises(SightlineError, match=f"holds '{name}', which is a link or leads out"):
        load_cifar("cifar10", data_dir=tmp_path)


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; the first answers break off after as many bytes as `cuts` says."""

    content, cuts, answers, status = b"", [], [], 200

    def do_GET(self):
        self.answers.append(self.path)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: self.cuts.pop(0) if self.cuts else None])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A class whose attributes say what to serve; the cache is `tmp_path / "cache"`."""

    class Serving(_Server):
        content = _archive_bytes()
        cuts, answers = [], []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serving) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/cifar-10-python.tar.gz"
        md5 = hashlib.md5(Serving.content).hexdigest()
        monkeypatch.setitem(ARCHIVES, "cifar10", dataclasses.replace(ARCHIVES["cifar10"], url=url, md5=md5))
        monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(cifar, "_RETRIES", 0)
        yield Serving
        running.shutdown()


def _cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def test_the_download_is_cached(server, tmp_path):
    _check(load_cifar("cifar10"))
    _check(load_cifar("cifar10"))
    assert len(server.answers) == 1
    assert _cached(tmp_path) == ["cifar-10-python.tar.gz"]


def test_a_broken_download_is_tried_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_RETRIES", 1)
    server.cuts += [70_000]
    _check(load_cifar("cifar10"))
    assert len(server.answers) == 2


def test_a_download_that_breaks_each_time_leaves_nothing(server, tmp_path):
    server.cuts += [70_000]
    with pytest.raises(
        NotFoundError, match=r"cannot download http.* \(the connection broke\); try again with"
    ):
        load_cifar("cifar10")
    assert _cached(tmp_path) == []
    _check(load_cifar("cifar10"))


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/cifar-10-python.tar.gz").write_bytes(server.content[:-1])
    _check(load_cifar("cifar10"))
    assert len(server.answers) == 1


def test_a_wrong_checksum_keeps_nothing(server, tmp_path):
    server.content = server.content[:-1] + b"?"
    with pytest.raises(DamagedFileError, match=r"does not have the published checksum .* deleted") as caught:
        load_cifar("cifar10")
    assert "\n" not in str(caught.value)
    assert _cached(tmp_path) == []


def test_a_refusing_server_is_named_with_its_answer(server):
    server.status = 404
    with pytest.raises(NotFoundError, match=r"\(HTTP 404\)"):
        load_cifar("cifar10")


def test_without_network_the_error_names_both_ways_out(monkeypatch, tmp_path):
    changed = dataclasses.replace(ARCHIVES["cifar10"], url="http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setitem(ARCHIVES, "cifar10", changed)
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(cifar, "_RETRIES", 0)
    with pytest.raises(NotFoundError) as caught:
        load_cifar("cifar10")
    assert str(caught.value) == (
        "cannot download http://127.0.0.1:9/cifar-10-python.tar.gz (no connection); try again with a "
        "network, or name a folder that holds cifar-10-python.tar.gz (--data-dir)"
    )


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        WriteError, match=r"cannot write .* to .*; name a folder with room in .*SIGHTLINE_CACHE"
    ):
        load_cifar("cifar10")


@pytest.mark.real_data
@pytest.mark.skipif(
    "SIGHTLINE_CIFAR10" not in os.environ, reason="SIGHTLINE_CIFAR10 names no CIFAR-10 folder"
)
def test_the_real_data_has_its_known_statistics(monkeypatch):
    monkeypatch.setitem(ARCHIVES, "cifar10", dataclasses.replace(ARCHIVES["cifar10"], rows=(10_000, 10_000)))
    dataset = load_cifar("cifar10", data_dir=os.environ["SIGHTLINE_CIFAR10"])
    assert (dataset.train.images.shape, len(dataset.test)) == ((50_000, 32, 32, 3), 10_000)
    assert dataset.mean.round(4).tolist() == [0.4914, 0.4822, 0.4465]
    assert dataset.std.round(4).tolist() == [0.2470, 0.2435, 0.2616]
    assert dataset.train.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert dataset.class_names[6] == "frog"
