"""Runs of what was trained elsewhere: a model, its predictions, features; they are runs like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import sightline as sl
from sightline.cli import main
from sightline.data import Dataset, Split
from sightline.errors import InputError
from sightline.runs import summarize_run

NAMES = ("cat", "dog", "owl")


def planted(seed: int = 0, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are right in about four of five."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    logits = rng.normal(size=(count, 3)) + 2 * np.eye(3)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def foreign(classes: int = 3) -> nn.Module:
    """A network as others write one: no normalisation inside."""
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


@pytest.fixture
def labels_file(tmp_path) -> Path:
    """A table of labels whose pictures are elsewhere, with predictions and features beside it."""
    labels, probabilities = planted()
    paths = [f"x/{number}.jpg" for number in range(120)]
    split = np.where(np.arange(120) % 3, "test", "train")
    frame = pd.DataFrame({"path": paths, "label": np.array(NAMES)[labels], "split": split})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    scores = pd.DataFrame(probabilities[:, ::-1], columns=list(NAMES[::-1])).assign(path=paths)
    scores.sample(frac=1, random_state=0).to_parquet(tmp_path / "p.parquet")
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(120, 5)) + 3 * np.eye(3, 5)[labels])
    return tmp_path / "labels.csv"


def test_predictions_and_features_make_a_run_that_is_like_any_other(
    labels_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    labels, probabilities = planted()
    tested = np.arange(120) % 3 > 0
    given = ["--predictions", "p.parquet", "--features", "f.npy", "--quiet"]
    assert main(["inspect", "labels.csv", *given, "--out", "run"]) == 0, capsys.readouterr().err
    run = sl.load_run("run")
    np.testing.assert_allclose(run.predictions.probabilities, probabilities[tested], atol=1e-6)
    np.testing.assert_array_equal(run.predictions.labels, labels[tested])
    assert run.audit.neighbors is not None
    assert run.audit.label_issues.train is not None  # by a probe on the features
    assert run.audit.label_issues.train.method.value == "cross-validation"
    page = run.report.read_text(encoding="utf-8")
    assert "without pictures, no near-duplicates" in page
    assert "without heat maps" in page
    assert "without features" not in page
    assert set(run.metrics["seconds"]) == {"train", "audit", "page"}
    assert summarize_run(run.folder)["damaged"] is None
    # every command that judges a run works on it
    for command in (
        ["audit", "run"],
        ["analyze", "run"],
        ["report", "run"],
        ["audit", "run", "--folds", "3"],
    ):
        more = ["--quiet"] if command[0] != "report" else []
        assert main([*command, *more]) == 0, (command, capsys.readouterr().err)
    # decisions are of the images, whatever rows they have in the table
    wrong = int(np.flatnonzero(~run.predictions.correct)[0])
    fingerprint = json.loads(Path("run/data.json").read_text())["fingerprint"]
    decisions = [
        {"split": "test", "index": wrong, "action": "drop"},
        {"split": "train", "index": 0, "action": "drop"},
    ]
    fixes = {"format": "sightline-fixes", "version": 1, "data": fingerprint, "decisions": decisions}
    Path("fixes.json").write_text(json.dumps(fixes))
    assert main(["inspect", "labels.csv", *given, "--fixes", "fixes.json", "--out", "again"]) == 0, (
        capsys.readouterr().err
    )
    again = sl.load_run("again")
    np.testing.assert_allclose(
        again.predictions.probabilities, np.delete(probabilities[tested], wrong, axis=0), atol=1e-6
    )
    assert main(["compare", "run", "again"]) == 0, capsys.readouterr().err


def test_what_does_not_fit_leaves_nothing(labels_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    np.save("short.npy", np.zeros((7, 5)))
    before.append("short.npy")
    for given, words in (
        (["--predictions", "p.parquet", "--features", "short.npy"], "has 7 rows"),
        (["--predictions", "p.parquet", "--classes", "cat,dog"], "has the classes owl"),
        (["--model", "efficientnet_lite0"], "give it (--weights FILE)"),
        ([], "a model or predictions"),
        (["--predictions", "p.parquet", "--mean", "0.5"], "three channels"),
    ):
        assert main(["inspect", "labels.csv", *given, "--quiet", "--out", "run"]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(before)


def test_labels_alone_and_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels, probabilities = planted()
    run = sl.inspect(labels, probabilities=np.log(probabilities), class_names=NAMES, out="run", verbose=False)
    assert run.recipe.inspect.predictions == "logits"
    np.testing.assert_allclose(run.predictions.probabilities, probabilities, atol=1e-6)
    assert run.data().class_names == NAMES
    assert sl.audit_run("run", verbose=False).accuracy.n == 120
    with pytest.raises(InputError, match="folds are of training images, and 'labels' has none"):
        sl.audit_run("run", folds=3, verbose=False)


def pictures(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 80, (count, 16, 16, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 60
    frame = pd.DataFrame({"path": [f"{seed}/{n}" for n in range(count)], "camera": rng.integers(0, 2, count)})
    return Split(images, labels, frame)


def test_a_module_on_arrays_keeps_all_that_a_later_audit_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Dataset("mine", NAMES, pictures(36, 0), pictures(24, 1))
    net, mean, std = foreign(), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)
    changes = ["analysis.compare_images=2", "analysis.mistakes=2", "analysis.correct=1"]
    options = {
        "mean": mean,
        "std": std,
        "backbone": "",
        "changes": changes,
        "verbose": False,
        "device": "cpu",
    }
    run = sl.inspect(data, net, out="run", **options)
    images = (sl.to_float(data.test.images) - 0.4) / 0.2
    with torch.no_grad():
        np.testing.assert_allclose(run.predictions.logits, net(images).numpy(), atol=1e-4)
    assert "heat maps" not in str(run.audit.warnings)
    assert (run.folder / "explanations.npz").exists()
    again = sl.load_run("run")
    assert again.data().name == "mine"
    assert again.data().test.metadata["camera"].tolist() == data.test.metadata["camera"].tolist()
    later = sl.audit_run(again, verbose=False)
    assert (later.accuracy.value, later.accuracy.n) == (run.audit.accuracy.value, 24)
    assert later.neighbors is not None


def test_a_named_network_with_its_weights_is_explained_and_opened_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 30), ("test", 18)):
        made = pictures(count, len(split))
        for number, (image, label) in enumerate(zip(made.images, made.labels, strict=True)):
            path = Path(f"photos/{split}/{NAMES[label]}/{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    torch.save({"state_dict": {f"module.{k}": v for k, v in foreign().state_dict().items()}}, "best.pt")
    model = [f"{__name__}:foreign", "--weights", "best.pt", "--mean", "0.4,0.4,0.4", "--std", "0.2,0.2,0.2"]
    small = [f"--set=analysis.{key}" for key in ("compare_images=2", "mistakes=2", "correct=1")]
    given = ["--model", *model, "--backbone", "", *small, "--quiet", "--device", "cpu"]
    assert main(["inspect", "photos", *given, "--out", "run"]) == 0, capsys.readouterr().err
    run = sl.load_run("run", trust=[__name__])
    data = run.data()
    assert (len(data.train), len(data.test)) == (30, 18)
    with torch.no_grad():
        expected = foreign()((sl.to_float(data.test.images) - 0.4) / 0.2).numpy()
    np.testing.assert_allclose(run.predictions.logits, expected, atol=1e-4)
    assert main(["explain", "run", "photos/test/cat/0.png", "--trust", __name__]) == 0, (
        capsys.readouterr().err
    )
    assert main(["inspect", "photos/test", *given, "--out", "alone"]) == 0, capsys.readouterr().err
    alone = sl.load_run("alone")
    np.testing.assert_allclose(alone.predictions.logits, expected, atol=1e-4)
    assert "without a training split" in alone.report.read_text(encoding="utf-8")
    assert main(["run", "alone/recipe.toml", "--trust", __name__, "--quiet", "--out", "repeat"]) == 0, (
        capsys.readouterr().err
    )
