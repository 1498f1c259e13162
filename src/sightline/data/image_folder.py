"""Image folders: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` split by seed."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sightline.data.dataset import Dataset, Split, stratified_split
from sightline.data.image_files import (
    Interpolation,
    Resize,
    Resizing,
    memory_size,
    picture_sizes,
    picture_suffixes,
)
from sightline.data.picture_cache import open_pictures
from sightline.data.splits import grouped_split, near_duplicate_groups, small_pictures
from sightline.errors import DamagedFileError, InputError
from sightline.files import shown_name

KEPT_SIZE = 256  # pixels: the longest side of pictures that are taken as they are
DEFAULT_SIZE = 64  # pixels: the side that other pictures are brought to
MEMORY_SHARE = 0.25  # of the memory, for decoded pictures; loading them takes up to three times as much
_HEIF = (".heic", ".heif")
_LISTED = 20  # files of one kind that are named one by one
_BLOCK = 500  # images that are made small together

Files = list[tuple[str, int]]  # each with its label; a Path takes several times the memory of its text


@dataclass(frozen=True)
class Reading:
    """How pictures in files become a data set.

    Attributes:
        image_size: Side of the square that pictures are brought to, or height and width. Without it they stay
            as they are if all have one size of at most 256 pixels, and become 64x64 otherwise.
        resize: What becomes of a picture of another shape: "crop" cuts off what hangs over the centre, "pad"
            fills up with grey, "stretch" distorts.
        interpolation: "bilinear" or "bicubic".
        test_fraction: Share of each class that is tested, where the data have no test split; 1 for all.
        seed: Of the split.
        stream: True leaves the pictures in their files and decodes them each time they are used, False keeps
            them in memory, "auto" streams what would take more than a quarter of the memory. Either way every
            file is decoded once, to know what can be read, and all results are the same.
        keep_together: "near-duplicates" keeps pictures that look alike in one split, where it is drawn here.
    """

    image_size: int | tuple[int, int] | None = None
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"
    test_fraction: float = 0.2
    seed: int = 0
    stream: bool | Literal["auto"] = "auto"
    keep_together: Literal["", "near-duplicates"] = ""

    @property
    def of_pictures(self) -> dict[str, Any]:
        """What `load_data` is told where the split and the labels are known already."""
        known = ("image_size", "resize", "interpolation", "seed", "stream")
        return {name: getattr(self, name) for name in known}

    def resizing(self, places: list[str]) -> Resizing:
        """Return how these pictures are brought to one size: that asked for, or the one that fits them."""
        size = size_pair(self.image_size) if self.image_size else _common_size(places)
        return Resizing(size, self.resize, self.interpolation)

    def streams(self, resizing: Resizing, count: int) -> bool:
        """Return whether so many pictures stay in their files; "auto": if memory would be short."""
        if self.stream != "auto":
            return self.stream
        return 3 * resizing.size[0] * resizing.size[1] * count > MEMORY_SHARE * memory_size()


def load_folder(folder: str | Path, reading: Reading) -> Dataset:
    """Return the pictures below `folder`; each folder in it is a class, in alphabetical order.

    With a folder `train`, its classes are trained on and those of `test`, `val` or `valid` (the first
    that exists) are tested; otherwise a share of each class, drawn by seed. Files that
    are not read are named in `Dataset.skipped`, but for hidden ones; what else was decided, such as class
    folders without a picture, is in `Dataset.notes`.

    Raises:
        InputError: Fewer than two classes with pictures, a class that is tested and never trained on, or a
            name that is not UTF-8 text.
        DamagedFileError: A class with no picture that can be read.
    """
    root = Path(folder)
    train_root, test_root = _roots(root)
    notes = _other_ways(root)
    skipped: list[str] = []
    found = {name: _pictures(root, train_root / name, skipped) for name in _class_folders(train_root)}
    class_names = tuple(name for name, paths in found.items() if paths)
    notes += [
        f"the class folder {train_root / name} has no picture: skipped" for name in found if not found[name]
    ]
    if len(class_names) < 2:
        raise InputError(
            f"{train_root} has {len(class_names)} class folders with pictures; a data set needs two or more, "
            "each with its pictures (CLASS/*, or train/CLASS/* and test/CLASS/*)"
            + "".join(f"; {n}" for n in notes)
        )
    files = [(path, label) for label, name in enumerate(class_names) for path in found[name]]
    tested = _tested(root, test_root, class_names, skipped) if test_root else []
    resizing = reading.resizing([path for path, _ in files + tested])
    streamed = reading.streams(resizing, len(files + tested))
    train = _read(root, files, resizing, streamed, skipped)
    if test_root:
        test = _read(root, tested, resizing, streamed, skipped)
    else:
        train, test, more = draw_split(train, class_names, reading)
        notes += more
    source = f"{root}, streamed" if streamed else str(root)
    return Dataset(
        root.resolve().name,
        class_names,
        train,
        test,
        source=source,
        skipped=tuple(skipped),
        notes=tuple(notes),
        resizing=resizing,
    )


def draw_split(whole: Split, class_names: Sequence[str], reading: Reading) -> tuple[Split, Split, list[str]]:
    """Return a training and a test split, and a line for each thing that somebody may want to know.

    Each class has its share in both. Groups (the column `group` of the metadata) and near-duplicates stay
    together, where there are groups, or where that is asked for.
    """
    keep_together, test_fraction, seed = reading.keep_together, reading.test_fraction, reading.seed
    if keep_together not in ("", "near-duplicates"):
        raise InputError(f"keep_together is {keep_together!r}; known: near-duplicates, or nothing")
    if test_fraction == 1:
        return whole.take(np.arange(0)), whole, ["every image is tested, and none is for training"]
    groups, notes = whole.groups, []
    if keep_together:
        small = np.concatenate([small_pictures(block) for block in whole.blocks(_BLOCK)])
        alike = near_duplicate_groups(small)
        extra = len(alike) - len(np.unique(alike))
        notes.append(f"near-duplicates are kept in one split: {extra} images look like another one")
        groups = alike if groups is None else _joined(groups, alike)
    if groups is None:
        chosen = stratified_split(whole.labels, test_fraction=test_fraction, seed=seed)
    else:
        chosen = grouped_split(whole.labels, groups, test_fraction=test_fraction, seed=seed)
        share = len(chosen[1]) / len(whole)
        notes.append(
            f"{len(np.unique(groups))} groups, none of them in both splits; {100 * share:.1f} % is tested"
        )
    train, test = whole.take(chosen[0]), whole.take(chosen[1])
    for label, name in enumerate(class_names):
        if label not in test.labels:
            number = int((train.labels == label).sum())
            notes.append(f"class {name!r} has no test image; trained on: {number}")
    return train, test, notes


def _joined(groups: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Groups of what hangs together by either of two groupings."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = (np.unique(one, return_inverse=True)[1] for one in (groups, alike))
    count = first.max() + 1
    size = count + second.max() + 1
    links = coo_array((np.ones(len(first)), (first, count + second)), shape=(size, size))
    return connected_components(links, directed=False)[1][first]


def size_pair(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of a side or of a pair; anything else raises InputError."""
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and 0 < side < 2**15 for side in sides):
        raise InputError(
            f"image_size is {image_size!r}; it needs the side of a square in pixels, or height and width"
        )
    return sides[0], sides[1]


def _roots(root: Path) -> tuple[Path, Path | None]:
    """The folder of classes to train on, and that to test on, if there is one."""
    if not (root / "train").is_dir():
        return root, None
    tests = [root / name for name in ("test", "val", "valid") if (root / name).is_dir()]
    return root / "train", tests[0] if tests else None


def _class_folders(root: Path) -> tuple[str, ...]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    for name in names:
        if shown_name(name) != name:
            raise InputError(
                f"the name of the class folder {shown_name(root / name)} is not UTF-8 text; rename it"
            )
    return tuple(names)


def _other_ways(root: Path) -> list[str]:
    manifest = root / "labels.csv"
    return (
        [f"{manifest} lies beside the pictures and is not read; to load by it: --data {manifest}"]
        if manifest.is_file()
        else []
    )


def _pictures(root: Path, folder: Path, skipped: list[str]) -> list[str]:
    """The picture files of a class; a line for each other file, or for many of a kind, goes to `skipped`."""
    found, others = [], defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if any(part[0] == "." for part in path.relative_to(root).parts) or path.is_dir():
            continue
        suffix = path.suffix.lower()
        if suffix in picture_suffixes() and path.is_file():
            found.append(str(path))
        else:
            others[suffix].append(shown_name(path.relative_to(root)))
    for suffix, names in others.items():
        reason = "no picture file"
        if suffix in _HEIF and importlib.util.find_spec("pillow_heif") is None:
            reason = "needs pillow-heif; pip install 'sightline-vision[heic]'"
        if len(names) > _LISTED:
            skipped.append(
                f"{len(names)} files ending in {suffix or 'nothing'} (the first: {names[0]}): {reason}"
            )
        else:
            skipped += [f"{name}: {reason}" for name in names]
    return found


def _tested(root: Path, test_root: Path, class_names: tuple[str, ...], skipped: list[str]) -> Files:
    folders = _class_folders(test_root)
    if not folders:
        raise InputError(f"{test_root} has no class folders; it needs those of train/, or remove it")
    files: Files = []
    for name in folders:
        found = _pictures(root, test_root / name, skipped)
        if found and name not in class_names:
            raise InputError(f"{test_root} has the class {name!r}, which is not in train/; add it there")
        files += [(path, class_names.index(name)) for path in found]
    if not files:
        raise InputError(f"{test_root} has no picture; add some or remove it")
    return files


def _common_size(paths: list[str]) -> tuple[int, int]:
    sizes = {size for size in picture_sizes(paths) if not isinstance(size, str)}
    if len(sizes) == 1 and max(only := sizes.pop()) <= KEPT_SIZE:
        return only
    return DEFAULT_SIZE, DEFAULT_SIZE


def _read(root: Path, files: Files, resizing: Resizing, stream: bool, skipped: list[str]) -> Split:
    """The pictures that can be read; a line for each that cannot goes to `skipped`."""
    opened = open_pictures([path for path, _ in files], resizing, stream=stream, root=root)
    read = {files[row][1] for row in opened.rows}
    for number, reason in opened.failures.items():
        path, label = files[number]
        name = shown_name(Path(path).relative_to(root))
        if label not in read:
            raise DamagedFileError(
                f"no picture in the class folder of {name} can be read ({reason}); "
                "repair it or remove the folder"
            )
        skipped.append(f"{name}: {reason}")
    names = [shown_name(Path(files[row][0]).relative_to(root).as_posix()) for row in opened.rows]
    table = pd.DataFrame({"path": names, "hash": opened.hashes})
    return Split(opened.images, np.array([files[row][1] for row in opened.rows]), table)
