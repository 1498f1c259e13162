"""Image folders: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` split by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sightline.data.dataset import Dataset, Split, stratified_split
from sightline.data.image_files import (
    ImageFiles,
    Interpolation,
    Resize,
    Resizing,
    memory_size,
    picture_sizes,
    picture_suffixes,
    read_hashed,
)
from sightline.errors import DamagedFileError, InputError
from sightline.files import shown_name

KEPT_SIZE = 256  # pixels: the longest side of pictures that are taken as they are
DEFAULT_SIZE = 64  # pixels: the side that other pictures are brought to
MEMORY_SHARE = 0.25  # of the memory, for decoded pictures; loading them takes up to three times as much

Files = list[tuple[str, int]]  # each with its label; a Path takes several times the memory of its text


def load_folder(
    folder: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    resize: Resize = "crop",
    interpolation: Interpolation = "bicubic",
    test_fraction: float = 0.2,
    seed: int = 0,
    stream: bool | Literal["auto"] = "auto",
) -> Dataset:
    """Return the pictures below `folder`; each folder in it is a class, in alphabetical order.

    With a folder `train`, its classes are trained on and those of `test`, `val` or `valid` (the first
    that exists) are tested; otherwise the share `test_fraction` of each class, drawn by `seed`. Files that
    cannot be read are left out and named in `Dataset.skipped`.

    Args:
        folder: The folder.
        image_size: Side of the square that pictures are brought to, or height and width. Without it they stay
            as they are if all have one size of at most 256 pixels, and become 64x64 otherwise.
        resize: What becomes of a picture of another shape: "crop" cuts off what hangs over the centre, "pad"
            fills up with grey, "stretch" distorts.
        interpolation: "bilinear" or "bicubic".
        test_fraction: Share of each class that is tested.
        seed: Of the split.
        stream: True leaves the pictures in their files and decodes them each time they are used, False keeps
            them in memory, "auto" streams what would take more than a quarter of the memory. Either way every
            file is decoded once now, to know what can be read, and all results are the same.

    Raises:
        InputError: Fewer than two classes, a class without pictures, a class that is tested and never trained
            on, or a name that is not UTF-8 text.
        DamagedFileError: A class with no picture that can be read.
    """
    root = Path(folder)
    train_root, test_root = _roots(root)
    class_names = _class_folders(train_root)
    if len(class_names) < 2:
        raise InputError(
            f"{train_root} has {len(class_names)} class folders; a data set needs two or more, each with its "
            "pictures (CLASS/*, or train/CLASS/* and test/CLASS/*)"
        )
    files = _list_files(train_root, class_names, class_names)
    tested = _list_files(test_root, _class_folders(test_root), class_names) if test_root else []
    size = size_pair(image_size) if image_size else _common_size([path for path, _ in files + tested])
    resizing = Resizing(size, resize, interpolation)
    if stream == "auto":
        stream = 3 * size[0] * size[1] * len(files + tested) > MEMORY_SHARE * memory_size()
    train, skipped = _read(root, files, resizing, stream)
    if test_root:
        test, skipped_too = _read(root, tested, resizing, stream)
        skipped += skipped_too
    else:
        chosen = stratified_split(train.labels, test_fraction=test_fraction, seed=seed)
        train, test = train.take(chosen[0]), train.take(chosen[1])
    source = f"{root}, streamed" if stream else str(root)
    return Dataset(
        root.resolve().name,
        class_names,
        train,
        test,
        source=source,
        skipped=tuple(skipped),
        resizing=resizing,
    )


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


def _list_files(root: Path, folders: tuple[str, ...], class_names: tuple[str, ...]) -> Files:
    files: Files = []
    if not folders:
        raise InputError(f"{root} has no class folders; it needs those of train/, or remove it")
    for name in folders:
        if name not in class_names:
            raise InputError(f"{root} has the class {name!r}, which is not in train/; add it there")
        found = [path for path in sorted((root / name).rglob("*")) if _is_picture(path, root)]
        if not found:
            raise InputError(f"the class folder {root / name} has no picture; add some or remove it")
        files += [(str(path), class_names.index(name)) for path in found]
    return files


def _is_picture(path: Path, root: Path) -> bool:
    hidden = any(part[0] == "." for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in picture_suffixes() and path.is_file()


def _common_size(paths: list[str]) -> tuple[int, int]:
    sizes = {size for size in picture_sizes(paths) if not isinstance(size, str)}
    if len(sizes) == 1 and max(only := sizes.pop()) <= KEPT_SIZE:
        return only
    return DEFAULT_SIZE, DEFAULT_SIZE


def _read(root: Path, files: Files, resizing: Resizing, stream: bool) -> tuple[Split, list[str]]:
    """The pictures that can be read, and a line for each that cannot."""
    paths = [path for path, _ in files]
    results = read_hashed(paths, resizing, sums=stream)
    skipped, whole, read = [], [], set()
    for number, ((path, label), result) in enumerate(zip(files, results, strict=True)):
        if isinstance(result, str):
            skipped.append(f"{shown_name(Path(path).relative_to(root))}: {result}")
        else:
            whole.append(number)
            read.add(label)
    for (path, label), result in zip(files, results, strict=True):
        if label not in read:
            name = shown_name(Path(path).relative_to(root))
            raise DamagedFileError(
                f"no picture in the class folder of {name} can be read ({result}); "
                "repair it or remove the folder"
            )
    found = [result for result in results if not isinstance(result, str)]
    stacked = np.stack([picture for picture, _ in found])
    images: np.ndarray | ImageFiles = stacked
    if stream:
        how: dict[str, Any] = {"resize": resizing.rule, "interpolation": resizing.interpolation}
        images = ImageFiles([paths[number] for number in whole], size=resizing.size, sums=stacked, **how)
    names = [Path(paths[number]).relative_to(root).as_posix() for number in whole]
    table = pd.DataFrame({"path": [shown_name(name) for name in names], "hash": [own for _, own in found]})
    return Split(images, np.array([files[number][1] for number in whole]), table), skipped
