"""Data sets at the edge of what is one: a run ends with a page, or is refused before it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sightline.cli import main

SMALL = [
    "--epochs", "1", "--device", "cpu", "--quiet", "--set", "model.name=speednet",
    "--set", "model.options={widths=[4, 4, 4]}", "--set", "training.precision=float32",
    "--set", "analysis.range_test=false", "--set", "analysis.compare_images=2",
    "--set", "analysis.mistakes=2", "--set", "analysis.correct=1", "--set", "analysis.samples=2",
    "--set", "analysis.layers=[]",
]  # fmt: skip


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8)


X, Y = images(24), np.arange(24) % 3
NAMES = np.array(["red", "green", "blue"])
PAGES = {
    "every test image copies a training image": {"x": X, "y": Y, "x_test": X[:9], "y_test": Y[:9]},
    "every test image is one and the same": {
        "x": X, "y": Y, "x_test": np.repeat(X[:1], 6, axis=0), "y_test": np.arange(6) % 3,
    },
    "every image is black": {"x": 0 * X, "y": Y, "x_test": 0 * X[:9], "y_test": Y[:9]},
    "two test images": {"x": X, "y": Y, "x_test": images(2, 1), "y_test": np.array([0, 2])},
    "three test images of one class": {"x": X, "y": Y, "x_test": images(3, 1), "y_test": np.zeros(3, int)},
    "one class of three is trained": {
        "x": X, "y": np.zeros(24, int), "x_test": images(6, 1), "y_test": np.arange(6) % 3,
        "class_names": NAMES,
    },
    "a class without an image": {"x": X, "y": 2 * (Y > 0), "class_names": NAMES},
    "two training images": {
        "x": X[:2], "y": np.arange(2), "x_test": images(6, 1), "y_test": np.arange(6) % 2,
    },
    "grey": {"x": X[..., 0], "y": Y},
}  # fmt: skip


@pytest.mark.parametrize("what", PAGES)
def test_a_run_ends_with_a_page(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("odd.npz", **PAGES[what])
    code = main(["run", "--data", "odd.npz", *SMALL, "--out", "out"])
    assert code == 0, capsys.readouterr().err
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "odd" in page


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X, "y": Y, "x_test": X[:1], "y_test": Y[:1]}, ("1 test image", "analysis.audit=false")),
        ({"x": X, "y": 0 * Y}, ("1 class", "two or more")),
        ({"x": X, "y": 0 * Y, "class_names": NAMES[:1]}, ("1 class", "two or more")),
    ],
)
def test_a_run_is_refused_before_it_trains(arrays, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("odd.npz", **arrays)
    assert main(["run", "--data", "odd.npz", *SMALL, "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sightline: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert [path.name for path in tmp_path.iterdir()] == ["odd.npz"]


def test_one_test_image_has_a_page_without_audit_and_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("odd.npz", x=X, y=Y, x_test=X[:1], y_test=Y[:1])
    more = ["--set", "analysis.audit=false", "--set", "analysis.compare_images=0"]
    assert main(["run", "--data", "odd.npz", *SMALL, *more, "--out", "out"]) == 0
    assert Path("out/report.html").exists()
