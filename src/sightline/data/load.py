"""One door to every data set: `load_data("cifar10")`, `load_data("pictures/")`, `load_data(mine)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sightline.data.cifar import load_cifar
from sightline.data.dataset import Dataset
from sightline.data.image_files import ImageFiles
from sightline.data.image_folder import load_folder
from sightline.data.npz import load_npz
from sightline.data.shapes.generate import load_shapes
from sightline.data.splits import stratified_subset
from sightline.errors import SightlineError, nearest


def _cifar10(data_dir: str | Path | None, seed: int) -> Dataset:
    return load_cifar("cifar10", data_dir=data_dir)


def _cifar100(data_dir: str | Path | None, seed: int) -> Dataset:
    return load_cifar("cifar100", data_dir=data_dir)


def _shapes(data_dir: str | Path | None, seed: int) -> Dataset:
    return load_shapes(seed=seed)


DATASETS: dict[str, Callable[[str | Path | None, int], Dataset]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "shapes": _shapes,
}
"""Data sets with a name: functions of `data_dir` and `seed`. Add your own, or hand over the function."""


def load_data(
    name: str | Path | Dataset | Callable[[], Dataset],
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    stream: bool | Literal["auto"] = "auto",
) -> Dataset:
    """Return a data set by name, from a folder of pictures or a `.npz` file, or from a function.

    name: a key of DATASETS, a path, a function of no arguments, or a Dataset, which is passed through.
    data_dir: where the files of a named data set lie. image_size (pixels) and test_fraction are for
    folders, as is stream (whether pictures stay in their files), test_fraction also for `.npz`: see
    `load_folder` and `load_npz`. limit: keep at most
    this many images of the training split, and of the test split, each class with its share.
    seed: of whatever is drawn: generated pictures, a split, the images that a limit keeps.
    Raises SightlineError for an unknown name, or whatever does not fit in the files.

    >>> load_data("shapes", limit=50).train.images.shape
    (50, 32, 32, 3)
    """
    if limit is not None and limit < 1:
        raise SightlineError(f"a limit of {limit} images leaves nothing; it needs 1 or more, or none")
    if not 0 < test_fraction < 1:
        raise SightlineError(f"test_fraction is {test_fraction}; it needs a share between 0 and 1")
    if isinstance(name, Dataset):
        dataset = name
    elif callable(name):
        dataset = name()
    elif name in DATASETS:
        dataset = DATASETS[str(name)](data_dir, seed)
    elif Path(name).is_dir():
        dataset = load_folder(
            name, image_size=image_size, test_fraction=test_fraction, seed=seed, stream=stream
        )
    elif Path(name).suffix == ".npz" and Path(name).is_file():
        dataset = load_npz(name, test_fraction=test_fraction, seed=seed)
    else:
        raise SightlineError(
            f"no data set {str(name)!r}, and no folder or .npz file at that path; "
            + nearest(str(name), list(DATASETS))
        )
    _check_size(dataset, image_size)
    if stream is True and not isinstance(dataset.train.images, ImageFiles):
        raise SightlineError(
            f"data set {dataset.name!r} is in memory and cannot be streamed; stream is for image folders"
        )
    return dataset if limit is None else _limited(dataset, limit, seed)


def _check_size(dataset: Dataset, image_size: int | None) -> None:
    if image_size is not None and dataset.image_size != (image_size, image_size):
        height, width = dataset.image_size
        raise SightlineError(
            f"data set {dataset.name!r} is {height}x{width} and is not resized to {image_size}; "
            "image_size is for image folders"
        )


def _limited(dataset: Dataset, limit: int, seed: int) -> Dataset:
    train = stratified_subset(dataset.train.labels, limit, seed=seed)
    test = stratified_subset(dataset.test.labels, limit, seed=seed)
    note = f"{len(train)} of {len(dataset.train)} training and {len(test)} of {len(dataset.test)} test images"
    return dataclasses.replace(
        dataset,
        train=dataset.train.take(train),
        test=dataset.test.take(test),
        source=f"{dataset.source} ({note})".strip(),
        truth=dataset.truth and dataset.truth.take(train, test),
    )
