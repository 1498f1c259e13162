"""Files that are whole or absent, JSON with a schema number, and one writer at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sightline import files
from sightline.errors import BusyError, DamagedFileError, NotFoundError, WriteError
from sightline.files import LOCK, SCHEMA, hold, read_json, sweep, write_json, write_text

posix = pytest.mark.skipif(os.name != "posix", reason="needs the locks and signals of POSIX")

# Holds the folder until its input ends, and says so.
HOLDER = """
import sys
from pathlib import Path
from sightline.files import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n", process.stderr.read()
    return process


def holder_of(folder: Path) -> dict:
    return json.loads((folder / LOCK).read_text())


@posix
def test_a_held_folder_is_refused_and_its_holder_named(tmp_path):
    process = start_holder(tmp_path)
    found = holder_of(tmp_path)
    assert (found["process"], found["host"]) == (process.pid, os.uname().nodename)
    assert found["schema"] == SCHEMA
    match = rf"in use by process {process.pid} since 2.*; wait until it ends"
    with pytest.raises(BusyError, match=match), hold(tmp_path):
        raise AssertionError("two processes hold the folder")
    assert (tmp_path / LOCK).exists()
    process.communicate()
    assert not (tmp_path / LOCK).exists()
    with hold(tmp_path):
        assert holder_of(tmp_path)["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@posix
def test_what_a_killed_process_held_is_free(tmp_path):
    process = start_holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert holder_of(tmp_path)["process"] == process.pid
    with hold(tmp_path):
        assert holder_of(tmp_path)["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_lock_of_another_machine_counts_until_it_is_deleted(tmp_path):
    there = {"schema": 1, "host": "elsewhere", "process": 1, "since": "2026-01-02 03:04:05+00:00"}
    (tmp_path / LOCK).write_text(json.dumps(there))
    match = "in use by process 1 on elsewhere since 2026-01-02 .*; if that process has ended, delete .*lock"
    with pytest.raises(BusyError, match=match), hold(tmp_path):
        pass
    (tmp_path / LOCK).unlink()
    with hold(tmp_path):
        pass


@posix
def test_without_locks_of_the_system_the_process_and_its_start_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_try_lock", lambda handle: None)
    me = {"host": os.uname().nodename, "since": "now", "process": os.getpid()}
    start = files._process_start(os.getpid())
    if not start:
        pytest.skip("this system does not say when a process began")
    (tmp_path / LOCK).write_text(json.dumps({**me, "process_start": start}))
    with pytest.raises(BusyError), hold(tmp_path):
        pass
    for gone in ({"process_start": "1"}, {"process": 2**22 + 1, "process_start": start}):
        (tmp_path / LOCK).write_text(json.dumps({**me, **gone}))
        with hold(tmp_path):
            assert holder_of(tmp_path)["process_start"] == start


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"3", 10_000 * b"[", b"\xff"])
def test_a_lock_that_names_nobody_holds_nothing(content, tmp_path):
    (tmp_path / LOCK).write_bytes(content)
    with hold(tmp_path):
        assert holder_of(tmp_path)["process"] == os.getpid()


@posix
def test_one_thread_may_hold_again_and_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            with hold(tmp_path):
                pass
        except BusyError as error:
            refused.append(str(error))

    with hold(tmp_path):
        with hold(tmp_path / "." / ".." / tmp_path.name):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert f"in use by process {os.getpid()}" in refused[0]
        assert holder_of(tmp_path)["process"] == os.getpid()


@posix
def test_a_child_that_outlives_the_holder_holds_nothing(tmp_path):
    # As the workers that read images do, for a few seconds, after the training process was killed.
    code = HOLDER.replace(
        'print("held", flush=True)',
        # The child speaks: it has let go by then, however late it was given its turn.
        'import os, time\n    if os.fork() == 0: print("held", flush=True); time.sleep(20)',
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    process.stdout.readline()
    process.kill()
    process.wait()
    try:
        with hold(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        process.stdout.close()


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path):
    with pytest.raises(NotFoundError, match="is not a folder"), hold(tmp_path / "none"):
        pass


def test_sweep_deletes_what_killed_processes_left_in_all_folders(tmp_path):
    figures = tmp_path / "figures" / "deep"
    figures.mkdir(parents=True)
    left = [tmp_path / ".checkpoint.pt.ab1_efgh.partial", figures / ".loss.png.12345678.partial"]
    kept = [
        tmp_path / "mine.partial",
        tmp_path / ".mine.partial",
        figures / ".notes.partial",
        figures / "a.png",
    ]
    for path in (*left, *kept):
        path.write_text("half")
    sweep(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


@posix
def test_sweep_leaves_what_a_living_process_is_writing(tmp_path):
    with files.atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
        sweep(tmp_path)
        assert partial.exists()
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127 + "n", "n" * 230])
def test_the_longest_name_of_a_file_is_written(name, tmp_path):
    write_text(tmp_path / name, "whole")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"none/a.txt cannot be written \(No such file or directory\)"):
        write_text(tmp_path / "none" / "a.txt", "text")


def test_json_carries_its_schema_and_reads_back(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, {"a": [1, 2.5, None, "é"]})
    assert json.loads(path.read_text()) == {"schema": SCHEMA, "a": [1, 2.5, None, "é"]}
    assert read_json(path, otherwise="do it again") == {"a": [1, 2.5, None, "é"]}
    write_text(path, '{"a": 1}')  # as version 0.1 wrote it
    assert read_json(path, otherwise="do it again") == {"a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})


def test_json_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, {"a": 1}, schema=3)
    match = rf"written by a newer Sightline \(schema 3, this one reads up to {SCHEMA}\); upgrade"
    with pytest.raises(DamagedFileError, match=match):
        read_json(path, otherwise="do it again")
    assert read_json(path, otherwise="do it again", schema=3) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"[1]", "it holds no object but a list"),
        (b"3", "no object but a number"),
        (b"null", "no object but nothing"),
        (b'"a"', "no object but text"),
        (b"true", "no object but yes or no"),
        (10_000 * b"[" + 10_000 * b"]", "recursion"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"schema": "1"}', "has the schema '1', which is no number"),
        (b'{"schema": true}', "has the schema True, which is no number"),
        (b'{"schema": 0}', "has the schema 0, which is no number"),
    ],
)  # fmt: skip
def test_json_that_is_no_table_is_refused_with_the_reason(content, reason, tmp_path):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"card.json .*; do it again$") as error:
        read_json(path, otherwise="do it again")
    assert reason in str(error.value)


def test_json_that_is_absent_or_no_file(tmp_path):
    with pytest.raises(NotFoundError, match=r"none.json is missing; do it again"):
        read_json(tmp_path / "none.json", otherwise="do it again")
    with pytest.raises(DamagedFileError, match="not a regular file"):
        read_json(tmp_path, otherwise="do it again")
