"""One door to every data set: `load_data("cifar10")`, `load_data("pictures/")`, `load_data(mine)`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline.data.cifar import load_cifar
from sightline.data.dataset import Dataset, stratified_subset
from sightline.data.hugging_face import is_hugging_face, load_hugging_face
from sightline.data.image_files import ImageFiles, Interpolation, Resize
from sightline.data.image_folder import Reading, load_folder, size_pair
from sightline.data.manifest import MANIFESTS, Columns, load_manifest
from sightline.data.npz import load_npz
from sightline.data.planting import is_planted, load_planted
from sightline.data.shapes.generate import load_shapes
from sightline.data.tar_shards import is_shards, load_shards
from sightline.errors import InputError, InputTypeError, nearest
from sightline.extensions import plugins, resolve


def _cifar10(*, data_dir: str | Path | None) -> Dataset:
    return load_cifar("cifar10", data_dir=data_dir)


def _cifar100(*, data_dir: str | Path | None) -> Dataset:
    return load_cifar("cifar100", data_dir=data_dir)


def _shapes(*, seed: int) -> Dataset:
    return load_shapes(seed=seed)


DATASETS: dict[str, Callable[..., Dataset]] = {"cifar10": _cifar10, "cifar100": _cifar100, "shapes": _shapes}
"""Data sets by name: functions that return a `Dataset`.

One is given `data_dir` and `seed` if it has arguments with these names.
"""


Kind = Literal["function", "planted", "hugging_face", "shards", "folder", "manifest", "npz", "unknown"]


def kind_of(name: str | Path) -> Kind:
    """Return what the name of a data set stands for.

    "function" is a key of DATASETS, a plugin or module:function.

    >>> kind_of("cifar10"), kind_of("hf/beans"), kind_of("nowhere.csv")
    ('function', 'hugging_face', 'unknown')
    """
    path = Path(name)
    if _is_function(str(name)):
        return "function"
    if is_hugging_face(name):
        return "hugging_face"
    if is_shards(name):
        return "shards"
    if path.is_dir():
        return "planted" if is_planted(path) else "folder"
    if path.suffix.lower() in MANIFESTS and path.is_file():
        return "manifest"
    return "npz" if path.suffix == ".npz" and path.is_file() else "unknown"


def is_of_files(name: str | Path) -> bool:
    """Return whether a data set's pictures are in files, and so brought to any size that is asked for."""
    return kind_of(name) not in ("function", "npz", "unknown")


def load_data(
    name: str | Path | Dataset | Callable[..., Dataset],
    *,
    data_dir: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: Resize = "crop",
    interpolation: Interpolation = "bicubic",
    limit: int | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    stream: bool | Literal["auto"] = "auto",
    path_column: str = "path",
    label_column: str = "label",
    split_column: str = "split",
    group: str = "",
    keep_together: Literal["", "near-duplicates"] = "",
    pictures: bool = True,
    class_names: Sequence[str] = (),
    trust: Collection[str] | None = None,
) -> Dataset:
    """Return a data set by name, from pictures in files, a manifest or a `.npz` file, or from a function.

    Args:
        name: A key of :data:`DATASETS`, a folder, a manifest (`.csv`, `.parquet`), tar files as WebDataset
            writes them (one, a folder of them, or `train-{000..012}.tar`), `hf/NAME` or a saved folder of the
            library `datasets`, an `.npz` file, a plugin's name, "package.module:function", a function, or a
            Dataset, which is passed through. A function is given `data_dir` and `seed` if it has arguments
            with these names.
        data_dir: Where the files of a named data set lie.
        image_size: Side in pixels, or height and width, that a folder's pictures are brought to; see
            `load_folder`.
        resize: "crop", "pad" or "stretch": what becomes of a folder's pictures of another shape.
        interpolation: "bilinear" or "bicubic", where a folder's pictures are scaled.
        limit: Keep at most this many images of the training split, and of the test split, each class with its
            share.
        seed: Of whatever is drawn: generated pictures, a split, the images that a limit keeps.
        test_fraction: Share of a folder, a manifest or an `.npz` file that is tested, where it has no test
            split; 1 tests all.
        stream: Whether a folder's pictures stay in their files; see `load_folder`.
        path_column, label_column, split_column: What the columns of a manifest are called; see
            `load_manifest`.
        group: The manifest's column of groups, none of which is in both splits; by default "group", if there
            is one.
        keep_together: "near-duplicates" keeps pictures that look alike in one split, where it is drawn here.
        pictures: False for the labels of a manifest alone; see `load_manifest`.
        class_names: The classes in the order of a model's outputs, where that is another one than the data's;
            those without an image too.
        trust: Modules that may be imported for a name that stands in a file; None for a name of your own.

    Raises:
        InputError: An unknown name, or a value or a file's content that does not fit.
        UntrustedError: The name would import a module that is not in `trust`.

    >>> load_data("shapes", limit=50).train.images.shape
    (50, 32, 32, 3)
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} images leaves nothing; it needs 1 or more, or none")
    if not 0 < test_fraction <= 1:
        raise InputError(f"test_fraction is {test_fraction}; it needs a share above 0, and 1 tests all")
    if not pictures and not (isinstance(name, str | Path) and Path(name).suffix.lower() in MANIFESTS):
        raise InputError(
            f"{name} is no table of labels (.csv, .parquet), and only such data needs no pictures"
        )
    size = None if image_size is None else size_pair(image_size)
    reading = Reading(size, resize, interpolation, test_fraction, seed, stream, keep_together)
    columns = Columns(path_column, label_column, split_column, group)
    if isinstance(name, Dataset):
        dataset = name
    elif callable(name) or _is_function(str(name)):
        made = resolve("data", str(name) if isinstance(name, Path) else name, DATASETS, trust=trust)
        dataset = _called(name, made, {"data_dir": data_dir, "seed": seed})
    elif (kind := kind_of(name)) == "npz":
        dataset = load_npz(name, test_fraction=test_fraction, seed=seed)
    elif kind == "planted":
        dataset = load_planted(name, **reading.of_pictures)
    elif kind == "folder":
        dataset = load_folder(name, reading)
    elif kind == "manifest":
        dataset = load_manifest(name, reading, columns=columns, pictures=pictures)
    elif kind == "shards":
        dataset = load_shards(name, reading, columns=columns)
    elif kind == "hugging_face":
        dataset = load_hugging_face(name, reading, columns=columns)
    else:
        raise InputError(
            f"no data set {str(name)!r}, and no folder, .csv, .parquet, .tar or .npz file at that path; "
            + nearest(str(name), [*DATASETS, *plugins("data")])
        )
    _check_size(dataset, image_size)
    if stream is True and not isinstance(dataset.train.images, ImageFiles):
        raise InputError(
            f"data set {dataset.name!r} is in memory and cannot be streamed; stream is for image folders"
        )
    if class_names:
        dataset = _in_order_of(dataset, tuple(class_names))
    return dataset if limit is None else _limited(dataset, limit, seed)


def _in_order_of(dataset: Dataset, class_names: tuple[str, ...]) -> Dataset:
    """The data set with its classes in another order, and with those that it has no image of."""
    if missing := [name for name in dataset.class_names if name not in class_names]:
        raise InputError(
            f"data set {dataset.name!r} has the classes {', '.join(missing)}, which are not among the "
            f"class names given: {', '.join(class_names)}"
        )
    number = np.array([class_names.index(name) for name in dataset.class_names])
    splits = {
        word: dataclasses.replace(split, labels=number[split.labels])
        for word, split in (("train", dataset.train), ("test", dataset.test))
    }
    return dataclasses.replace(dataset, class_names=class_names, **splits)


def _is_function(name: str) -> bool:
    """Whether a name is one of ours, a plugin's or module:function; a path with a colon stays a path."""
    module, colon, _ = name.partition(":")
    spelled = bool(colon) and module.replace(".", "").isidentifier() and not Path(name).exists()
    return name in DATASETS or name in plugins("data") or spelled


def _called(name: Any, function: Any, offered: dict[str, Any]) -> Dataset:
    if not callable(function):
        raise InputTypeError(
            f"data {name!r} is of type {type(function).__name__}, not a function of a Dataset"
        )
    parameters = inspect.signature(function).parameters
    dataset = function(**{key: value for key, value in offered.items() if key in parameters})
    if not isinstance(dataset, Dataset):
        raise InputTypeError(f"data {name!r} returned {type(dataset).__name__}; it has to return a Dataset")
    return dataset


def _check_size(dataset: Dataset, image_size: int | tuple[int, int] | None) -> None:
    if image_size is not None and dataset.image_size != size_pair(image_size):
        height, width = dataset.image_size
        wanted = image_size if isinstance(image_size, int) else "{}x{}".format(*image_size)
        raise InputError(
            f"data set {dataset.name!r} is {height}x{width} and is not resized to {wanted}; "
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
