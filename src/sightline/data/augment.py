"""Crop, flip and hole for a whole batch at once, on the device that holds the data set.

An epoch's randomness is drawn at once, on the CPU, from the seed and the epoch's number. A step
then works out which pixel of the data set goes where, and takes them all in one gather:

    out[b, y, x] = images[index[b], reflect(y + dy[b]), reflect(mirror(x) + dx[b])]

with `mirror(x) = W - 1 - x` where the image is flipped. Holes are filled last, wholly inside the
image (DeVries & Taylor 2017, arXiv:1708.04552, lets them hang over the edge; we do not), on pixels
in [0, 1], with the channel means by default: 0 once the model has normalised them. The alternating
flip is that of Jordan 2024, arXiv:2404.00498, section 3.6: a random half of the images is flipped in
the first epoch, the other half in the second, and so on.

    >>> images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3)
    >>> augmentation = Augmentation(crop_padding=1, flip="random")
    >>> draws = augmentation.draw(2, (4, 4), seed=0, epoch=0)
    >>> augmentation.apply(images, torch.tensor([1, 0]), draws, fill=(0.5, 0.5, 0.5)).shape
    torch.Size([2, 3, 4, 4])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from sightline.errors import SightlineError

if TYPE_CHECKING:
    import albumentations

_DRAWS, _MASK = 0, 1  # keep the random streams apart


@dataclass(frozen=True)
class Draws:
    """What was drawn for each image: the work of `Augmentation.apply` with nothing left to chance.

    shifts: (n, 2) int64, rows and columns by which the crop is moved. flips: (n,) bool.
    holes: (n, 2) int64, top and left of the hole; a hole that lies above the image is none.
    """

    shifts: Tensor
    flips: Tensor
    holes: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> Draws:
        return Draws(self.shifts[chosen], self.flips[chosen], self.holes[chosen])

    def to(self, device: torch.device | str) -> Draws:
        return Draws(self.shifts.to(device), self.flips.to(device), self.holes.to(device))


@dataclass(frozen=True)
class Augmentation:
    """Settings of crop, flip and hole; the default changes nothing.

    crop_padding: pixels added to each side before a crop of the original size, on the share `crop_p`
    of the images; padded by reflection (the edge not repeated) or, with `crop_mode="zero"`, with the
    fill, which is zero once normalised. flip: "random" mirrors each image with chance `flip_p`;
    "alternate" mirrors a random half in even epochs and the other half in odd ones. hole_size: side of
    a square, anywhere inside the image, filled on the share `hole_p` of the images. hole_fill: three
    values in [0, 1], or "mean" for the fill that is passed to `apply`, the mean of the training split.

    Raises SightlineError for a value that is out of range.
    """

    crop_padding: int = 0
    crop_mode: Literal["reflect", "zero"] = "reflect"
    crop_p: float = 1.0
    flip: Literal["none", "random", "alternate"] = "none"
    flip_p: float = 0.5
    hole_size: int = 0
    hole_p: float = 1.0
    hole_fill: tuple[float, float, float] | Literal["mean"] = "mean"

    def __post_init__(self) -> None:
        for name, known in (("crop_mode", ("reflect", "zero")), ("flip", ("none", "random", "alternate"))):
            if getattr(self, name) not in known:
                raise SightlineError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        for name in ("crop_p", "flip_p", "hole_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise SightlineError(f"{name} is {getattr(self, name)}; it needs a chance from 0 to 1")
        for name in ("crop_padding", "hole_size"):
            if getattr(self, name) < 0:
                raise SightlineError(f"{name} is {getattr(self, name)}; it needs 0 pixels or more")
        if self.flip == "alternate" and self.flip_p != 0.5:
            raise SightlineError(f"flip='alternate' flips one half; flip_p={self.flip_p} needs flip='random'")

    def draw(self, count: int, image_size: tuple[int, int], *, seed: int, epoch: int) -> Draws:
        """Draw one epoch for `count` images of `image_size` (height, width): a pure function, on the CPU.

        Raises SightlineError if the padding or the hole does not fit the image.
        """
        self._check_fit(image_size)
        generator = random_generator(seed, epoch, _DRAWS)
        pad = self.crop_padding
        shifts = torch.randint(-pad, pad + 1, (count, 2), generator=generator)
        shifts *= torch.rand(count, 1, generator=generator) < self.crop_p
        random_flips = torch.rand(count, generator=generator) < self.flip_p
        free = torch.tensor(image_size) - self.hole_size + 1  # places that a hole can take, per axis
        holes = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * free).long()
        none = torch.rand(count, generator=generator) >= self.hole_p
        holes[none] = -self.hole_size
        return Draws(shifts, self._flips(random_flips, seed, epoch), holes)

    def apply(self, images: Tensor, indices: Tensor, draws: Draws, *, fill: Sequence[float]) -> Tensor:
        """Return the images at `indices`, changed as drawn, float32 (B, 3, H, W) in [0, 1].

        images: uint8 (N, H, W, 3), contiguous. indices: (B,) int64. draws: of these B images, in this
        order. fill: three values in [0, 1]. All tensors on one device. The result is channels_last.
        """
        _, height, width, _ = images.shape
        device = images.device
        rows, outside_rows = self._source(torch.arange(height, device=device) + draws.shifts[:, :1], height)
        columns = torch.arange(width, device=device).expand(len(indices), -1)
        columns = torch.where(draws.flips[:, None], width - 1 - columns, columns)
        columns, outside_columns = self._source(columns + draws.shifts[:, 1:], width)
        if self.crop_padding or self.flip != "none":
            lines = indices[:, None] * height + rows  # (B, H), of the whole data set
            pixels = lines[:, :, None] * width + columns[:, None, :]  # (B, H, W)
            taken = images.view(-1, 3).index_select(0, pixels.view(-1)).view(-1, height, width, 3)
        else:
            taken = images.index_select(0, indices)
        result = taken.float().div_(255).permute(0, 3, 1, 2)  # (B, 3, H, W)
        fill = fill if self.hole_fill == "mean" else self.hole_fill
        if self.crop_padding and self.crop_mode == "zero":
            _fill(result, outside_rows[:, :, None] | outside_columns[:, None, :], fill)
        if self.hole_size:
            _fill(result, self._hole(draws.holes, height, width), fill)
        return result

    def to_albumentations(
        self, image_size: tuple[int, int], *, fill: Sequence[float]
    ) -> albumentations.Compose:
        """Return the same distribution as an `albumentations.Compose` for uint8 images of `image_size`.

        fill: three values in [0, 1]; there they are rounded to whole grey values.
        Raises SightlineError for flip="alternate", which no transform of single images can do, or if
        albumentations is not installed.
        """
        from sightline.data.compose import compose_like

        self._check_fit(image_size)
        return compose_like(self, image_size, fill)

    def _check_fit(self, image_size: tuple[int, int]) -> None:
        height, width = image_size
        if self.crop_padding >= min(image_size):
            raise SightlineError(
                f"crop_padding={self.crop_padding} needs images larger than that, not {height}x{width}"
            )
        if self.hole_size > min(image_size):
            raise SightlineError(f"hole_size={self.hole_size} is larger than the {height}x{width} images")

    def _flips(self, random_flips: Tensor, seed: int, epoch: int) -> Tensor:
        if self.flip == "alternate":
            half = torch.rand(len(random_flips), generator=random_generator(seed, 0, _MASK)) < 0.5
            return half ^ bool(epoch % 2)
        return random_flips if self.flip == "random" else torch.zeros_like(random_flips)

    def _source(self, places: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Where padded places (B, size) come from, and which of them lie outside."""
        outside = (places < 0) | (places >= size)
        reflected = places.abs()
        return torch.where(reflected >= size, 2 * (size - 1) - reflected, reflected), outside

    def _hole(self, holes: Tensor, height: int, width: int) -> Tensor:
        down = torch.arange(height, device=holes.device) - holes[:, :1]  # (B, H)
        right = torch.arange(width, device=holes.device) - holes[:, 1:]  # (B, W)
        rows, columns = ((away >= 0) & (away < self.hole_size) for away in (down, right))
        return rows[:, :, None] & columns[:, None, :]  # (B, H, W)


def random_generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """Return a CPU generator that is independent for each seed, epoch and stream."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _fill(images: Tensor, mask: Tensor, fill: Sequence[float]) -> None:
    # Channel by channel: broadcasting three values over channels_last pixels is several times slower.
    for channel, value in enumerate(fill):
        images[:, channel].masked_fill_(mask, float(value))
