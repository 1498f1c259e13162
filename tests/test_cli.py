"""The command line as a person meets it: what it prints, how it ends, what it leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.cli import main
from sightline.training import LR_RULES, RECIPES

SMALL = [
    "--epochs", "1", "--device", "cpu", "--set", "data.limit=200",
    "--set", "model.options={widths=[8, 8, 8]}", "--set", "training.precision=float32",
    "--set", "analysis.range_test=false", "--set", "analysis.compare_images=0",
]  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder to stand in, with one finished run."""
    place = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(place)
    try:
        assert main(["run", *SMALL, "--quiet"]) == 0
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_every_command_has_a_help_of_its_own(capsys):
    commands = ["run", "train", "analyze", "explain", "report", "find-lr", "recipes", "runs", "data"]
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for command in commands:
        assert f"\n  {command} " in listed
        assert main([command, "--help"]) == 0
        assert f"Usage: sightline {command}" in capsys.readouterr().out


def test_a_run_writes_only_into_its_folder(here):
    assert names(here) == ["runs"]
    assert names(here / "runs") == ["latest", "shapes-quick-1"]
    assert (here / "runs/latest/report.html").exists()


def test_json_is_the_only_thing_on_stdout_and_the_log_is_on_stderr(here, capsys, tmp_path):
    assert main(["run", *SMALL, "--json", "--out", str(tmp_path / "r")]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["report"] == str(tmp_path / "r" / "report.html")
    assert result["images"] == 200
    assert result["mistakes"] == round((1 - result["accuracy"]) * 200)
    assert "epoch 1/1" in captured.err
    assert "\x1b" not in captured.err  # plain lines, no bars, where there is no terminal


def test_quiet_prints_the_report_alone(here, capsys, tmp_path):
    assert main(["run", *SMALL, "--quiet", "--out", str(tmp_path / "q")]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'q' / 'report.html'}\n"
    assert captured.err == ""


def test_train_then_analyze_then_audit_then_report_is_a_run(here, capsys, tmp_path):
    out = tmp_path / "parts"
    assert main(["train", *SMALL, "--out", str(out), "--quiet"]) == 0
    assert not (out / "predictions.parquet").exists()
    assert main(["report", str(out)]) == 1
    assert "is missing; name the folder of a finished run" in capsys.readouterr().err
    assert main(["analyze", str(out), "--json"]) == 0
    assert main(["audit", str(out), "--quiet", "--json"]) == 0
    assert main(["report", str(out)]) == 0
    whole = (here / "runs/latest/report.html").read_text()
    assert len((out / "report.html").read_text()) == pytest.approx(len(whole), rel=0.5)


def test_a_finished_run_can_be_resumed_and_stays_the_same(here, capsys):
    weights = (here / "runs/latest/model.safetensors").read_bytes()
    assert main(["run", "--resume", "runs/latest", "--device", "cpu"]) == 0
    assert (here / "runs/latest/model.safetensors").read_bytes() == weights


def test_resume_stands_alone(here, capsys):
    assert main(["run", "shapes-quick", "--resume", "runs/latest"]) == 2
    assert "give it alone" in capsys.readouterr().err


def test_runs_are_listed_with_their_accuracy(here, capsys):
    assert main(["runs"]) == 0
    table = capsys.readouterr().out
    assert "runs/shapes-quick-1" in table
    assert " %" in table
    assert main(["runs", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["recipe"] == "shapes-quick"
    assert row["accuracy"] == json.loads((here / "runs/latest/metrics.json").read_text())["accuracy"]


def test_no_runs_is_no_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert "no runs in runs; 'sightline run' makes one" in capsys.readouterr().out
    assert names(tmp_path) == []


def test_a_printed_recipe_is_ready_to_edit_and_to_run(tmp_path, capsys):
    assert main(["recipes", "resnet18-cutout16"]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)["schedule"]["max_lr"] == 0.385
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    assert main(["recipes", str(mine)]) == 0
    assert tomllib.loads(capsys.readouterr().out)["training"]["epochs"] == 20
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in RECIPES)


def test_a_recipe_is_listed_with_the_figure_of_its_source_and_the_one_measured_here(capsys):
    assert main(["recipes"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.split()}
    assert lines["cifar10-94"][-4:] == ["-", "93.44", "%", "(3)"]
    assert lines["resnet18-step"][-3:] == ["76.00", "%", "-"]
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["resnet18-step"]["source"] == {"train": 70.5, "test": 76.0}
    assert listed["resnet18-step"]["here"] is None
    assert listed["cifar10-94"]["here"]["test"] == [93.37, 93.43, 93.52]


def test_pictures_are_explained_in_a_table(here, capsys, tmp_path):
    picture = tmp_path / "[red]cat.png"
    Image.fromarray(np.full((40, 30, 3), 128, np.uint8)).save(picture)
    command = ["explain", "runs/latest", str(picture), "--out", str(tmp_path / "maps")]
    assert main([*command, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert len(row["top"]) == 5
    assert Path(row["heatmap"]).exists()
    assert main([*command, "--target", "star", "--layer", "block1"]) == 0
    assert "[red]cat" in capsys.readouterr().out.replace("\n", "")  # a name is text, not markup


def test_find_lr_writes_its_table_and_plot(here, capsys, tmp_path):
    command = ["find-lr", "shapes-quick", *SMALL, "--steps", "50", "--out", str(tmp_path / "lr")]
    assert main([*command, "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["suggestion", "range", "recommended", "reason", "rules", "folder"]
    assert set(found["rules"]) == set(LR_RULES)
    assert found["range"][0] <= found["suggestion"] <= found["range"][1]
    assert names(tmp_path / "lr") == ["range_test.csv", "range_test.json", "range_test.png"]


def test_find_lr_says_that_a_training_is_too_short_for_a_search(here, capsys, tmp_path):
    assert main(["find-lr", "shapes-quick", *SMALL, "--all", "--out", str(tmp_path / "lr")]) == 0
    assert "are too few for a sweep" in capsys.readouterr().out
    assert names(tmp_path / "lr") == ["range_test.json"]


def test_data_shows_statistics_and_writes_a_sheet(capsys, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert main(["data", "shapes", "--out", str(sheet)]) == 0
    text = capsys.readouterr().out
    assert "4000" in text
    assert "mean per channel of the training split" in text
    with Image.open(sheet) as image:
        assert image.width > 200


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "resnet18"], 1, "recipe 'resnet18' is not known; did you mean 'resnet18"),
        (["run", "--data", "nowhere"], 1, "no data set 'nowhere'"),
        (["run", "--device", "tpu"], 1, "device 'tpu' is not known; use auto, cpu, cuda or mps"),
        (["run", "--set", "training.epoch=1"], 1, "training.epoch is not known; did you mean 'epochs'"),
        (["run", "--resume", "nowhere"], 1, "nowhere is not the folder of a run"),
        (["run", "--epochs", "0"], 2, "Invalid value for '--epochs'"),
        (["run", "--colour"], 2, "--colour"),
        (["runn"], 2, "No such command 'runn'"),
        (["analyze", "nowhere"], 1, "nowhere is not the folder of a run"),
        (["explain", "nowhere"], 2, "Missing argument 'IMAGES...'"),
        (["report", "nowhere"], 1, "nowhere is not the folder of a run"),
        (["data", "cifar11"], 1, "no data set 'cifar11'"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    arguments, code, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    if code == 1:
        assert error.startswith("sightline: ")
        assert error.count("\n") == 1
    assert names(tmp_path) == []


def test_debug_shows_the_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sightline", "run", "--data", "nowhere", "--debug"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_closed_pipe_ends_quietly(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m sightline recipes resnet18-colour | true",
        shell=True, capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_with_rate_and_time_left(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", "run", *SMALL, "--out", str(tmp_path / "r")],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    text = shown.decode()
    assert "images/s" in text
    assert "epoch 1/1" in text
    assert re.search(r"\d:\d\d:\d\d|-:--:--", text)  # the time left, dashes until there is an estimate
