from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data import Dataset, Split, describe, load_data, read_image
from sightline.data.splits import stratified_split, stratified_subset
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
    assert set(reasons) == {"cat/torn.png", "dog/text.jpg", "dog/bomb.png"}
    assert reasons["dog/bomb.png"] == "10100 pixels are more than the limit of 10000"
    assert "cannot identify image file" in reasons["dog/text.jpg"]
    assert len(describe(dataset)["skipped"]) == 3


def test_pictures_of_many_sizes_become_squares_of_one(two_classes):
    _save(two_classes / "cat/wide.png", size=(40, 300))
    assert load_data(two_classes).image_size == (64, 64)
    assert load_data(two_classes, image_size=16).image_size == (16, 16)


def test_resizing_scales_the_shorter_side_crops_the_centre_and_averages(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60, 0] = 255  # what the centred square keeps
    pixels[:, 20:60, 1] = 255 * (np.arange(40) % 2)  # fine stripes: antialiasing makes them grey
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png", size=(10, 10))
    assert (image[:, 1:-1, 0] == 255).all()
    assert (image[:, [0, -1], 0] > 220).all()  # the edge of what is cut off shines in on both sides
    assert abs(image[2:8, 2:8, 1].astype(int) - 127).max() < 12
    assert (image[..., 2] == 0).all()


def test_pictures_are_turned_upright(tmp_path):
    picture = Image.new("RGB", (4, 2))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png")
    assert image.shape == (4, 2, 3)
    assert image[0, 1].tolist() == [255, 0, 0]


def test_every_kind_of_pixel_becomes_rgb(tmp_path):
    deep = Image.fromarray(np.full((2, 2), 257 * 40, np.uint16))
    deep.save(tmp_path / "deep.png")
    clear = Image.new("RGBA", (2, 2), (200, 100, 50, 51))  # a fifth of the colour on white
    clear.save(tmp_path / "clear.png")
    palette = Image.new("RGB", (2, 2), (200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.gif")
    Image.new("L", (2, 2), 7).save(tmp_path / "grey.bmp")
    Image.new("1", (2, 2), 1).save(tmp_path / "bits.tiff")
    found = {path.name: read_image(path)[0, 0].tolist() for path in tmp_path.iterdir()}
    assert found == {
        "deep.png": [40, 40, 40],
        "clear.png": [244, 224, 214],
        "palette.gif": [200, 100, 50],
        "grey.bmp": [7, 7, 7],
        "bits.tiff": [255, 255, 255],
    }


def test_grey_in_floating_point_is_refused_with_advice(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(
        SightlineError, match=r"cannot read .*float.tiff as a picture: .*save it with 8 or 16 bits"
    ):
        read_image(tmp_path / "float.tiff")


def test_class_folders_that_do_not_fit_are_errors(tmp_path):
    _save(tmp_path / "train/cat/1.png")
    with pytest.raises(SightlineError, match=r"train has 1 class folders; a data set needs two or more"):
        load_data(tmp_path)
    (tmp_path / "train/dog").mkdir()
    with pytest.raises(
        SightlineError, match=r"the class folder .*train/dog has no picture; add some or remove it"
    ):
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
        ({"y": np.full(10, -1)}, "has a training label -1; 1 classes allow 0 to 0"),
        ({"y": np.arange(10.0)}, "labels are float64 .* need integers"),
        ({"y": np.arange(9)}, r"labels are int64 \(9,\); 10 images need integers"),
        ({"class_names": np.array(["one"])}, "has a training label 1; 1 classes allow 0 to 0"),
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


def test_unknown_names_and_settings_are_errors(tmp_path):
    with pytest.raises(
        SightlineError, match=r"no data set 'cifar', and .* did you mean 'cifar10' or 'cifar100'?"
    ):
        load_data("cifar")
    with pytest.raises(SightlineError, match="a limit of 0 images leaves nothing"):
        load_data("shapes", limit=0)
    with pytest.raises(SightlineError, match=r"test_fraction is 1.0; it needs a share between 0 and 1"):
        load_data("shapes", test_fraction=1.0)
    with pytest.raises(SightlineError, match="'shapes' is 32x32 and is not resized to 64"):
        load_data("shapes", image_size=64)


def test_a_function_and_a_data_set_take_the_place_of_a_name():
    split = Split(np.zeros((3, 2, 2, 3), np.uint8), np.arange(3))
    mine = Dataset("mine", ("a", "b", "c"), split, split)
    assert load_data(mine) is mine
    assert load_data(lambda: mine) is mine


def test_a_limit_keeps_the_shares_of_the_classes():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [600, 300, 100]))
    chosen = stratified_subset(labels, 50, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [30, 15, 5]
    assert (np.diff(chosen) > 0).all()
    assert not np.array_equal(chosen, stratified_subset(labels, 50, seed=1))
    dataset = load_data("shapes", limit=200)
    assert (len(dataset.train), len(dataset.test)) == (200, 200)
    assert dataset.source == "generated, seed 0 (200 of 4000 training and 200 of 1000 test images)"


def test_a_split_leaves_each_class_on_both_sides():
    labels = np.repeat([0, 1, 2], [10, 2, 1])
    train, test = stratified_split(labels, test_fraction=0.2, seed=0)
    assert np.bincount(labels[train]).tolist() == [8, 1, 1]
    assert np.bincount(labels[test]).tolist() == [2, 1]
    assert sorted([*train, *test]) == list(range(13))


def test_mean_and_spread_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 7, 3), dtype=np.uint8)
    split = Split(images, np.zeros(50, int))
    dataset = Dataset("d", ("a",), split, split)
    np.testing.assert_allclose(dataset.mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(dataset.std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-13)


def test_a_description_counts_classes_and_what_was_planted():
    import json

    facts = describe(load_data("shapes"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["image_size"] == [32, 32]
    assert facts["class_names"][0] == "circle"
    assert sum(facts["train_counts"]) == 4000
    assert facts["test_counts"] == [100] * 10
    assert facts["planted"]["wrong_labels"] == 80
    assert facts["planted"]["leaks"] == 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Split(np.zeros((2, 4, 4, 3)), np.zeros(2, int)),
            r"images are float64 \(2, 4, 4, 3\); a split holds",
        ),
        (lambda: Split(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int)), "2 images need integers"),
    ],
)
def test_a_split_of_something_else_is_an_error(call, message):
    with pytest.raises(SightlineError, match=message):
        call()


def test_what_needs_no_torch_does_not_import_it():
    code = (
        "import sys; from sightline.data import load_data, describe, Dataset, PlantedTruth, read_image;"
        "describe(load_data('shapes', limit=10)); print('torch' in sys.modules, 'requests' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
