"""Killed, interrupted, out of space, not allowed: nothing torn, nothing lost, one clear line."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sightline as sl
from sightline.cli import main
from sightline.errors import SightlineError
from sightline.files import sweep, write_text

CHANGES = [
    "model.options={widths=[8, 16, 16]}", "training.epochs=4", "training.batch_size=64",
    "training.precision=float32", "data.limit=800", "analysis.range_test=false",
    "analysis.mistakes=3", "analysis.compare_images=0",
]  # fmt: skip
SETTINGS = [part for change in CHANGES for part in ("--set", change)]
COMMAND = [sys.executable, "-m", "sightline", "run", "--device", "cpu"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *SETTINGS, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen, text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the run ended before it said {text!r}: {process.stderr.read()}")


def files_that_do_not_open(folder: Path) -> list[str]:
    """Every file of a run that is there has to be whole."""
    bad = []
    for path in folder.glob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            bad.append(path.name)
    if (folder / "checkpoint.pt").exists():
        torch.load(folder / "checkpoint.pt", weights_only=True)
    return bad


@pytest.mark.slow
def test_killed_at_several_moments_and_resumed_the_weights_are_those_of_a_run_left_alone(tmp_path):
    whole = sl.run("shapes-quick", changes=CHANGES, out=tmp_path / "whole", device="cpu", verbose=False)
    expected = (whole.folder / "model.safetensors").read_bytes()
    for number, moment in enumerate(("images of", "epoch 1/4", "epoch 3/4", "test accuracy")):
        out = tmp_path / f"killed-{number}"
        process = start(out)
        wait_for(process, moment)
        time.sleep(0.05 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert files_that_do_not_open(out) == []
        done = subprocess.run([*COMMAND, "--resume", str(out)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (out / "model.safetensors").read_bytes() == expected
        assert not list(out.glob(".*.partial"))
        assert {p.name for p in out.iterdir()} == {p.name for p in whole.folder.iterdir()}


@pytest.mark.slow
def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "stopped"
    process = start(out)
    wait_for(process, "epoch 1/4")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip() == (
        f"sightline: stopped, and what was done is kept; go on with: sightline run --resume {out}"
    )
    assert (out / "checkpoint.pt").exists()


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["metrics.json"]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / ".checkpoint.pt.abc.partial").write_text("half")
    (tmp_path / "mine.partial").write_text("mine")
    sweep(tmp_path)
    assert names(tmp_path) == ["mine.partial"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk of memory")
def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_stays_whole(small_disk, capsys):
    out = small_disk / "run"
    big = ["--set", "model.options={widths=[16, 48, 64]}"]
    assert main(["run", "--device", "cpu", *SETTINGS, *big, "--out", str(out), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert not list(out.glob(".*.partial"))
    assert files_that_do_not_open(out) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["run", "--out", str(tmp_path / "run")]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    assert main(["run", "--device", "cpu", *SETTINGS, "--out", str(tmp_path / "runs" / "a")]) == 1
    assert "Not a directory; choose another --out" in capsys.readouterr().err


def test_a_model_card_of_another_run_is_noticed(tmp_path):
    made = sl.run(
        "shapes-quick",
        changes=[*CHANGES, "training.epochs=1"],
        out=tmp_path / "a",
        device="cpu",
        verbose=False,
    )
    card = json.loads((made.folder / "model.json").read_text())
    card["class_names"] = card["class_names"][:7]
    (made.folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(SightlineError, match=r"does not hold the weights of its model\.json"):
        made.model()
