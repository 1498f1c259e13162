"""Planted faults: what the copy holds is what its truth says, by the pictures themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import sightline as sl
from sightline.cli import main
from sightline.data import Dataset, Split
from sightline.errors import DamagedFileError, InputError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of twenty pictures in each split, each a plain colour with noise."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for word in ("train", "test"):
        for number, name in enumerate(("ant", "bee", "cat")):
            (root / word / name).mkdir(parents=True)
            for index in range(20):
                image = rng.integers(0, 60, (32, 32, 3)) + np.array([60 * number + 20, 40, 90])
                Image.fromarray(image.astype(np.uint8)).save(root / word / name / f"{index:02d}.png")
    return root


@pytest.fixture(scope="module")
def planted(photos, tmp_path_factory) -> tuple[Dataset, Dataset]:
    out = tmp_path_factory.mktemp("copy") / "planted"
    faults = {"labels": 0.1, "copies": 0.1, "mark": (0.1, "cat"), "degrade": (0.1, "blurred")}
    return sl.load_data(photos), sl.plant(photos, out, **faults, strangers=0.05, seed=1)


def test_the_labels_that_are_wrong_are_those_of_the_truth(planted):
    before, after = planted
    truth, was = after.truth, before.train.labels
    assert len(truth.wrong_labels) == len(truth.wrong_test) == 6
    np.testing.assert_array_equal(np.flatnonzero(after.train.labels != was), truth.wrong_labels)
    np.testing.assert_array_equal(was[truth.wrong_labels], truth.true_labels)
    own = after.test.labels[: len(before.test)]
    np.testing.assert_array_equal(np.flatnonzero(own != before.test.labels), truth.wrong_test)
    np.testing.assert_array_equal(before.test.labels[truth.wrong_test], truth.true_test)


def test_only_pictures_that_change_are_written_and_the_others_are_the_same(planted):
    before, after = planted
    truth = after.truth
    changed = np.flatnonzero((after.test.images[: len(before.test)] != before.test.images).any((1, 2, 3)))
    expected = np.flatnonzero(truth.shortcut_test | truth.degraded)
    np.testing.assert_array_equal(changed, np.union1d(expected, truth.strangers)[: len(changed)])
    written = [path for path in after.test.files["path"] if path.startswith("pictures/")]
    assert len(written) == len(changed) + len(truth.leaks)


def test_the_mark_goes_with_one_class_in_training_and_with_others_in_test(planted):
    _, after = planted
    truth, cat = after.truth, after.class_names.index("cat")
    top, left, bottom, right = truth.shortcut_box
    corners = after.test.images[:, top:bottom, left:right]
    magenta = (corners == [255, 0, 255]).all((1, 2, 3))
    np.testing.assert_array_equal(magenta, truth.shortcut_test)
    assert truth.shortcut_class == cat
    assert (after.train.labels[truth.shortcut_train] == cat).all()
    assert truth.shortcut_train.sum() == truth.shortcut_test.sum() == 6
    assert not (after.test.labels[truth.shortcut_test] == cat).any()


def test_copies_are_of_the_pictures_that_the_truth_names(planted):
    before, after = planted
    truth = after.truth
    assert len(truth.leaks) == 6
    assert set(truth.leak_kinds) == {"cropped", "mirrored", "recompressed", "recoloured"}
    for (test, train), kind in zip(truth.leaks, truth.leak_kinds, strict=True):
        image, original = after.test.images[test], before.train.images[train]
        assert after.test.labels[test] == before.train.labels[train]
        if kind == "mirrored":
            np.testing.assert_array_equal(image, original[:, ::-1])
    worse = after.test.metadata["quality"].to_numpy() == "blurred"
    np.testing.assert_array_equal(worse, truth.degraded)
    assert (
        after.test.images[worse].std(axis=(1, 2)).mean() < after.test.images[~worse].std(axis=(1, 2)).mean()
    )


def test_the_same_seed_plants_the_same_and_a_folder_is_read_again_with_its_truth(planted, photos, tmp_path):
    out = tmp_path / "again"
    faults = {"labels": 0.1, "copies": 0.1, "mark": (0.1, "cat"), "degrade": (0.1, "blurred")}
    again = sl.plant(photos, out, **faults, strangers=0.05, seed=1)
    np.testing.assert_array_equal(again.truth.wrong_test, planted[1].truth.wrong_test)
    read = sl.load_data(out)
    np.testing.assert_array_equal(read.truth.leaks, again.truth.leaks)
    few = sl.load_data(out, limit=30)
    assert len(few.truth.shortcut_train) == len(few.train) == 30
    (out / "planted.json").write_text("{}")
    with pytest.raises(DamagedFileError, match="is not what 'sightline plant' writes"):
        sl.load_data(out)


def test_wrong_labels_between_classes_that_look_alike(tmp_path):
    images = np.repeat(np.array([10, 20, 200], np.uint8), 20)[:, None, None, None].repeat(3, 3)
    images = np.ascontiguousarray(np.broadcast_to(images, (60, 16, 16, 3)))
    split = Split(images, np.repeat([0, 1, 2], 20))
    data = Dataset("grey", ("a", "b", "c"), split, split)
    found = sl.plant(data, tmp_path / "out", labels=0.2, confused="alike")
    pairs = set(zip(found.truth.true_labels, found.train.labels[found.truth.wrong_labels], strict=True))
    assert pairs <= {(0, 1), (1, 0), (2, 1)}


def test_the_command_says_what_was_planted_and_refuses_in_one_line(photos, tmp_path, capsys):
    out = tmp_path / "planted"
    assert main(["plant", str(photos), "--out", str(out), "--labels", "5%", "--copies", "5%", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["wrong_training_labels"], found["wrong_test_labels"], found["copies"]) == (3, 3, 3)
    assert main(["plant", str(photos), "--out", str(out), "--labels", "5%"]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["plant", str(photos), "--out", str(tmp_path / "b"), "--mark", "5%:dog"]) == 1
    assert "there is no class 'dog'" in capsys.readouterr().err
    assert main(["plant", str(photos), "--out", str(tmp_path / "b"), "--labels", "90%"]) == 2
    assert not (tmp_path / "b").exists()
    with pytest.raises(InputError, match="nothing is to be planted"):
        sl.plant(photos, tmp_path / "c")
