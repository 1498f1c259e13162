"""One door to every data set: names, functions, limits, and what an unknown name says."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sightline.data import Dataset, Split, load_data
from sightline.data.dataset import stratified_subset
from sightline.errors import InputError, InputTypeError, SightlineError, UntrustedError


def test_unknown_names_and_settings_are_errors(tmp_path):
    with pytest.raises(
        SightlineError, match=r"no data set 'cifar', and .* did you mean 'cifar10' or 'cifar100'?"
    ):
        load_data("cifar")
    with pytest.raises(SightlineError, match="a limit of 0 images leaves nothing"):
        load_data("shapes", limit=0)
    with pytest.raises(
        SightlineError, match=r"test_fraction is 1.5; it needs a share above 0, and 1 tests all"
    ):
        load_data("shapes", test_fraction=1.5)
    with pytest.raises(SightlineError, match="'shapes' is 32x32 and is not resized to 64"):
        load_data("shapes", image_size=64)


def tiny_data(*, seed: int = 7, data_dir: str | None = None) -> Dataset:
    """Found by its name in `test_a_function_is_found_by_its_module_and_name`."""
    split = Split(np.full((3, 2, 2, 3), seed, np.uint8), np.arange(3))
    return Dataset(f"tiny in {data_dir}", ("a", "b", "c"), split, split)


def test_a_function_and_a_data_set_take_the_place_of_a_name():
    mine = tiny_data()
    assert load_data(mine) is mine
    assert load_data(lambda: mine) is mine
    made = load_data(tiny_data, seed=3, data_dir="here")
    assert made.name == "tiny in here"
    assert (made.train.images == 3).all()
    with pytest.raises(InputTypeError, match=r"data .* returned list; it has to return a Dataset"):
        load_data(lambda: [])


def test_a_function_is_found_by_its_module_and_name():
    assert (load_data("test_data_load:tiny_data", seed=5).train.images == 5).all()
    assert load_data("test_data_load:tiny_data", trust=["test_data_load"]).name == "tiny in None"
    with pytest.raises(UntrustedError, match="--trust test_data_load"):
        load_data("test_data_load:tiny_data", trust=())
    with pytest.raises(InputError, match="'test_data_load:nothing' cannot be imported"):
        load_data("test_data_load:nothing")


def test_a_path_with_a_colon_stays_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "my:pictures" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / "my:pictures" / name / f"{number}.png")
    assert load_data("my:pictures", trust=()).class_names == ("a", "b")


def test_a_limit_keeps_the_shares_of_the_classes():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [600, 300, 100]))
    chosen = stratified_subset(labels, 50, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [30, 15, 5]
    assert (np.diff(chosen) > 0).all()
    assert not np.array_equal(chosen, stratified_subset(labels, 50, seed=1))
    dataset = load_data("shapes", limit=200)
    assert (len(dataset.train), len(dataset.test)) == (200, 200)
    assert dataset.source == "generated, seed 0 (200 of 4000 training and 200 of 1000 test images)"


def test_arrays_get_names_that_stay_with_them():
    data = load_data("shapes")
    assert data.test.metadata["path"].iloc[434] == "test/00434"
    few = load_data("shapes", limit=50)
    for word in ("train", "test"):
        part, whole = getattr(few, word), getattr(data, word)
        rows = part.metadata["path"].str.removeprefix(f"{word}/").astype(int).to_numpy()
        np.testing.assert_array_equal(part.images, whole.images[rows])
    with pytest.raises(InputError, match="metadata has 2 rows and the columns file; it needs a row for each"):
        Split(data.test.images[:3], data.test.labels[:3], pd.DataFrame({"file": ["a", "b"]}))


def test_what_needs_no_torch_does_not_import_it():
    code = (
        "import sys; from sightline.data import load_data, describe, Dataset, PlantedTruth, read_image;"
        "describe(load_data('shapes', limit=10)); print('torch' in sys.modules, 'requests' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
