"""Pictures that stay in their files: an array of images that is read where it is indexed.

    images = ImageFiles(paths, size=(64, 64))
    images[:100]        # uint8 (100, 64, 64, 3), decoded now
    images.shape        # (N, 64, 64, 3), nothing decoded

It stands where a split holds its array of images. What is in memory is what was asked for last, however many
files there are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sightline.data.pictures import read_images
from sightline.errors import SightlineError

_BLOCK = 256  # images read at once where they are asked for one after the other


class ImageFiles:
    """The pictures at `paths`, each brought to `size` (height, width) as `read_image` does, when it is read.

    sums: (N, 2, 3) int64, of each picture what `pixel_sums` says: the statistics of a data set come from it.

    Indexed by image: a number, a slice, an array of places or of bools. As with an array, a number gives
    (H, W, 3) and anything else (K, H, W, 3). Raises SightlineError if a file cannot be read.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, paths: Sequence[str | Path], *, size: tuple[int, int], sums: np.ndarray) -> None:
        # One array of bytes: a list of paths would be copied, page by page, into each worker that counts
        # its references, and takes several times the memory.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.size = size
        self.sums = sums

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)."""
        return len(self), *self.size, 3

    def take(self, indices: np.ndarray | slice) -> ImageFiles:
        """Return the files at `indices`, in that order; none is read."""
        part = object.__new__(ImageFiles)
        part._paths, part.size, part.sums = self._paths[indices], self.size, self.sums[indices]
        return part

    def read(self, indices: np.ndarray | slice, *, threads: int | None = None) -> np.ndarray:
        """Return the images at `indices`, (K, H, W, 3) uint8; threads: by default one for each processor."""
        paths = [os.fsdecode(path) for path in self._paths[indices]]
        images = np.empty((len(paths), *self.size, 3), np.uint8)
        for place, (path, result) in enumerate(
            zip(paths, read_images(paths, size=self.size, threads=threads), strict=True)
        ):
            if isinstance(result, str):
                raise SightlineError(
                    f"{path} can no longer be read ({result}); it could when the data set was opened: "
                    "mend or remove it"
                )
            images[place] = result
        return images

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield all images in order, `size` at a time; the next block is read while this one is used."""
        places = [slice(start, start + size) for start in range(0, len(self), size)]
        with ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(self.read, place) for place in places[:1]]
            for place in [*places[1:], None]:
                block = coming.pop().result()
                if place is not None:
                    coming.append(ahead.submit(self.read, place))
                yield block

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks(_BLOCK):
            yield from block

    def __getitem__(self, key: int | slice | np.ndarray | Sequence[int]) -> np.ndarray:
        if isinstance(key, tuple):
            raise SightlineError(
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
