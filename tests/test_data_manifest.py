"""Manifests: which rows fit, what is said of the others, groups, columns by other names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sightline.data import describe, load_data
from sightline.errors import DamagedFileError, InputError


@pytest.fixture
def rows(tmp_path) -> list[dict]:
    """24 pictures of 2 classes and 6 patients; the red of each is its number."""
    made = []
    for number in range(24):
        name = f"pictures/{number}.png"
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / name)
        made.append(
            {"path": name, "label": "cat" if number % 2 else "dog", "group": f"p{number // 4}", "age": number}
        )
    return made


def written(folder: Path, rows: list[dict], name: str = "labels.csv") -> Path:
    table = pd.DataFrame(rows)
    table.to_csv(folder / name, index=False) if name.endswith("csv") else table.to_parquet(folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_rows_become_images_with_what_the_table_says_of_them(tmp_path, rows, name):
    data = load_data(written(tmp_path, rows, name))
    assert (data.name, data.class_names, data.image_size) == ("labels", ("cat", "dog"), (4, 6))
    assert len(data.train) + len(data.test) == 24
    for split in (data.train, data.test):
        for image, label, row in zip(
            split.images, split.labels, split.metadata.to_dict("records"), strict=True
        ):
            number = int(image[0, 0, 0])
            assert rows[number]["path"] == row["path"]
            assert (rows[number]["age"], rows[number]["group"]) == (row["age"], row["group"])
            assert rows[number]["label"] == data.class_names[label]
    assert not set(data.train.groups) & set(data.test.groups)
    assert any(line.startswith("6 groups, none of them in both splits") for line in data.notes)
    few = load_data(tmp_path / name, limit=8, stream=True)
    assert (few.train.metadata["age"].to_numpy() == few.train.images[:][:, 0, 0, 0]).all()


def test_a_given_split_is_kept_and_groups_in_both_are_named(tmp_path, rows):
    for number, row in enumerate(rows):
        row["split"] = "train" if number < 18 else "val"
    data = load_data(written(tmp_path, rows))
    assert data.test.metadata["age"].tolist() == list(range(18, 24))
    assert data.notes == ("1 groups are in both splits (p4): what is measured is too good",)


def test_rows_that_do_not_fit_are_named_counted_and_left_out(tmp_path, rows):
    del rows[3]["group"]
    rows[5]["path"] = "pictures/none.png"
    rows[7]["path"] = rows[6]["path"]  # and another label
    rows[8]["label"] = ""
    rows[11] = dict(rows[9])
    (tmp_path / "pictures/20.png").write_text("broken")
    data = load_data(written(tmp_path, rows))
    assert data.skipped[:-1] == (
        "row 5: pictures/3.png: no group",
        "row 7: pictures/none.png: no such file",
        "row 8: pictures/6.png: duplicate path with 2 labels",
        "row 9: pictures/6.png: duplicate path with 2 labels",
        "row 10: pictures/8.png: no label",
        "row 13: pictures/9.png: duplicate path, as row 11",
    )
    assert data.skipped[-1].startswith("row 22: pictures/20.png: cannot identify")
    assert data.notes[0].startswith(
        "7 of 24 rows of labels.csv are left out: 2 × duplicate path with 2 labels"
    )
    assert len(data.train) + len(data.test) == 17
    assert describe(data)["notes"] == list(data.notes)


def test_columns_have_other_names(tmp_path, rows):
    theirs = {"path": "file", "label": "species", "group": "patient"}
    path = written(tmp_path, [{theirs.get(key, key): value for key, value in row.items()} for row in rows])
    with pytest.raises(
        InputError, match=r"no column 'path', only file, species, patient, age; .*data.path_column"
    ):
        load_data(path)
    data = load_data(path, path_column="file", label_column="species", group="patient")
    assert not set(data.train.metadata["group"]) & set(data.test.metadata["group"])
    plain = load_data(path, path_column="file", label_column="species")
    assert plain.train.groups is None
    assert set(plain.train.metadata) == {"path", "hash", "patient", "age"}


def test_tables_that_cannot_be_used_are_one_line(tmp_path, rows):
    for change, message in (
        (
            {"label": "cat|dog"},
            r"has the label 'cat\|dog', whose parts are labels too: several labels of one",
        ),
        ({"label": "['cat', 'dog']"}, "several labels of one picture are not supported"),
    ):
        with pytest.raises(InputError, match=message):
            load_data(written(tmp_path, [{**rows[0], **change}, *rows[1:]]))
    with pytest.raises(
        InputError, match=r"13 of 24 rows of .* do not fit \(row 2: elsewhere/pictures/0.png: no such"
    ):
        load_data(
            written(tmp_path, [row | {"path": f"elsewhere/{row['path']}"} for row in rows[:13]] + rows[13:])
        )
    with pytest.raises(InputError, match="has 1 classes to train on"):
        load_data(written(tmp_path, [row | {"label": "cat"} for row in rows]))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedFileError, match="cannot be read as a table of pictures"):
        load_data(tmp_path / "torn.parquet")


def test_files_in_streams_are_decoded_once_and_again_when_they_change(tmp_path, rows, monkeypatch):
    from sightline.data import picture_cache

    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    path, decoded = written(tmp_path, rows), []
    real = picture_cache.read_hashed

    def counted(paths, *rest, **more):
        decoded.append(len(paths))
        return real(paths, *rest, **more)

    monkeypatch.setattr(picture_cache, "read_hashed", counted)
    first, second = load_data(path, stream=True), load_data(path, stream=True)
    assert decoded == [24, 0]
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(load_data(path).mean, second.mean)
    pd.testing.assert_frame_equal(first.train.files, second.train.files)
    Image.new("RGB", (6, 4), (0, 250, 0)).save(tmp_path / rows[0]["path"])
    load_data(path, stream=True)
    load_data(path, stream=True, image_size=3)
    assert decoded[2:] == [24, 1, 24]  # the first is that of memory; another size is read anew
    for kept in (tmp_path / "cache").rglob("*.npz"):
        kept.write_bytes(b"damaged")
    np.testing.assert_array_equal(load_data(path, stream=True).train.labels, first.train.labels)
    assert decoded[-1] == 24


def test_labels_alone_are_a_data_set_known_by_path_or_number(tmp_path):
    table = pd.DataFrame(
        {"path": ["a.jpg", "b.jpg", "c.jpg"], "label": ["cat", "dog", "cat"], "camera": [1, 2, 2]}
    )
    table.to_csv(tmp_path / "labels.csv", index=False)
    data = load_data(tmp_path / "labels.csv", pictures=False, test_fraction=1)
    assert (len(data.train), len(data.test), data.has_pictures) == (0, 3, False)
    assert data.class_names == ("cat", "dog")
    assert data.test.labels.tolist() == [0, 1, 0]
    assert data.test.files["path"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert data.test.files["hash"].nunique() == 3
    assert data.test.metadata["camera"].tolist() == [1, 2, 2]
    assert describe(data)["image_size"] is None
    table.drop(columns="path").to_csv(tmp_path / "numbers.csv", index=False)
    numbers = load_data(
        tmp_path / "numbers.csv", pictures=False, test_fraction=1, class_names=["dog", "x", "cat"]
    )
    assert numbers.test.metadata["path"].tolist() == ["test/00000", "test/00001", "test/00002"]
    assert numbers.class_names == ("dog", "x", "cat")
    assert numbers.test.labels.tolist() == [2, 0, 2]
    with pytest.raises(
        InputError, match="has the classes cat, which are not among the class names given: dog"
    ):
        load_data(tmp_path / "numbers.csv", pictures=False, class_names=["dog"])
    with pytest.raises(InputError, match="has no pictures, so nothing can be trained on it"):
        data.check_trainable()
    with pytest.raises(InputError, match="is no table of labels"):
        load_data("shapes", pictures=False)


def test_a_split_of_tests_alone_needs_no_training(tmp_path):
    rows = ["path,label,split", *(f"{n}.jpg,{'ab'[n % 2]},test" for n in range(4))]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = load_data(tmp_path / "labels.csv", pictures=False)
    assert (len(data.train), len(data.test)) == (0, 4)
