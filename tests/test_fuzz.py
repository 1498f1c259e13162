"""Files spoilt at random, by a seed: each is read or refused in one line, and nothing in it runs.

A case that fails names its seed; `pytest tests/test_fuzz.py -k "recipe and 17"` repeats it.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_hostile_inputs import SMALL, arrays

from sightline.audit.curation import Decision, Decisions, read_decisions, write_decisions
from sightline.cli import main
from sightline.data import load_data
from sightline.errors import SightlineError
from sightline.models import load_model
from sightline.training import RECIPES, load_recipe

pytestmark = pytest.mark.slow

WEIRD = (
    *(
        None,
        True,
        "",
        [],
        {},
        -1,
        0,
        2**64,
        1e308,
        math.nan,
        math.inf,
        "nan",
        "1e999",
        "9" * 400,
        "a" * 5_000,
    ),
    *("\u202e\u2066gpj.exe", "\ud7ff\uffff", "\x7f\x1b[2J", "=1+1", "../../etc/passwd", "os:system"),
    *("<script>alert(1)</script>", [[[[[[]]]]]], {"__class__": "x"}, ["", None]),
)
CANARY = "ran"
FINGERPRINT = {
    "name": "x", "train": 5, "test": 5, "class_names": ["a", "b"],
    "labels_sha256": {"train": "0", "test": "0"},
}  # fmt: skip


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def spoil_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Flip, cut out, double, insert or cut off."""
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(len(content) + 1))
        span = int(random.integers(1, 1 + max(1, len(content) // 8)))
        junk = [
            bytes(random.integers(0, 256, 8, np.uint8)),
            b"\0",
            "\u202e".encode(),
            b"\xff\xfe",
            b"\n\n",
            b"'\"",
            b"=",
        ]
        content = [
            content[:at] + bytes([int(random.integers(256))]) + content[at + 1 :],
            content[:at] + content[at + span :],
            content[:at] + content[at : at + span] + content[at:],
            content[:at] + junk[int(random.integers(len(junk)))] + content[at:],
            content[:at],
        ][int(random.integers(5))]
    return content


def spoil_json(value: Any, random: np.random.Generator) -> Any:
    """Replace, drop or double one part at a random depth."""
    if isinstance(value, dict | list) and value and random.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[int(random.integers(len(keys)))]
        copied = value.copy()
        what = random.random()
        if what < 0.15:
            del copied[key]
        elif what < 0.25 and isinstance(copied, list):
            copied.append(copied[key])
        elif what < 0.25:
            copied[f"{key} "] = copied.pop(key)
        else:
            copied[key] = spoil_json(value[key], random)
        return copied
    return WEIRD[int(random.integers(len(WEIRD)))]


def spoil_array(array: np.ndarray, random: np.random.Generator, place: Path) -> Any:
    """Another type, shape, length or content."""
    ways: list[Callable[[], Any]] = [
        lambda: array[: len(array) // 2] if array.ndim else array,
        lambda: array.astype(np.float64) * np.nan if array.dtype.kind in "iuf" else array[:0],
        lambda: array.astype(np.int64) - 7 if array.dtype.kind in "iuf" else array[..., None],
        lambda: array[..., None],
        lambda: array[:0] if array.ndim else array[None],
        lambda: array.astype("S3") if array.dtype.kind in "iu" else array.astype(object),
        lambda: np.array([Payload(place)] * max(1, len(array) if array.ndim else 1), dtype=object),
        lambda: array.astype(np.complex64) if array.dtype.kind in "iuf" else array,
        lambda: np.asarray(7),
        lambda: array.T,
        lambda: array.astype("datetime64[s]") if array.dtype.kind in "iu" else array,
    ]
    return ways[int(random.integers(len(ways)))]()


def spoil_npz(content: bytes, random: np.random.Generator, place: Path) -> bytes:
    with np.load(BytesIO(content)) as file:
        held = dict(file)
    name = list(held)[int(random.integers(len(held)))]
    if random.random() < 0.2:
        del held[name]
    else:
        held[name] = spoil_array(held[name], random, place)
    spoilt = BytesIO()
    np.savez(spoilt, **held)
    return spoilt.getvalue()


def spoil_table(table: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    name = table.columns[int(random.integers(len(table.columns)))]
    ways: list[Callable[[], pd.DataFrame]] = [
        lambda: table.drop(columns=name),
        lambda: table.rename(columns={name: f"{name} "}),
        lambda: table.assign(**{name: None}),
        lambda: table.assign(**{name: "text"}),
        lambda: table.assign(**{name: -1}),
        lambda: table.assign(**{name: np.nan}),
        lambda: table.assign(**{name: 2**53}),
        lambda: table.assign(**{name: "\u202e=cmd|' /C calc'!A0"}),
        lambda: table.iloc[:0],
        lambda: pd.concat([table, table]),
        lambda: table.sample(frac=1.0, random_state=1),
    ]
    return ways[int(random.integers(len(ways)))]()


def assert_read_or_refused(read: Callable[[], Any], place: Path) -> None:
    said = "fine"
    try:
        read()
    except SightlineError as error:
        said = str(error)
    assert said.strip()
    assert len(said) < 3_000
    assert not (place / CANARY).exists()


@pytest.mark.parametrize("seed", range(100))
def test_a_recipe_file(seed, tmp_path):
    random = np.random.default_rng([1, seed])
    recipe = RECIPES[sorted(RECIPES)[seed % len(RECIPES)]]
    path = tmp_path / "recipe.toml"
    path.write_bytes(spoil_bytes(recipe.encode(), random))
    assert_read_or_refused(lambda: load_recipe(path), tmp_path)


@pytest.mark.parametrize("seed", range(60))
def test_an_archive(seed, tmp_path):
    random = np.random.default_rng([2, seed])
    content = BytesIO()
    np.savez(content, **arrays())
    path = tmp_path / "data.npz"
    spoilt = content.getvalue()
    path.write_bytes(
        spoil_npz(spoilt, random, tmp_path / CANARY) if seed % 2 else spoil_bytes(spoilt, random)
    )
    assert_read_or_refused(lambda: load_data(path), tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_pictures_of_a_folder(seed, tmp_path):
    random = np.random.default_rng([3, seed])
    folder = tmp_path / "pictures"
    for index, (image, label) in enumerate(zip(arrays()["x"], arrays()["y"], strict=True)):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
        kind = ("png", "jpeg", "gif", "webp", "bmp", "tiff")[index % 6]
        path = folder / f"class {label}" / f"{index}.{kind}"
        Image.fromarray(image).save(path)
        if index % 3 == 0:
            path.write_bytes(spoil_bytes(path.read_bytes(), random))

    def read() -> None:
        data = load_data(folder, image_size=16)
        assert data.train.images[:].shape[1:] == (16, 16, 3)

    assert_read_or_refused(read, tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_a_manifest(seed, tmp_path):
    random = np.random.default_rng([4, seed])
    for index, image in enumerate(arrays()["x"]):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    table = pd.DataFrame({
        "path": [f"{index}.png" for index in range(24)],
        "label": [f"class {label}" for label in arrays()["y"]],
        "split": ["train", "train", "train", "test"] * 6,
        "group": [f"g{index // 4}" for index in range(24)],
        "camera": ["phone", "slr"] * 12,
    })  # fmt: skip
    if seed % 2:
        path = tmp_path / "labels.parquet"
        spoil_table(table, random).to_parquet(path)
    else:
        path = tmp_path / "labels.csv"
        spoil_table(table, random).to_csv(path, index=False)
        path.write_bytes(spoil_bytes(path.read_bytes(), random))

    def read() -> None:
        data = load_data(path, image_size=16)
        assert data.train.images[:].shape[1:] == (16, 16, 3)

    assert_read_or_refused(read, tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_decisions(seed, tmp_path):
    random = np.random.default_rng([5, seed])
    path = tmp_path / "fixes.json"
    write_decisions(path, Decisions(FINGERPRINT, (Decision("test", 3, "relabel", "b"),)))
    if seed % 2:
        path.write_text(json.dumps(spoil_json(json.loads(path.read_text()), random)))
    else:
        path.write_bytes(spoil_bytes(path.read_bytes(), random))
    assert_read_or_refused(lambda: read_decisions(path), tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    np.savez(place / "good.npz", **arrays())
    assert main(["run", "--data", str(place / "good.npz"), *SMALL, "--out", str(place / "run")]) == 0
    return place / "run"


@pytest.mark.parametrize("seed", range(60))
def test_a_file_of_a_run(seed, finished, tmp_path, capsys):
    random = np.random.default_rng([6, seed])
    run = shutil.copytree(finished, tmp_path / "run")
    kinds = {".json", ".npz", ".parquet", ".csv"}
    files = sorted(path for path in run.iterdir() if path.suffix in kinds)
    file = files[seed % len(files)]
    if file.suffix == ".json":
        file.write_text(json.dumps(spoil_json(json.loads(file.read_text()), random)))
    elif file.suffix == ".npz":
        file.write_bytes(spoil_npz(file.read_bytes(), random, tmp_path / CANARY))
    elif file.suffix == ".parquet":
        spoil_table(pd.read_parquet(file), random).to_parquet(file)
    else:
        file.write_bytes(spoil_bytes(file.read_bytes(), random))
    page = (run / "report.html").read_bytes()
    code = main(["report", str(run)])
    error = capsys.readouterr().err
    assert code in (0, 1)
    if code:
        assert error.startswith("sightline: "), error
        assert error.count("\n") == 1, error
        assert "unexpected" not in error, error
        assert (run / "report.html").read_bytes() == page
    assert not (tmp_path / CANARY).exists()


def test_weights_and_checkpoints_that_would_run(finished, tmp_path, capsys):
    for name in ("model.safetensors", "checkpoint.pt", "predictions.parquet", "gallery.npz"):
        run = shutil.copytree(finished, tmp_path / name.replace(".", "_"))
        (run / name).write_bytes(pickle.dumps(Payload(tmp_path / CANARY)))
        if name == "model.safetensors":
            with pytest.raises(SightlineError):
                load_model(run)
        main(["report", str(run)])
        main(["run", "--resume", str(run), "--quiet", "--device", "cpu"])
    assert not (tmp_path / CANARY).exists()
    pickle.loads(pickle.dumps(Payload(tmp_path / CANARY)))  # it would have been seen
    assert (tmp_path / CANARY).exists()
