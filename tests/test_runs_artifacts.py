"""The files of a run: each is known, carries its schema number, and is read whatever version wrote it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import sightline as sl
from sightline.cli import main
from sightline.errors import DamagedFileError
from sightline.runs import summarize_run
from sightline.runs.artifacts import ARTIFACTS
from sightline.runs.run_folder import read_environment

OLD = Path(__file__).parent / "data" / "run-0.1"  # what version 0.1 left, but for checkpoint and pictures
CHANGES = [
    "model.options={widths=[4, 4, 4]}", "training.epochs=1", "training.precision=float32", "data.limit=60",
    "analysis.range_test=true", "analysis.compare_images=2", "analysis.mistakes=1", "analysis.correct=1",
    "analysis.samples=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run with everything that a run can have, but for decisions."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:  # as of a training that is long enough for a search
        patch.setattr("sightline.runs.find_lr.allowed_steps", lambda whole: 50)
        return sl.run("shapes-quick", changes=CHANGES, out=out, device="cpu", verbose=False).folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_every_file_of_a_run_is_known(made):
    found = {path.name for path in made.iterdir()}
    given = {"train_predictions.parquet", "features.npz", "data.npz", "labels.csv"}  # of 'sightline inspect'
    assert found == set(ARTIFACTS) - given - {"fixes.json", "explained", "out_of_fold.parquet", ".lock"}


def test_every_file_carries_the_schema_that_is_said(made):
    for name, artifact in ARTIFACTS.items():
        path = made / name
        if name.endswith(".json") and path.exists():
            assert json.loads(path.read_text())["schema"] == artifact.schema, name
        elif name.endswith(".json"):
            assert name == "fixes.json"  # the reader's own file, which has a version
    table = pq.read_schema(made / "predictions.parquet")
    assert int(table.metadata[b"schema"]) == ARTIFACTS["predictions.parquet"].schema


NEWER = [name for name, artifact in ARTIFACTS.items() if artifact.schema and name.endswith(".json")]


@pytest.mark.parametrize("name", NEWER)
def test_a_file_of_a_newer_version_is_refused_in_one_sentence(name, run, capsys):
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(content | {"schema": 9}))
    assert main(["report", str(run)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error
    assert "newer Sightline" in error
    assert "schema 9" in error


def test_predictions_of_a_newer_version_are_refused(run):
    path = run / "predictions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"schema": b"9"}), path)
    with pytest.raises(DamagedFileError, match=r"written by a newer Sightline \(schema 9"):
        sl.load_run(run).predictions  # noqa: B018 (read when it is asked for)


@pytest.fixture
def old(tmp_path) -> Path:
    return shutil.copytree(OLD, tmp_path / "old")


def test_a_run_of_version_0_1_opens(old):
    run = sl.load_run(old)
    assert run.recipe.data.limit == 20
    assert run.metrics["accuracy"] == pytest.approx(0.1) == run.predictions.correct.mean()
    assert run.metrics["mistakes"] == 18
    assert len(run.history) == 1
    assert run.dynamics.margin.shape == (1, 20)
    assert read_environment(old)["versions"]["sightline"] == "0.1.0"
    again = sl.predict(run.model(), run.data().test, class_names=run.data().class_names)
    assert abs(again.logits - run.predictions.logits).max() < 1e-5


def test_a_run_of_version_0_1_is_listed(old, capsys):
    row = summarize_run(old)
    assert (row["recipe"], row["data"], row["damaged"]) == ("shapes-quick", "shapes", None)
    assert row["accuracy"] == pytest.approx(0.1)
    assert main(["runs", "--runs", str(old.parent)]) == 0
    assert "10.00 %" in capsys.readouterr().out


def test_the_audit_of_version_0_1_is_refused_until_it_is_made_again(old, capsys):
    assert main(["report", str(old)]) == 1
    migrated, error = " ".join(capsys.readouterr().err.split()).split("sightline: ")
    assert "recipe.toml has keys of version 0.1: " in migrated  # which were read all the same
    assert "audit.json was written by version 0.1 of Sightline; 'sightline audit " in error
    assert main(["audit", str(old), "--quiet", "--device", "cpu"]) == 0
    assert main(["report", str(old)]) == 0
    assert (old / "report.html").exists()


def test_a_run_of_version_0_1_without_an_audit_is_reported(old):
    (old / "audit.json").unlink()
    assert main(["report", str(old)]) == 0
    assert (old / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("recipe.toml", "[", "is not TOML"),
        ("recipe.toml", "name = 'a'", "schedule is missing"),
        ("recipe.toml", "\ud800".encode(errors="surrogatepass"), "not UTF-8 text"),
        ("metrics.json", "", "cannot be read"),
        ("metrics.json", "[]", "it holds no object but a list"),
        ("metrics.json", "{}", "has no accuracy"),
        ("metrics.json", '{"accuracy": "high", "seconds": {"train": 1}}', "has no accuracy"),
        ("metrics.json", '{"accuracy": 1, "seconds": []}', "no seconds of training"),
    ],
)
def test_a_damaged_run_is_listed_with_the_reason_and_the_others_too(
    name, content, reason, old, tmp_path, capsys
):
    good = shutil.copytree(old, tmp_path / "good")
    (old / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "10.00 %" in captured.out
    assert "damaged" in captured.out
    assert f"{old} is damaged: " in captured.err
    assert reason in captured.err
    assert main(["runs", "--runs", str(tmp_path), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert reason in rows[str(old)]["damaged"]
    assert rows[str(good)]["damaged"] is None
