"""Data sets in one file: splits, shapes that fit and shapes that do not, damaged files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from sightline.data import load_data
from sightline.errors import DamagedFileError, SightlineError


def _npz(path: Path, **changes) -> Path:
    arrays = {"x": np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3), "y": np.arange(10) % 2}
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def test_an_npz_is_split_by_seed_or_taken_as_it_is(tmp_path):
    split = load_data(_npz(tmp_path / "a.npz"))
    assert (split.name, split.class_names) == ("a", ("0", "1"))
    assert (len(split.train), len(split.test)) == (8, 2)
    grey = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    given = _npz(
        tmp_path / "b.npz", x_test=grey, y_test=np.array([[1], [0]]), class_names=np.array(["no", "yes"])
    )
    dataset = load_data(given)
    assert dataset.class_names == ("no", "yes")
    assert dataset.test.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(dataset.test.images, grey[..., None].repeat(3, axis=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((10, 4, 4, 3))}, r"has x in float64; it needs uint8 .* save \(255 \* x\).round\(\)"),
        (
            {"x": np.zeros((10, 3, 4, 4), np.uint8)},
            r"has x of shape \(10, 3, 4, 4\); it needs \(N, H, W, 3\)",
        ),
        ({"y": None}, "has no array 'y', only x; add it"),
        ({"y": np.full(10, -1)}, "has the label -1 in y; labels number the classes, from 0 on"),
        ({"y": np.arange(10.0)}, "labels are float64 .* need integers"),
        ({"y": np.arange(9)}, r"labels are int64 \(9,\); 10 images need integers"),
        ({"class_names": np.array(["one"])}, "names 1 classes; a data set needs two or more"),
        (
            {"class_names": np.array(["one", "two"]), "y": np.arange(10) % 3},
            "label 2; 2 classes allow",
        ),
        ({"y": np.array([0, 2**40] * 5)}, f"has the label {2**40} in y"),
        ({"x": np.zeros((10, 0, 0, 3), np.uint8)}, "has training images of 0x0 pixels"),
        ({"y": np.array([None] * 10)}, "is not a whole .npz file of plain arrays"),
    ],
)
def test_an_npz_that_does_not_fit_is_an_error(tmp_path, changes, message):
    with pytest.raises(SightlineError, match=message):
        load_data(_npz(tmp_path / "bad.npz", **changes))


def test_a_torn_npz_and_a_disguised_npy_are_errors(tmp_path):
    path = _npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SightlineError, match=r"is not a whole .npz file"):
        load_data(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(SightlineError, match=r"is not a whole .npz file"):
        load_data(path)


@pytest.mark.parametrize("shape", [(2**20, 999, 999, 3), (40, 40, 40, 3), (-1, 4, 4, 3), (2**62, 9, 9, 3)])
def test_a_file_that_claims_more_than_it_holds_is_refused_before_anything_is_allocated(
    tmp_path, monkeypatch, shape
):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(10))
    monkeypatch.setattr(np, "load", lambda *arguments, **options: pytest.fail("it was read"))
    with pytest.raises(DamagedFileError, match=r"x\.npy claims to hold -?\d+ bytes and does not"):
        load_data(tmp_path / "odd.npz")


def test_a_compressed_file_is_read(tmp_path):
    arrays = {"x": np.zeros((500, 32, 32, 3), np.uint8), "y": np.arange(500) % 2}
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    assert (tmp_path / "small.npz").stat().st_size < arrays["x"].nbytes / 300
    assert len(load_data(tmp_path / "small.npz").train) == 400
