"""Decisions about images: the file and back, other data refused, relabelled and dropped, truth kept true."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sightline.audit import (
    Decision,
    Decisions,
    apply_decisions,
    merge_decisions,
    read_decisions,
    write_decisions,
)
from sightline.cli.app import app
from sightline.data import Dataset, Split, describe, fingerprint, load_data
from sightline.errors import SightlineError


def small() -> Dataset:
    images = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    return Dataset(
        "small",
        ("ant", "bee", "cat"),
        train=Split(images, np.array([0, 0, 1, 1, 2, 2])),
        test=Split(images[:3], np.array([0, 1, 2])),
    )


def decided(data: Dataset, *decisions: Decision) -> Decisions:
    return Decisions(fingerprint(data), decisions)


def test_the_fingerprint_is_that_of_the_labels_as_little_endian_64_bit_integers():
    found = fingerprint(small())
    assert found["labels_sha256"]["test"] == hashlib.sha256(struct.pack("<3q", 0, 1, 2)).hexdigest()
    assert (found["name"], found["train"], found["test"]) == ("small", 6, 3)
    assert found["class_names"] == ["ant", "bee", "cat"]
    assert json.loads(json.dumps(describe(small())))["fingerprint"] == found


def test_decisions_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "fixes.json"
    decisions = decided(
        small(),
        Decision("train", 3, "relabel", "cat", note="“schwarz”"),
        Decision("test", 0, "keep"),
        Decision("train", 0, "drop"),
    )
    write_decisions(path, decisions)
    assert read_decisions(path) == decisions
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["format"], content["version"]) == ("sightline-fixes", 2)
    assert content["decisions"][0] == {
        "split": "train", "index": 3, "action": "relabel", "label": "cat", "note": "“schwarz”",
    }  # fmt: skip
    assert content["decisions"][1] == {"split": "test", "index": 0, "action": "keep", "note": ""}


def test_images_are_relabelled_and_dropped_and_the_data_stays_as_it_was():
    data = small()
    corrected = apply_decisions(
        data,
        decided(
            data,
            Decision("train", 3, "relabel", "cat"),
            Decision("train", 1, "drop"),
            Decision("train", 4, "keep"),
            Decision("test", 2, "relabel", "ant"),
        ),
    )
    assert corrected.train.labels.tolist() == [0, 1, 2, 2, 2]
    np.testing.assert_array_equal(corrected.train.images, data.train.images[[0, 2, 3, 4, 5]])
    assert corrected.test.labels.tolist() == [0, 1, 0]
    assert corrected.test.images is data.test.images
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (corrected.name, corrected.class_names) == ("small", ("ant", "bee", "cat"))


def test_planted_truth_stays_true():
    data = load_data("shapes", limit=300)
    truth = data.truth
    first, second = truth.wrong_labels[:2]
    right = np.setdiff1d(np.arange(len(data.train)), truth.wrong_labels)
    leak = next(pair for pair in truth.leaks if pair[1] not in (first, second, right[0], right[1]))
    other = data.class_names[(data.train.labels[right[1]] + 1) % 10]
    corrected = apply_decisions(
        data,
        decided(
            data,
            Decision("train", int(first), "relabel", data.class_names[truth.true_labels[0]]),
            Decision("train", int(right[0]), "drop"),
            Decision("train", int(right[1]), "relabel", other),  # a new mistake
            Decision("train", int(leak[1]), "drop"),
        ),
    )
    kept = np.setdiff1d(np.arange(len(data.train)), [right[0], leak[1]])
    old = kept[corrected.truth.wrong_labels]
    assert set(old) == set(truth.wrong_labels) - {first, leak[1]} | {right[1]}
    drawn = dict(zip(truth.wrong_labels, truth.true_labels, strict=True)) | {
        right[1]: data.train.labels[right[1]]
    }
    assert corrected.truth.true_labels.tolist() == [drawn[i] for i in old]
    assert len(corrected.truth.train_masks) == len(corrected.train)
    assert len(corrected.truth.leaks) == len(truth.leaks) - 1


def test_decisions_about_other_data_are_refused():
    data = small()
    decisions = decided(data, Decision("train", 0, "drop"))
    relabelled = apply_decisions(data, decided(data, Decision("test", 0, "relabel", "bee")))
    with pytest.raises(
        SightlineError, match="the test labels are not those that the decisions were made about"
    ):
        apply_decisions(relabelled, decisions)
    smaller = apply_decisions(data, decisions)
    with pytest.raises(SightlineError, match="about 6 train images of 'small', and 'small' has 5"):
        apply_decisions(smaller, decisions)
    renamed = Dataset("small", ("ant", "bee", "dog"), data.train, data.test)
    with pytest.raises(SightlineError, match="about other classes than 'small' has"):
        apply_decisions(renamed, decisions)
    moved = Dataset("a copy elsewhere", data.class_names, data.train, data.test)
    assert len(apply_decisions(moved, decisions).train) == 5


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (Decision("trian", 0, "drop"), "decision 1 of 1: split 'trian'; did you mean 'train'?"),
        (Decision("train", 0, "drip"), "action 'drip'; did you mean 'drop'?"),
        (Decision("train", 6, "drop"), "train image 6; 6 images allow 0 to 5"),
        (Decision("test", -1, "keep"), "test image -1; 3 images allow 0 to 2"),
        (Decision("train", 1.5, "keep"), "index 1.5 is no whole number"),
        (Decision("train", 1, "relabel", "beee"), "class 'beee'; did you mean 'bee'?"),
        (Decision("train", 1, "relabel"), "class ''; known: ant, bee, cat"),
    ],
)
def test_a_decision_that_does_not_fit_is_named(decision, message):
    with pytest.raises(SightlineError) as caught:
        decided(small(), decision)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_decisions_about_one_image_and_an_empty_split_are_refused():
    data = small()
    with pytest.raises(SightlineError, match="decision 2 of 2: test image 0 was decided before"):
        decided(data, Decision("test", 0, "keep"), Decision("test", 0, "drop"))
    every = [Decision("test", i, "drop") for i in range(3)]
    with pytest.raises(SightlineError, match="the decisions drop all 3 test images; keep at least one"):
        apply_decisions(data, decided(data, *every))


def test_a_file_that_is_no_such_file_is_one_clear_line(tmp_path):
    path = tmp_path / "fixes.json"
    good = {"format": "sightline-fixes", "version": 1, "data": fingerprint(small()), "decisions": []}
    cases = [
        (None, "is missing; export it from the report"),
        ("{", "is damaged .Invalid JSON: EOF while parsing"),
        ("[]", "is damaged .Input should be an object"),
        (json.dumps(good | {"version": 3}), "is of version 3; this Sightline reads versions 1 to 2"),
        (json.dumps({k: v for k, v in good.items() if k != "data"}), r"is damaged \(data: Field required\)"),
        (
            json.dumps(good | {"decisions": [{"index": 1}]}),
            r"is damaged \(decisions.0.split: Field req",
        ),
        (json.dumps(good | {"decisions": [3]}), r"is damaged \(decisions.0: Input should be an object\)"),
        (
            json.dumps(good | {"decisions": [{"split": "test", "index": 9, "action": "keep"}]}),
            "fixes.json: decision 1 of 1: test image 9; 3 images allow 0 to 2",
        ),
    ]
    for text, message in cases:
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(SightlineError, match=message) as caught:
            read_decisions(path)
        assert "\n" not in str(caught.value)


def named(data: Dataset, split: str, index: int, action: str, label: str = "") -> Decision:
    files = getattr(data, split).files
    return Decision(split, index, action, label, "", files["path"][index], files["hash"][index])


def grown(tmp_path, *, seed: int) -> Dataset:
    for number in range(20):
        folder = tmp_path / ("cat" if number % 2 else "dog")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 9, 9)).save(folder / f"{number}.png")
    return load_data(tmp_path, seed=seed)


def test_decisions_find_their_pictures_in_a_folder_that_grew(tmp_path):
    data = grown(tmp_path, seed=0)
    decisions = Decisions(
        fingerprint(data),
        (
            named(data, "train", 0, "relabel", "dog"),
            named(data, "train", 9, "drop"),
            named(data, "test", 1, "drop"),
            named(data, "train", 2, "drop"),
            named(data, "train", 3, "drop"),
        ),
    )
    write_decisions(tmp_path / "fixes.json", decisions)
    read = read_decisions(tmp_path / "fixes.json")
    assert read == decisions
    paths = [one.path for one in decisions.decisions]
    (tmp_path / paths[1]).rename(tmp_path / "cat" / "renamed.png")  # found by its content
    (tmp_path / paths[3]).unlink()
    Image.new("RGB", (4, 4), (200, 9, 9)).save(tmp_path / paths[4])  # another picture under its name
    for number in range(100, 110):
        Image.new("RGB", (4, 4), (number, 9, 9)).save(tmp_path / "cat" / f"{number}.png")
    now = load_data(tmp_path, seed=5)  # another split
    corrected = apply_decisions(now, read)
    assert corrected.notes == (
        "the data has changed since the decisions were made: 3 of 5 fit",
        f"decision not applied: {paths[3]} (drop): there is no such picture",
        f"decision not applied: {paths[4]} (drop): the picture has changed",
    )
    kept = {}
    for split in (corrected.train, corrected.test):
        kept |= dict(zip(split.files["path"], split.labels.tolist(), strict=True))
    assert len(kept) == len(now.train) + len(now.test) - 2
    assert kept[paths[0]] == corrected.class_names.index("dog")
    assert not {"cat/renamed.png", paths[2]} & set(kept)
    assert describe(corrected)["notes"] == list(corrected.notes)
    with pytest.raises(SightlineError, match="none of the 5 decisions fits 'shapes'"):
        apply_decisions(load_data("shapes", limit=20), read)


def test_two_peoples_decisions_are_merged_and_their_disagreements_listed(tmp_path):
    data = small()
    one = decided(
        data,
        Decision("train", 3, "relabel", "cat", note="sure"),
        Decision("train", 1, "drop"),
        Decision("train", 4, "relabel", "ant"),
        Decision("test", 0, "keep"),
    )
    two = decided(
        data,
        Decision("train", 3, "relabel", "cat", note="so do I", hash="ab"),
        Decision("train", 1, "keep"),
        Decision("train", 4, "relabel", "bee"),
    )
    merged, differing = merge_decisions([one, two])
    assert merged.decisions == (
        Decision("train", 3, "relabel", "cat", note="sure; so do I", hash="ab"),
        Decision("test", 0, "keep"),
    )
    assert [(said[0].index, [d.action + d.label for d in said]) for said in differing] == [
        (1, ["drop", "keep"]),
        (4, ["relabelant", "relabelbee"]),
    ]
    other = Dataset("other", data.class_names, data.train, data.train)
    with pytest.raises(SightlineError, match="the decisions are about 6 test images"):
        merge_decisions([one, decided(other)])
    with pytest.raises(SightlineError, match="no decisions to merge"):
        merge_decisions([])
    for name, decisions in (("a", one), ("b", two)):
        write_decisions(tmp_path / f"{name}.json", decisions)
    done = CliRunner().invoke(
        app, ["fixes", *(str(tmp_path / f"{n}.json") for n in "ab"), "--out", str(tmp_path / "c.json")]
    )
    assert done.exit_code == 0, done.output
    assert read_decisions(tmp_path / "c.json") == merged
    assert "train image 4 : relabel ant or relabel bee" in done.output
