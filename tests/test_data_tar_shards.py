"""Tar files as WebDataset writes them: the same pictures as from a folder, read from inside the tar."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sightline as sl
from sightline.data import load_data
from sightline.errors import DamagedFileError, InputError
from sightline.runs.run_folder import recipe_data
from sightline.training import load_recipe


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (10 * number, 5, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(numbers: range, **more: object) -> dict[str, bytes]:
    """Pictures whose red says their number; odd ones are of class 1, and known to be of patient n // 4."""
    found = {}
    for n in numbers:
        found[f"{n:04d}.json"] = json.dumps({"patient": f"p{n // 4}", "age": n, **more}).encode()
        found[f"{n:04d}.cls"] = str(n % 2).encode()
        found[f"{n:04d}.png"] = picture(n)
    return found


@pytest.fixture
def shards(tmp_path) -> Path:
    folder = tmp_path / "photos"
    write_tar(folder / "train-000000.tar", samples(range(8)))
    write_tar(folder / "train-000001.tar", samples(range(8, 16)))
    write_tar(folder / "test-000000.tar", samples(range(16, 24)))
    return folder


def numbers(split) -> list[int]:
    return [int(image[0, 0, 0]) // 10 for image in split.images[:]]


@pytest.mark.parametrize("stream", [False, True])
def test_shards_give_pictures_labels_and_what_their_tables_say(shards, stream):
    data = load_data(shards, image_size=8, stream=stream)
    assert data.class_names == ("0", "1")
    assert numbers(data.train) == list(range(16))
    assert numbers(data.test) == list(range(16, 24))
    for split in (data.train, data.test):
        assert list(split.labels) == [n % 2 for n in numbers(split)]
        assert list(split.metadata["age"]) == numbers(split)
    assert list(data.train.files["path"][:1]) == ["train-000000.tar/0000.png"]
    assert len(set(data.train.files["hash"])) == 16
    assert np.array_equal(data.train.images[3:5], load_data(shards, image_size=8).train.images[3:5])


def test_names_of_classes_stand_beside_the_shards(shards):
    (shards / "classnames.txt").write_text("dog\ncat\n")
    data = load_data(shards)
    assert data.class_names == ("dog", "cat")
    assert [data.class_names[label] for label in data.train.labels[:2]] == ["dog", "cat"]


def test_a_pattern_a_file_and_folders_train_and_test(shards, tmp_path):
    drawn = load_data(shards / "train-{000000..000001}.tar", test_fraction=0.25)
    assert sorted(numbers(drawn.train) + numbers(drawn.test)) == list(range(16))
    assert len(drawn.test) == 4
    one = load_data(shards / "test-000000.tar", test_fraction=1)
    assert sorted(numbers(one.test)) == list(range(16, 24))
    other = tmp_path / "other"
    write_tar(other / "train" / "0.tar", samples(range(6)))
    write_tar(other / "val" / "0.tar", samples(range(6, 10)))
    data = load_data(other)
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.test.files["path"][0] == "val/0.tar/0006.png"


def test_shards_without_a_split_are_split_by_group(tmp_path):
    write_tar(tmp_path / "a.tar", samples(range(24)))
    data = load_data(tmp_path / "a.tar", group="patient", test_fraction=0.3)
    assert not set(data.train.groups) & set(data.test.groups)
    assert len(data.train) + len(data.test) == 24


def test_the_label_may_stand_in_the_table(tmp_path):
    members = {}
    for n in range(12):
        members |= {f"{n}.png": picture(n), f"{n}.json": json.dumps({"kind": "ab"[n % 2]}).encode()}
    write_tar(tmp_path / "a.tar", members)
    assert load_data(tmp_path / "a.tar", label_column="kind").class_names == ("a", "b")
    with pytest.raises(InputError, match="no column 'label'"):
        load_data(tmp_path / "a.tar")


def test_what_does_not_fit_is_listed(shards):
    members = samples(range(8))
    members["0003.png"] = b"no picture"
    del members["0005.cls"]
    write_tar(shards / "train-000000.tar", members)
    data = load_data(shards)
    assert len(data.train) == 14
    assert [line.partition(": ")[2].split(":")[0] for line in data.skipped] == [
        "train-000000.tar/0003.png",
        "train-000000.tar/0005.png",
    ]
    assert data.skipped[1].endswith("no label")


def test_nothing_leaves_the_tar_and_links_are_passed_over(tmp_path):
    members = {f"../../{name}": content for name, content in samples(range(12)).items()}
    path = write_tar(tmp_path / "shards" / "a.tar", members)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("x.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    data = load_data(path)
    assert len(data.train) + len(data.test) == 12
    assert sorted(tmp_path.rglob("*")) == before


def test_errors_name_the_shard(tmp_path, shards):
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DamagedFileError, match=r"bad\.tar cannot be read as an uncompressed tar"):
        load_data(tmp_path / "bad.tar")
    write_tar(shards / "more.tar", samples(range(24, 28)))
    with pytest.raises(InputError, match=r"more\.tar says no split and other shards do"):
        load_data(shards)
    write_tar(tmp_path / "empty" / "a.tar", {"readme.md": b"nothing"})
    with pytest.raises(InputError, match="has no pictures"):
        load_data(tmp_path / "empty")


def test_a_shard_that_was_cut_short_loses_only_what_is_gone(shards):
    path = shards / "train-000001.tar"
    load_data(shards)
    last = max(i for i in range(0, path.stat().st_size, 512) if path.read_bytes()[i : i + 8] == b"0015.png")
    path.write_bytes(path.read_bytes()[: last + 512 + 10])
    data = load_data(shards)
    assert len(data.train) == 15
    assert "ends before the picture does" in data.skipped[0]
    assert f"{path} lacks the mark of its end; it may have been cut short" in data.notes
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"0012.json")])  # between two pictures: nothing else tells
    data = load_data(shards)
    assert len(data.train) == 12
    assert [line for line in data.notes if "cut short" in line] != []


def test_what_some_tables_lack_is_empty(tmp_path):
    members = samples(range(12))
    members["0003.json"] = json.dumps({"patient": "p0", "age": 3, "site": "north"}).encode()
    write_tar(tmp_path / "a.tar", members)
    data = load_data(tmp_path / "a.tar", test_fraction=1)
    assert list(data.test.metadata["site"]) == ["" if n != 3 else "north" for n in numbers(data.test)]
    assert not any("cut short" in line for line in data.notes)


def test_a_recipe_names_shards_and_a_run_is_trained_on_them(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = ["data.name=photos", "data.image_size=32", "training.epochs=1", "training.batch_size=8"]
    changes += ["analysis.compare_images=0", "analysis.audit=false", "analysis.mistakes=2"]
    run = sl.run("shapes-quick", changes=changes, out=tmp_path / "run", verbose=False)
    assert Path(run.recipe.data.name) == shards
    assert list(run.predictions.files["path"]) == list(recipe_data(run.recipe).test.files["path"])
    pattern = str(shards / "train-{000000..000001}.tar")
    assert load_recipe("shapes-quick", [f"data.name={pattern}"]).data.name == pattern
