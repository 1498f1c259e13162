"""A run's folder read once: what is missing, torn, or of another run."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from report_audit_fixture import add_audit
from report_fixture import predictions_of, write_run

from sightline.errors import DamagedFileError, NotFoundError
from sightline.report import read_run

OPTIONAL = (
    *("recipe.toml", "environment.json", "model.json", "data.json", "metrics.json"),
    *("history.csv", "steps.csv", "range_test.csv", "range_test.json"),
    *("samples.npz", "explanations.npz", "explanations.json"),
)


def test_only_the_predictions_have_to_be_there(tmp_path):
    folder = write_run(tmp_path / "run")
    for name in OPTIONAL:
        (folder / name).unlink()
    run = read_run(folder)
    assert [run.model, run.data, run.history, run.steps, run.range_test, run.samples, run.pictures] == [
        None
    ] * 7
    assert (run.recipe, run.explained, run.range_card) == ("", {}, {})
    (folder / "predictions.parquet").unlink()
    with pytest.raises(
        NotFoundError, match=r"predictions\.parquet is missing; name the folder of a finished run"
    ):
        read_run(folder)


def test_a_run_without_an_audit_gets_one_of_its_predictions(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    p = run.predictions
    assert run.audit.accuracy.value == p.correct.mean()
    assert run.audit.error_budget.mistakes == (~p.correct).sum()
    assert run.audit.duplicates is None
    assert len(run.audit.train) == 0
    assert sum(pair.count for pair in run.audit.confused_pairs) == (~p.correct).sum()


@pytest.mark.parametrize(
    "name", ["model.json", "history.csv", "samples.npz", "explanations.npz", "recipe.toml", "metrics.json"]
)
def test_a_torn_file_is_named_in_one_line(name, tmp_path):
    folder = write_run(tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:15])
    with pytest.raises(DamagedFileError, match=rf"{name} cannot be read \(.+\); delete it") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "model.json",
            '{"name": "a", "parameters": "many", "summary": ""}',
            "parameters: Input should be a valid int",
        ),
        ("model.json", '{"name": "a", "summary": ""}', "parameters: Field required"),
        ("faithfulness.json", "[]", "Input should be an object"),
        ("faithfulness.json", '{"methods": []}', "layer: Field required"),
        ("steps.csv", "step,rate\n1,2\n", "it has no column lr"),
    ],
)
def test_what_does_not_fit_is_named(name, content, reason, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(DamagedFileError, match=reason):
        read_run(folder)


def test_files_of_different_runs_are_refused(tmp_path):
    folder = write_run(tmp_path / "run")
    write_run(tmp_path / "other", predictions=predictions_of(n=40))
    shutil.copy(tmp_path / "other" / "predictions.parquet", folder)
    with pytest.raises(DamagedFileError, match="the files are of different runs: analyze the run again"):
        read_run(folder)
    other = write_run(tmp_path / "classes", predictions=predictions_of(("a", "b")))
    shutil.copy(folder / "data.json", other)
    with pytest.raises(
        DamagedFileError, match=r"data\.json has 4 class_names and predictions\.parquet 2 classes"
    ):
        read_run(other)


def test_an_audit_of_another_run_is_refused(tmp_path):
    folder = add_audit(write_run(tmp_path / "run"))
    with np.load(folder / "gallery.npz") as file:
        arrays = dict(file)
    np.savez(folder / "gallery.npz", **arrays | {"thumbnails": arrays["thumbnails"][:50]})
    with pytest.raises(
        DamagedFileError, match=r"gallery\.npz has 50 thumbnails and predictions\.parquet 200 rows"
    ):
        read_run(folder)
    np.savez(folder / "gallery.npz", **arrays | {"train_rows": arrays["train_rows"] + 1000})
    with pytest.raises(
        DamagedFileError, match=r"gallery\.npz names image \d+ of 400; .*: audit the run again"
    ):
        read_run(folder)
    np.savez(folder / "gallery.npz", **arrays)
    train = pd.read_parquet(folder / "audit_train.parquet")
    other = add_audit(write_run(tmp_path / "other", predictions=predictions_of(n=40)))
    shutil.copy(other / "dynamics.npz", folder)
    with pytest.raises(
        DamagedFileError, match=rf"dynamics\.npz is about 80 training images .* has {len(train)}"
    ):
        read_run(folder)
    for name in ("audit.json", "audit_test.parquet", "audit_train.parquet", "audit_neighbors.npz"):
        shutil.copy(other / name, folder)
    with pytest.raises(
        DamagedFileError, match=r"audit\.json has 40 test images and predictions\.parquet 200 rows"
    ):
        read_run(folder)


def test_mistakes_are_in_descending_loss(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    shown = run.explained["mistakes"]
    assert (np.diff(run.predictions.loss[shown.index]) <= 0).all()
    two = shown.first(2)
    np.testing.assert_array_equal(two.images, shown.images[:2])
    assert {layer: maps["label"].shape[0] for layer, maps in two.maps.items()} == {"layer2": 2, "layer3": 2}
