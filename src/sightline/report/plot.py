"""A drawing that a notebook shows by itself.

A notebook shows a bare matplotlib figure only after `%matplotlib inline`, and one made with pyplot
sometimes twice; a `Plot` is shown once, anywhere. Neither pyplot nor torch is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from sightline.errors import SightlineError
from sightline.files import write_atomic
from sightline.report.canvas import Drawing, png, svg
from sightline.report.sheets import Row, sheet

_TILE_PIXELS = 160
_FORMATS: dict[str, Callable[[Drawing], bytes]] = {".png": png, ".svg": svg}


@dataclass(frozen=True, eq=False)
class Plot:
    """What every `plot_*` function returns: the last line of a cell shows it, `save` writes it.

    drawing: a function that draws into a `matplotlib.figure.Figure` that it is given. inch: how many
    pixels of a page an inch of it takes; each of them has four dots, for screens of high resolution.
    """

    drawing: Drawing = field(repr=False)
    inch: int = 96

    def save(self, path: str | Path) -> Path:
        """Write the drawing as PNG or SVG, by the ending of `path`, whole or not at all; return the path.

        Raises SightlineError for another ending, or if the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in _FORMATS:
            raise SightlineError(f"{path} ends in {path.suffix!r}; a plot is saved as .png or .svg")
        picture = _FORMATS[path.suffix.lower()](self.drawing)
        try:
            write_atomic(path, lambda file: file.write(picture))
        except OSError as error:
            raise SightlineError(
                f"{path} cannot be written ({error.strerror}); choose another place"
            ) from error
        return path

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        picture = png(self.drawing, dpi=2 * self.inch)
        width, height = struct.unpack(">II", picture[16:24])  # a PNG begins with its size
        return picture, {"width": width // 2, "height": height // 2}


def plot_sheet(rows: Sequence[Row], captions: Sequence[str] = (), *, per_line: int = 5) -> Plot:
    """Return rows of tiles, large enough to be looked at in a notebook; see `sheet`."""
    return Plot(partial(sheet, rows=rows, captions=captions, per_line=per_line), inch=_TILE_PIXELS)


def check_images(images: np.ndarray, number: int | None = None, of: str = "") -> None:
    """Accept uint8 (N, H, W, 3) with at least one image, and `number` of them, one for each `of` these."""
    # By its looks, not its type: a data set's images can stay in their files until they are taken.
    if getattr(images, "dtype", None) != np.uint8 or images.shape[3:] != (3,):
        came = f"{getattr(images, 'dtype', type(images).__name__)} {tuple(getattr(images, 'shape', ()))}"
        raise SightlineError(f"images are {came}; a plot needs uint8 (N, H, W, 3), as a data set holds them")
    if not len(images):
        raise SightlineError("there are no images; pass at least one")
    if number is not None and number != len(images):
        raise SightlineError(f"there are {len(images)} images for {number} {of}; pass one for each")
