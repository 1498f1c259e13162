"""Picture files of any common kind, read as uint8 RGB: one by one, many at once, or when they are indexed.

    images = ImageFiles(paths, size=(64, 64), sums=sums)  # resize="crop" or "pad" or "stretch"
    images[:100]        # uint8 (100, 64, 64, 3), decoded now
    images.shape        # (N, 64, 64, 3), nothing decoded

`ImageFiles` stands where a split holds its array of images. What is in memory is what was asked for last,
however many files there are.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from sightline import logs
from sightline.errors import DamagedFileError, InputError, nearest
from sightline.files import check_regular, shown_name

_AT_ONCE = 512  # tasks handed to the threads: each takes memory of its own until it is done
_BLOCK = 256  # images read at once where they are asked for one after the other
_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 swap width and height
_PADDING = (128, 128, 128)  # near the mean of photographs, so that a model meets it as about 0

_MEMBER = "\0"  # between a file and the span of a picture inside it; no path has this character

Resize = Literal["crop", "pad", "stretch"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Resizing:
    """How a picture of any size and shape is brought to one size; scaling is antialiased.

    Attributes:
        size: Height and width in pixels.
        rule: "crop" scales until the picture covers the size and cuts off what hangs over, on both sides
            alike; "pad" scales until it fits inside and lays it in the middle of grey; "stretch" scales
            height and width each by its own factor.
        interpolation: "bilinear" or "bicubic".

    Raises:
        InputError: A value that is not one of these.
    """

    size: tuple[int, int]
    rule: Resize = "crop"
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        for name, known in (("resize", get_args(Resize)), ("interpolation", get_args(Interpolation))):
            value = self.rule if name == "resize" else self.interpolation
            if value not in known:
                raise InputError(f"{name} is {value!r}; {nearest(str(value), list(known))}")

    def apply(self, picture: Image.Image) -> Image.Image:
        """Return the picture at this size; one that has it already is returned as it is."""
        if (picture.height, picture.width) == self.size:
            return picture
        size = self.size[1], self.size[0]
        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        method = filters[self.interpolation]
        if self.rule == "crop":
            return ImageOps.fit(picture, size, method=method)
        if self.rule == "pad":
            return ImageOps.pad(picture, size, method=method, color=_PADDING)
        return picture.resize(size, method)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    with contextlib.suppress(ImportError):  # reads .heic where it is installed
        import pillow_heif  # pyright: ignore[reportMissingImports]

        pillow_heif.register_heif_opener()
    # Pillow hands EPS to Ghostscript, a program that runs what the file says.
    return tuple(sorted(set(Image.OPEN) - {"EPS"}))


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Return the endings of picture files, such as ".png", in lower case."""
    formats = _formats()  # first: it may register more endings
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in formats)


def read_image(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    resize: Resize = "crop",
    interpolation: Interpolation = "bicubic",
) -> np.ndarray:
    """Return the picture at `path`, uint8 (H, W, 3) in RGB.

    Turned upright as its EXIF tag says; transparent pixels laid on white; 16-bit grey scaled to 8.

    Args:
        path: The file.
        size: Height and width to bring it to, by antialiased scaling.
        resize: What becomes of another shape: "crop" cuts off what hangs over, "pad" fills up with grey,
            "stretch" distorts.
        interpolation: "bilinear" or "bicubic".

    Raises:
        DamagedFileError: It cannot be read; the error has the reason.
        InputError: An unknown `resize` or `interpolation`.
    """
    resizing = Resizing(size, resize, interpolation) if size else None
    result = read_images([Path(path)], resizing)[0]
    if isinstance(result, str):
        raise DamagedFileError(f"cannot read {path} as a picture: {result}")
    return result


def picture_inside(file: str | Path, offset: int, length: int) -> str:
    """Return the place of a picture that is a span of a larger file: it stands where a path does.

    >>> picture_inside("shard.tar", 512, 9000)
    'shard.tar\\x00512\\x009000'
    """
    return _MEMBER.join((str(file), str(offset), str(length)))


def file_of(place: str | Path) -> str:
    """Return the path of the file that a picture is in, or that it is."""
    return os.fspath(place).partition(_MEMBER)[0]


def _content(place: str | Path) -> bytes:
    """The bytes of a picture: of a file, or of its span of one."""
    path, *span = os.fspath(place).split(_MEMBER)
    check_regular(path)  # a pipe would be waited for
    if not span:
        return Path(path).read_bytes()
    offset, length = int(span[0]), int(span[1])
    with Path(path).open("rb") as file:
        file.seek(offset)
        content = file.read(length)
    if len(content) < length:
        raise ValueError("the file ends before the picture does")
    return content


def content_hash(content: bytes | memoryview) -> str:
    """Return 16 hexadecimal digits that tell pictures apart: of a file's bytes, or of an array's pixels."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def read_images(
    paths: Sequence[str | Path], resizing: Resizing | None, *, threads: int | None = None
) -> list[np.ndarray | str]:
    """Return each picture as `read_image` does, or the reason why it cannot be read, in one line.

    threads: by default one for each processor.
    """
    return _in_threads(lambda path: _decode(path, resizing), paths, threads)


def read_hashed(
    paths: Sequence[str | Path], resizing: Resizing, *, sums: bool = False
) -> list[tuple[np.ndarray, str] | str]:
    """Return each picture brought to one size, and the hash of its file, or the reason why it cannot be read.

    sums: what `pixel_sums` says of the picture in its place; as many pictures are in memory at once as the
    machine has processors.
    """

    def read(path: str | Path) -> tuple[np.ndarray, str]:
        content = _content(path)
        pixels = _decode(path, resizing, content)
        return pixel_sums(pixels[None]) if sums else pixels, content_hash(content)

    return _in_threads(read, paths)


def file_hashes(paths: Sequence[str | Path]) -> list[str]:
    """Return the hash of each file's bytes; of one that cannot be read, nothing."""

    def hashed(path: str | Path) -> tuple[str]:
        return (content_hash(_content(path)),)

    hashes = _in_threads(hashed, paths)
    return ["" if isinstance(one, str) else one[0] for one in hashes]


def pixel_sums(images: np.ndarray) -> np.ndarray:
    """Return the sum of the pixels and that of their squares per channel: (2, 3) int64, exact.

    images: (N, H, W, 3) uint8.
    """
    values = np.arange(256)
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)]
    return np.stack([values @ np.stack(counts, axis=1), values**2 @ np.stack(counts, axis=1)])


def picture_sizes(paths: Sequence[str | Path]) -> list[tuple[int, int] | str]:
    """Return height and width of each upright picture from its header alone, or the reason why not."""
    return _in_threads(_size, paths)


def _in_threads(
    read: Callable[[str | Path], Any], paths: Sequence[str | Path], threads: int | None = None
) -> list[Any]:
    def attempt(path: str | Path) -> Any:
        try:
            return read(path)
        except Exception as error:  # a broken file can make a decoder raise anything
            name = Path(file_of(path)).name
            said = re.sub(r"<_io\.BytesIO object at \w+>", lambda _: repr(name), str(error))
            lines = said.replace(str(path), name).splitlines()
            return lines[0] if lines else type(error).__name__

    # Filters belong to the process, not to a thread: they are set once, around all threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a decoder cannot use is an exception
        if threads == 1:
            return [attempt(path) for path in paths]
        results: list[Any] = []
        with (
            logs.stage("reading pictures", total=len(paths)) as progress,
            ThreadPoolExecutor(threads or os.cpu_count()) as pool,
        ):
            for start in range(0, len(paths), _AT_ONCE):
                results += pool.map(attempt, paths[start : start + _AT_ONCE])
                progress.done = len(results)
        return results


def _open(path: str | Path, content: bytes | None = None) -> Image.Image:
    if content is None and _MEMBER in os.fspath(path):
        content = _content(path)
    if content is None:
        check_regular(path)  # a pipe would be waited for
    image = Image.open(path if content is None else io.BytesIO(content), formats=_formats())
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:  # a warning to Pillow, an end to us
        image.close()
        raise ValueError(f"{pixels} pixels are more than the limit of {Image.MAX_IMAGE_PIXELS}")
    return image


def _size(path: str | Path) -> tuple[int, int]:
    with _open(path) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def _decode(path: str | Path, resizing: Resizing | None, content: bytes | None = None) -> np.ndarray:
    """The picture of a file, or of its bytes where they are at hand."""
    with _open(path, content) as image:
        if resizing:
            side = 2 * max(resizing.size)
            image.draft("RGB", (side, side))  # JPEG: decode no finer than is needed
        picture = _to_rgb(ImageOps.exif_transpose(image))
    return np.array(resizing.apply(picture) if resizing else picture, np.uint8)  # (H, W, 3)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("grey values in floating point have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey values with 32 bits have no known range; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


class ImageFiles:
    """The pictures at `paths`, each brought to `size` as `read_image` does, when it is read.

    Indexed by image: a number, a slice, an array of indices or of bools. As with an array, a number gives
    (H, W, 3) and anything else (K, H, W, 3).

    Args:
        paths: N files, or places of `picture_inside`.
        size: Height and width in pixels.
        sums: (N, 2, 3) int64, of each picture what `pixel_sums` says; the statistics of a data set are made
            of them.
        resize, interpolation: As in `read_image`.

    Raises:
        DamagedFileError: When a file is read that cannot be.
        InputError: An unknown `resize` or `interpolation`.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        size: tuple[int, int],
        sums: np.ndarray,
        resize: Resize = "crop",
        interpolation: Interpolation = "bicubic",
    ) -> None:
        # One array of bytes: a list of paths would be copied, page by page, into each worker that counts
        # its references, and takes several times the memory.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.resizing = Resizing(size, resize, interpolation)
        self.sums = sums

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.resizing.size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)."""
        return len(self), *self.size, 3

    def hashes(self) -> list[str]:
        """Return the hash of each file's bytes."""
        return file_hashes([os.fsdecode(path) for path in self._paths])

    def take(self, indices: np.ndarray | slice) -> ImageFiles:
        """Return the files at `indices`, in that order; none is read."""
        part = object.__new__(ImageFiles)
        part._paths, part.resizing, part.sums = self._paths[indices], self.resizing, self.sums[indices]
        return part

    def read(self, indices: np.ndarray | slice, *, threads: int | None = None) -> np.ndarray:
        """Return the images at `indices`, (K, H, W, 3) uint8; threads: by default one for each processor."""
        paths = [os.fsdecode(path) for path in self._paths[indices]]
        images = np.empty((len(paths), *self.size, 3), np.uint8)
        for number, (path, result) in enumerate(
            zip(paths, read_images(paths, self.resizing, threads=threads), strict=True)
        ):
            if isinstance(result, str):
                raise DamagedFileError(
                    f"{shown_name(file_of(path))} can no longer be read ({result}); it could when the data "
                    "set was opened: repair or remove it"
                )
            images[number] = result
        return images

    def stamps(self) -> list[str]:
        """Return for each picture what changes when its pixels do: its file's path, size, time; resizing."""
        found = [(path, Path(file_of(path)).stat()) for path in map(os.fsdecode, self._paths)]
        return [f"{path!r} {one.st_size} {one.st_mtime_ns} {self.resizing}" for path, one in found]

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield all images in order, `size` at a time; the next block is read while this one is used."""
        parts = [slice(start, start + size) for start in range(0, len(self), size)]
        with ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(self.read, part) for part in parts[:1]]
            for part in [*parts[1:], None]:
                block = coming.pop().result()
                if part is not None:
                    coming.append(ahead.submit(self.read, part))
                yield block

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks(_BLOCK):
            yield from block

    def __getitem__(self, key: int | slice | np.ndarray | Sequence[int]) -> np.ndarray:
        if isinstance(key, tuple):
            raise InputError(
                "pictures that stay in their files are indexed by image alone; write images[:100][..., 0]"
            )
        if isinstance(key, int | np.integer):
            return self.read(np.array([key]))[0]
        return self.read(key if isinstance(key, slice) else np.asarray(key))

    # numpy asks for this where it needs an array: the whole of it is read then.
    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)


def memory_size() -> int:
    """Return the bytes of memory that this process can count on: the machine's, or its container's."""
    sizes = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(ValueError, OSError):  # no such file, or "max"
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes, default=8 << 30)
