"""Folders of pictures: classes, splits, sizes, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data import describe, load_data
from sightline.errors import SightlineError


def _save(path: Path, colour=(200, 100, 50), size=(8, 8), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), colour).convert(mode).save(path, **options)
    return path


@pytest.fixture
def two_classes(tmp_path) -> Path:
    for number in range(10):
        _save(tmp_path / f"pets/cat/{number}.png", (number, 0, 0))
        _save(tmp_path / f"pets/dog/{number}.png", (0, number, 0))
    return tmp_path / "pets"


def test_a_folder_of_classes_is_split_by_seed(two_classes):
    dataset = load_data(two_classes, seed=1)
    assert (dataset.name, dataset.class_names, dataset.image_size) == ("pets", ("cat", "dog"), (8, 8))
    assert np.bincount(dataset.test.labels).tolist() == [2, 2]
    cats = [split.images[split.labels == 0][:, 0, 0, 0].tolist() for split in (dataset.train, dataset.test)]
    assert sorted(cats[0] + cats[1]) == list(range(10))
    again, other = load_data(two_classes, seed=1), load_data(two_classes, seed=2)
    np.testing.assert_array_equal(dataset.test.images, again.test.images)
    assert not np.array_equal(dataset.test.images, other.test.images)


@pytest.mark.parametrize("name", ["test", "val", "valid"])
def test_folders_train_and_test_are_taken_as_they_are(tmp_path, name):
    for split, classes in (("train", "abc"), (name, "ca")):
        for letter in classes:
            _save(tmp_path / split / letter / "deep" / "1.png", (ord(letter), 0, 0))
    dataset = load_data(tmp_path)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.test.images[:, 0, 0, 0].tolist() == [
        ord("c" if label == 2 else "a") for label in dataset.test.labels
    ]
    assert sorted(dataset.test.labels.tolist()) == [0, 2]


def test_broken_files_are_skipped_and_named_and_others_ignored(two_classes, monkeypatch):
    whole = (two_classes / "cat/1.png").read_bytes()
    (two_classes / "cat/torn.png").write_bytes(whole[:-30])
    (two_classes / "dog/text.jpg").write_text("no picture")
    for name in (".hidden.png", "notes.txt", "Thumbs.db"):
        (two_classes / "cat" / name).write_text("ignored")
    _save(two_classes / "dog/bomb.png", size=(101, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    dataset = load_data(two_classes)
    assert len(dataset.train) + len(dataset.test) == 20
    reasons = dict(line.split(": ", 1) for line in dataset.skipped)
    ignored = {"cat/notes.txt", "cat/Thumbs.db"}
    assert set(reasons) == {"cat/torn.png", "dog/text.jpg", "dog/bomb.png"} | ignored
    assert reasons["cat/notes.txt"] == "no picture file"
    assert reasons["dog/bomb.png"] == "10100 pixels are more than the limit of 10000"
    assert "cannot identify image file" in reasons["dog/text.jpg"]
    assert len(describe(dataset)["skipped"]) == 5


def test_pictures_of_many_sizes_become_squares_of_one(two_classes):
    _save(two_classes / "cat/wide.png", size=(40, 300))
    assert load_data(two_classes).image_size == (64, 64)
    assert load_data(two_classes, image_size=16).image_size == (16, 16)


def test_size_and_rule_are_those_asked_for_and_are_told(two_classes):
    wide = np.zeros((40, 300, 3), np.uint8)
    wide[:, :30] = 255  # white, and cut off by a centred crop
    Image.fromarray(wide).save(two_classes / "cat/0wide.png")
    left = {}
    for rule in ("crop", "pad", "stretch"):
        data = load_data(two_classes, image_size=(12, 30), resize=rule, interpolation="bilinear")
        assert data.image_size == (12, 30)
        card = describe(data)
        assert (card["resize"], card["interpolation"]) == (rule, "bilinear")
        for split in (data.train, data.test):
            for row in np.flatnonzero(split.metadata["path"] == "cat/0wide.png"):
                left[rule] = split.images[row][6, 1, 0]
        streamed = load_data(
            two_classes, image_size=(12, 30), resize=rule, interpolation="bilinear", stream=True
        )
        np.testing.assert_array_equal(streamed.train.images[:], data.train.images)
    assert left["crop"] == 0
    assert left["pad"] > 240
    assert left["stretch"] > 240
    with pytest.raises(SightlineError, match=r"image_size is \(1, 2, 3\); it needs the side of a square"):
        load_data(two_classes, image_size=(1, 2, 3))


def test_metadata_names_the_file_of_each_image(two_classes):
    data = load_data(two_classes, seed=3)
    for split in (data.train, data.test):
        for path, label, image in zip(split.metadata["path"], split.labels, split.images, strict=True):
            assert path.split("/")[0] == data.class_names[label]
            assert image[0, 0].max() == int(Path(path).stem)
    few = load_data(two_classes, seed=3, limit=4)
    assert set(few.train.metadata["path"]) < set(data.train.metadata["path"])


def test_class_folders_that_do_not_fit_are_errors(tmp_path):
    _save(tmp_path / "train/cat/1.png")
    with pytest.raises(
        SightlineError, match=r"train has 1 class folders with pictures; a data set needs two or more"
    ):
        load_data(tmp_path)
    (tmp_path / "train/dog").mkdir()
    with pytest.raises(SightlineError, match=r"the class folder .*train/dog has no picture: skipped"):
        load_data(tmp_path)
    (tmp_path / "train/dog/1.png").write_text("broken")
    with pytest.raises(
        SightlineError, match=r"no picture in the class folder of train/dog/1.png can be read"
    ):
        load_data(tmp_path)
    _save(tmp_path / "train/dog/1.png")
    _save(tmp_path / "test/cow/1.png")
    with pytest.raises(
        SightlineError, match="test has the class 'cow', which is not in train/; add it there"
    ):
        load_data(tmp_path)


def test_what_loading_decides_is_said(two_classes):
    (two_classes / "bird").mkdir()
    _save(two_classes / "emu/1.png", (90, 0, 0))
    (two_classes / "labels.csv").write_text("path,label\n")
    for number in range(30):
        (two_classes / f"cat/{number}.xml").write_text("<box/>")
    (two_classes / "cat/photo.heic").write_bytes(b"heic")
    data = load_data(two_classes)
    manifest = two_classes / "labels.csv"
    assert data.notes == (
        f"{manifest} lies beside the pictures and is not read; to load by it: --data {manifest}",
        f"the class folder {two_classes / 'bird'} has no picture: skipped",
        "class 'emu' has no test image; trained on: 1",
    )
    assert data.class_names == ("cat", "dog", "emu")
    assert "30 files ending in .xml (the first: cat/0.xml): no picture file" in data.skipped
    assert any(line.startswith("cat/photo.heic: ") for line in data.skipped)


def test_near_duplicates_stay_on_one_side(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 250, (8, 9, 3), dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        for copy in range(3):
            path = tmp_path / ("a" if number % 2 else "b") / f"{number}-{copy}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels + np.uint8(copy)).save(path)
    cut = load_data(tmp_path)
    kept = load_data(tmp_path, keep_together="near-duplicates")
    sides = []
    for data in (cut, kept):
        numbers = [
            {path.split("-")[0] for path in split.metadata["path"]} for split in (data.train, data.test)
        ]
        sides.append(len(numbers[0] & numbers[1]))
    assert sides[0] > 5
    assert sides[1] == 0
    assert kept.notes[0] == "near-duplicates are kept in one split: 80 images look like another one"
    assert len(kept.test) == 24
    with pytest.raises(SightlineError, match="keep_together is 'copies'; known: near-duplicates"):
        load_data(tmp_path, keep_together="copies")


def test_pictures_of_phones_are_read_where_the_extra_is(two_classes):
    heif = pytest.importorskip("pillow_heif", reason="the extra [heic] is not installed")
    heif.register_heif_opener()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(two_classes / "cat/photo.heic", quality=100)
    data = load_data(two_classes, image_size=64, test_fraction=1)
    row = list(data.test.files["path"]).index("cat/photo.heic")
    assert np.abs(data.test.images[row].astype(int) - (200, 30, 30)).max() <= 6
