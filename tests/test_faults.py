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

import numpy as np
import pytest
import torch
from PIL import Image

import sightline as sl
from sightline.cli import main
from sightline.errors import SightlineError
from sightline.files import sweep, write_text
from sightline.runs import finish_run, load_run, new_folder

CHANGES = [
    "model.options={widths=[8, 16, 16]}", "training.epochs=4", "training.batch_size=64",
    "training.precision=float32", "data.limit=800", "analysis.range_test=false",
    "analysis.mistakes=3", "analysis.compare_images=0",
]  # fmt: skip
SETTINGS = [part for change in CHANGES for part in ("--set", change)]
COMMAND = [sys.executable, "-m", "sightline", "run", "--device", "cpu"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(out: Path, *more: str, sigint=signal.SIG_DFL) -> subprocess.Popen:
    """Start a run; with SIGINT as a terminal starts it, however this process was started itself."""
    return subprocess.Popen(
        [*COMMAND, *SETTINGS, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, sigint),
    )  # fmt: skip


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
@pytest.mark.parametrize(
    ("sent", "sigint"),
    [
        (signal.SIGINT, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_IGN),  # as under nohup, or in the background of a script
    ],
)
def test_a_signal_keeps_the_checkpoint_and_says_how_to_go_on(sent, sigint, tmp_path):
    out = tmp_path / "stopped"
    process = start(out, sigint=sigint)
    wait_for(process, "epoch 2/4")  # whose line comes before its checkpoint
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip() == (
        f"sightline: stopped, and what was done is kept; go on with: sightline run --resume {out}"
    )
    assert (out / "checkpoint.pt").exists()
    assert not (out / ".lock").exists()


@pytest.mark.slow
def test_an_ignored_ctrl_c_stays_ignored(tmp_path):
    process = start(tmp_path / "run", "--set", "training.epochs=1", sigint=signal.SIG_IGN)
    wait_for(process, "images of")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, "")


@pytest.mark.slow
def test_before_the_first_checkpoint_nothing_is_said_to_be_kept(tmp_path):
    out = tmp_path / "stopped"
    process = start(out)
    wait_for(process, "images of")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip() == (
        "sightline: stopped before the first checkpoint, so the training is lost; begin it again with: "
        f"sightline run --resume {out}"
    )


@pytest.mark.slow
def test_several_ctrl_c_end_in_one_line(tmp_path):
    root = tmp_path / "pictures"
    for name in ("red", "green"):
        (root / name).mkdir(parents=True)
        for i in range(40):
            noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(noise).save(root / name / f"{i}.png")
    # Streamed, so that there are workers too; a terminal interrupts the whole group.
    process = subprocess.Popen(
        [*COMMAND, *SETTINGS, "--data", str(root), "--set", "data.stream=true",
         "--set", "training.epochs=200", "--set", "training.batch_size=8", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(process, "epoch   2/200")
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith("sightline: stopped, and what was done is kept"), error
    assert error.count("\n") == 1, error


@pytest.mark.slow
def test_a_second_command_in_a_folder_is_refused_and_the_first_ends_well(tmp_path, capsys):
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, "epoch 1/4")
    for command in (["run", "--resume", str(out)], ["train", "--resume", str(out)], ["report", str(out)],
                    ["audit", str(out)], ["analyze", str(out)]):  # fmt: skip
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"sightline: {out} is in use by process {process.pid} since " in error
    assert main(["run", "--out", str(out), *SETTINGS, "--device", "cpu"]) == 1
    assert "is in use by process" in capsys.readouterr().err
    _, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (0, "")
    assert not (out / ".lock").exists()


# Forks processes that all ask for one new folder at the same moment, each saying whether it got it.
CLAIM = """
import os, sys
from pathlib import Path
from sightline.errors import SightlineError
from sightline.runs import new_folder
for out in sys.argv[1:]:
    wait, go = os.pipe()
    for _ in range(8):
        if os.fork() == 0:
            os.close(go)
            os.read(wait, 1)
            try:
                with new_folder("a", Path(out)) as folder:
                    (folder / "recipe.toml").write_text("name = 'a'")
                    line = f"mine {out}"
            except SightlineError as error:
                line = str(error)
            os.write(1, (line + "\\n").encode())
            os._exit(0)
    os.close(go)
    for _ in range(8):
        os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_many_starts_with_one_folder_one_is_let_in(tmp_path):
    outs = [tmp_path / str(number) / "run" for number in range(10)]
    for out in outs[::2]:
        out.mkdir(parents=True)
    command = [sys.executable, "-W", "ignore", "-c", CLAIM, *map(str, outs)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for out in outs:
        lines = [line for line in said if line.startswith((f"{out} ", f"mine {out}"))]
        assert len(lines) == 8
        assert lines.count(f"mine {out}") == 1, lines
        assert all(
            "is in use by" in line or "already holds a run" in line or line[:4] == "mine" for line in lines
        )
        assert names(out) == ["recipe.toml"]


def test_a_folder_whose_start_fails_is_as_it_was(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()

    def half(folder: Path) -> None:
        (folder / "environment.json").write_text("{}")
        (folder / "figures").mkdir()
        raise KeyboardInterrupt

    for out in (tmp_path / "deep" / "run", empty):
        with pytest.raises(KeyboardInterrupt), new_folder("a", out) as folder:
            half(folder)
    assert names(tmp_path) == ["empty"]
    assert names(empty) == []
    with pytest.raises(KeyboardInterrupt), new_folder("a", runs=tmp_path / "runs"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["empty"]


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
    (tmp_path / ".checkpoint.pt.ab1_efgh.partial").write_text("half")
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


@pytest.fixture
def read_only(tmp_path):
    """A finished run in a folder that nobody may write to, not even root."""
    changes = [*CHANGES, "training.epochs=1", "data.limit=100", "analysis.audit=false"]
    made = sl.run("shapes-quick", changes=changes, out=tmp_path / "run", device="cpu", verbose=False)
    folder = made.folder
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    bind = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("root may write everywhere, and may not mount a folder read-only")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="needs the permissions of POSIX")
def test_a_read_only_folder_is_noticed_before_the_work(read_only, capsys, monkeypatch):
    def work(*arguments, **options):
        raise AssertionError("the work began")

    for place in ("sightline.runs.audit_stage.gather", "sightline.runs.pipeline.predict_tta_shared",
                  "sightline.runs.pipeline.recipe_data", "sightline.runs.find_lr.range_test"):  # fmt: skip
        monkeypatch.setattr(place, work)
    run = str(read_only)
    for command in (["audit", run], ["analyze", run], ["run", "--resume", run], ["report", run],
                    ["find-lr", "shapes-quick", "--out", f"{run}/lr"]):  # fmt: skip
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.startswith("sightline: "), error
        assert error.count("\n") == 1
        assert run in error
        assert "cannot" in error


def resumed(folder: Path, change) -> str:
    """What the checkpoint says that `change` has spoilt."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "checkpoint.pt")
    with pytest.raises(SightlineError) as error:
        finish_run(load_run(folder), device="cpu")
    return str(error.value)


def test_a_checkpoint_that_does_not_fit_says_which_part_and_which_version(tmp_path):
    changes = [*CHANGES, "training.epochs=1", "data.limit=100", "analysis.audit=false"]
    made = sl.run("shapes-quick", changes=changes, out=tmp_path / "a", device="cpu", verbose=False)
    line = resumed(made.folder, lambda state: state["model"].update({"fc.weight": torch.zeros(3, 3)}))
    assert (
        "checkpoint.pt belongs to another recipe (its tensor 'fc.weight' is (3, 3) and not (10, 16); " in line
    )
    assert f"sightline {sl.__version__} wrote it and this is {sl.__version__}" in line
    line = resumed(made.folder, lambda state: state["model"].pop("fc.weight"))
    assert "it lacks the tensor 'fc.weight'" in line
    line = resumed(made.folder, lambda state: state.pop("optimizer"))
    assert "it lacks the tensor 'fc.weight'" in line
    line = resumed(made.folder, lambda state: (state.pop("schema"), state.pop("version")))
    assert "checkpoint.pt was written by sightline 0.1" in line


def test_another_number_of_threads_is_said_on_resume(tmp_path, caplog):
    changes = [*CHANGES, "training.epochs=1", "data.limit=100", "analysis.audit=false"]
    made = sl.run("shapes-quick", changes=changes, out=tmp_path / "a", device="cpu", verbose=False)
    finish_run(load_run(made.folder), device="cpu")
    assert "threads" not in caplog.text
    path = made.folder / "environment.json"
    environment = json.loads(path.read_text())
    assert environment["hardware"]["threads"] == torch.get_num_threads()
    environment["hardware"]["threads"] = 97
    path.write_text(json.dumps(environment))
    finish_run(load_run(made.folder), device="cpu")
    told = [record.getMessage() for record in caplog.records if "threads" in record.getMessage()]
    assert len(told) == 1
    assert "began with 97 CPU threads" in told[0]
    assert "OMP_NUM_THREADS=97" in told[0]
