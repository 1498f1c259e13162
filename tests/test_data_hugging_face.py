"""Data sets of the library `datasets`, with the library itself and no network."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sightline.data import load_data
from sightline.errors import InputError, MissingExtraError, NotFoundError

datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (10 * number, 5, 0)).save(file, "PNG")
    return file.getvalue()


def table(numbers: range, *, label: str = "label"):
    """Pictures in the table itself; the red of each is its number."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            label: datasets.ClassLabel(names=["dog", "cat"]),
            "site": datasets.Value("string"),
            "age": datasets.Value("int32"),
        }
    )
    rows = {
        "image": [{"bytes": png(n), "path": None} for n in numbers],
        label: [n % 2 for n in numbers],
        "site": [f"s{n // 4}" for n in numbers],
        "age": list(numbers),
    }
    return datasets.Dataset.from_dict(rows, features=features)


def numbers(split) -> list[int]:
    return [int(image[0, 0, 0]) // 10 for image in split.images[:]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prefix", ["", "hf/"])
def test_a_saved_data_set_gives_pictures_labels_and_metadata(tmp_path, stream, prefix):
    parts = {"train": table(range(16)), "validation": table(range(16, 24))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "pets")
    data = load_data(f"{prefix}{tmp_path / 'pets'}", image_size=8, stream=stream)
    assert (data.name, data.class_names) == ("pets", ("dog", "cat"))
    assert numbers(data.train) == list(range(16))
    assert numbers(data.test) == list(range(16, 24))
    assert list(data.test.metadata["age"]) == list(range(16, 24))
    assert list(data.test.files["path"][:2]) == ["validation/000000", "validation/000001"]
    assert list(data.test.labels) == [n % 2 for n in range(16, 24)]


def test_one_split_alone_is_split_by_group(tmp_path):
    table(range(24)).save_to_disk(tmp_path / "pets")
    data = load_data(tmp_path / "pets", group="site", test_fraction=0.3)
    assert not set(data.train.groups) & set(data.test.groups)
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(24))


def test_a_folder_of_pictures_is_opened_by_the_library_and_files_are_read_where_they_are(tmp_path):
    for split, some in (("train", range(12)), ("test", range(12, 18))):
        for n in some:
            place = tmp_path / "photos" / split / "ab"[n % 2] / f"{n}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(png(n))
    by_library = load_data(f"hf/{tmp_path / 'photos'}")
    own = load_data(tmp_path / "photos")
    assert by_library.class_names == own.class_names
    assert sorted(numbers(by_library.train)) == sorted(numbers(own.train))
    assert set(by_library.test.files["hash"]) == set(own.test.files["hash"])


def test_the_column_of_labels_can_be_named_and_missing_pictures_are_listed(tmp_path):
    one = table(range(16), label="kind")
    one = one.map(lambda row, n: {"image": None} if n == 3 else row, with_indices=True, features=one.features)
    one.save_to_disk(tmp_path / "pets")
    data = load_data(tmp_path / "pets", label_column="kind")
    assert len(data.train) + len(data.test) == 15
    assert [line.split(": ")[-1] for line in data.skipped] == ["no picture"]
    with pytest.raises(InputError, match=r"data\.label_column"):
        load_data(tmp_path / "pets", label_column="breed")


def test_errors_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(NotFoundError, match="cannot open 'nobody/nothing'"):
        load_data("hf/nobody/nothing")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(InputError, match="no column of type Image, only text"):
        load_data(tmp_path / "texts")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"sightline-vision\[datasets\]"):
        load_data("hf/beans")


def test_embedded_pictures_are_copied_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    table(range(16)).save_to_disk(tmp_path / "pets")
    first = load_data(tmp_path / "pets")
    copies = list((tmp_path / "cache" / "pictures").glob("embedded-*.bin"))
    assert [one.stat().st_size for one in copies] == [sum(len(png(n)) for n in range(16))]
    before = copies[0].stat().st_mtime_ns
    again = load_data(tmp_path / "pets")
    assert copies[0].stat().st_mtime_ns == before
    assert np.array_equal(first.train.images, again.train.images)


def test_a_local_folder_keeps_its_name_and_a_stray_file_makes_no_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in range(12):
        place = tmp_path / "hf" / "photos" / "ab"[n % 2] / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(n))
    (tmp_path / "hf" / "photos" / "state.json").write_text("{}")
    assert load_data("hf/photos").class_names == ("a", "b")


def test_neither_scripts_nor_pickles_of_a_folder_are_run(tmp_path):
    import pickle

    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "data.pkl").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(NotFoundError, match="cannot open"):
        load_data(f"hf/{folder}")
    assert not (tmp_path / "ran").exists()
