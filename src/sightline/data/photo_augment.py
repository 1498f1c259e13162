"""Crop and resize, flip, colours and TrivialAugment for a whole batch of photographs at once, on the device.

An epoch's randomness is drawn at once, on the CPU, from the seed and the epoch's number, as in `augment`. A
step then composes crop, flip and geometric operation of each image into one affine map from the output's
pixels into the source, and samples every image once, bilinearly:

    source = centre of the box + (box / image) * mirror(inverse(operation)(output))

so that nothing is blurred twice. Operations on colours follow, each on the images that drew it.

    >>> images = torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).view(2, 8, 8, 3)
    >>> augmentation = PhotoAugmentation(smallest=0.5, trivial_p=1.0)
    >>> draws = augmentation.draw(2, (8, 8), seed=0, epoch=0)
    >>> augmentation.apply(images, torch.tensor([1, 0]), draws, fill=(0.5, 0.5, 0.5)).shape
    torch.Size([2, 3, 8, 8])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sightline.data.augment import Augmentation, random_generator
from sightline.errors import InputError

_STREAM = 4  # keeps the random stream apart from those of the order, the other augmentation, and mixing
_TRIES = 10  # boxes that are drawn before the whole picture is taken, as in torchvision
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow and torchvision weigh the channels
OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "saturation", "contrast", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
"""Of TrivialAugment; the first six move pixels."""

_GEOMETRIC = 6
_TRANSLATION = 32 / 224  # of the side, at the strongest


@dataclass(frozen=True)
class PhotoDraws:
    """What was drawn for each of n images.

    Attributes:
        boxes: (n, 4) float32, centre (y, x) and size (height, width) of the crop as shares of the image.
        flips: (n,) bool.
        factors: (n, 3) float32, of brightness, contrast and saturation; 1 changes nothing.
        operations: (n,) int64, places in `OPERATIONS`.
        strengths: (n,) float32, in [-1, 1].
    """

    boxes: Tensor
    flips: Tensor
    factors: Tensor
    operations: Tensor
    strengths: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> PhotoDraws:
        return PhotoDraws(*(getattr(self, one.name)[chosen] for one in fields(self)))

    def to(self, device: torch.device | str) -> PhotoDraws:
        return PhotoDraws(*(getattr(self, one.name).to(device) for one in fields(self)))


@dataclass(frozen=True)
class PhotoAugmentation:
    """Settings for photographs; the default crops, and flips a half.

    Attributes:
        smallest: Share of the picture's area that a crop has at least; the share is uniform from there to 1,
            the aspect log-uniform in [3/4, 4/3] (Szegedy et al. 2015, arXiv:1409.4842). 1 for no crop.
        flip_p: Probability of a mirrored picture.
        brightness, contrast, saturation: Strength s of the change; the factor is uniform in [1 - s, 1 + s].
        trivial_p: Share of the images that get one operation of TrivialAugment at a random strength, in its
            wide range (Müller & Hutter 2021, arXiv:2103.10158, table 7; at most 1/7 of the side is
            translated).

    Raises:
        InputError: A value is out of range.
    """

    smallest: float = 0.35
    flip_p: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    trivial_p: float = 0.0

    engine: ClassVar[str] = "builtin"

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value <= 1 or (one.name == "smallest" and value == 0):
                low = "above 0" if one.name == "smallest" else "from 0"
                raise InputError(f"{one.name} is {value}; it needs a share {low} to 1")

    def draw(self, count: int, image_size: tuple[int, int], *, seed: int, epoch: int) -> PhotoDraws:
        """Draw one epoch for `count` images of `image_size` (height, width): a pure function, on the CPU."""
        generator = random_generator(seed, epoch, _STREAM)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        boxes = self._boxes(uniform(count, _TRIES), uniform(count, _TRIES), uniform(count, 2), image_size)
        jitter = torch.tensor([self.brightness, self.contrast, self.saturation])
        operations = torch.randint(len(OPERATIONS), (count,), generator=generator)
        operations[uniform(count) >= self.trivial_p] = 0
        return PhotoDraws(
            boxes=boxes,
            flips=uniform(count) < self.flip_p,
            factors=1 + jitter * (2 * uniform(count, 3) - 1),
            operations=operations,
            strengths=torch.randint(31, (count,), generator=generator) / 30
            * (2.0 * torch.randint(2, (count,), generator=generator) - 1),
        )  # fmt: skip

    def _boxes(self, areas: Tensor, aspects: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, 4) from uniform numbers: of (n, tries) boxes the first that fits, else the whole picture."""
        whole = torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(len(areas), 1)
        if self.smallest == 1:
            return whole
        height, width = size
        area = height * width * (self.smallest + (1 - self.smallest) * areas)  # (n, tries)
        aspect = torch.exp(math.log(4 / 3) * (2 * aspects - 1))
        sides = torch.stack([(area / aspect).sqrt() / height, (area * aspect).sqrt() / width], -1)
        fits = (sides <= 1).all(-1)  # (n, tries)
        first = fits.int().argmax(1)
        chosen = sides[torch.arange(len(sides)), first]  # (n, 2)
        centres = chosen / 2 + places * (1 - chosen)
        return torch.where(fits.any(1)[:, None], torch.cat([centres, chosen], 1), whole)

    def apply(self, images: Tensor, indices: Tensor, draws: PhotoDraws, *, fill: Sequence[float]) -> Tensor:
        """Return the images at `indices`, changed as drawn, float32 (B, 3, H, W) in [0, 1].

        Args:
            images: uint8 (N, H, W, 3), on the device where the result will be.
            indices: (B,) int64, on that device.
            draws: Of these B images, in this order, on that device.
            fill: Three values in [0, 1], where a geometric operation looks outside the picture.
        """
        taken = images.index_select(0, indices).permute(0, 3, 1, 2).float().div_(255)  # (B, 3, H, W)
        taken = self._moved(taken, draws, fill)
        for number, change in enumerate((_brightness, _contrast, _saturation)):
            factors = draws.factors[:, number, None, None, None]
            if not bool((factors == 1).all()):
                taken = change(taken, factors).clamp_(0, 1)  # (B, 3, H, W)
        for number in range(_GEOMETRIC, len(OPERATIONS)):
            rows = (draws.operations == number).nonzero()[:, 0]
            if len(rows):
                strengths = draws.strengths[rows, None, None, None]
                changed = _COLOURS[OPERATIONS[number]](taken[rows], strengths).clamp_(0, 1)
                taken[rows] = changed
        return taken.contiguous(memory_format=torch.channels_last)

    def _moved(self, taken: Tensor, draws: PhotoDraws, fill: Sequence[float]) -> Tensor:
        """Crop, flip and geometric operation in one sampling of (B, 3, H, W)."""
        geometric = (draws.operations > 0) & (draws.operations < _GEOMETRIC)
        if self.smallest == 1 and not bool(geometric.any()):
            return torch.where(draws.flips[:, None, None, None], taken.flip(3), taken)
        height, width = taken.shape[2:]
        matrices, shifts = _inverse(draws.operations, draws.strengths, (height, width))  # (B, 2, 2), (B, 2)
        scale = draws.boxes[:, [3, 2]] * torch.stack([1 - 2.0 * draws.flips, torch.ones_like(draws.flips)], 1)
        centre = 2 * draws.boxes[:, [1, 0]] - 1  # x, y
        theta = torch.cat([scale[..., None] * matrices, (scale * shifts + centre)[..., None]], 2)  # (B, 2, 3)
        grid = F.affine_grid(theta, list(taken.shape), align_corners=False)  # (B, H, W, 2)
        moved = F.grid_sample(taken, grid, mode="bilinear", padding_mode="border", align_corners=False)
        rows = geometric.nonzero()[:, 0]
        if len(rows):
            inner = torch.cat([matrices, shifts[..., None]], 2)[rows]
            where = F.affine_grid(inner, [len(rows), 1, height, width], align_corners=False)
            outside = (where.abs() > 1 + 1e-6).any(-1)[:, None]  # (b, 1, H, W)
            colours = moved.new_tensor([float(value) for value in fill])[None, :, None, None]
            moved[rows] = torch.where(outside, colours, moved[rows])
        return moved


OnDevice = Augmentation | PhotoAugmentation
"""What works on a whole batch on the device: `draw` and `apply`."""


def _inverse(operations: Tensor, strengths: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """From output to input, in units of half an image: (B, 2, 2) and (B, 2), for coordinates (x, y)."""
    height, width = size
    one, none = torch.ones_like(strengths), torch.zeros_like(strengths)

    def drawn(name: str) -> Tensor:
        return torch.where(operations == OPERATIONS.index(name), strengths, none)

    angle = drawn("rotate") * math.radians(135)
    shear_x, shear_y = 0.99 * drawn("shear_x"), 0.99 * drawn("shear_y")
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cosine * one, (shear_x - sine) * (height / width)], 1),
        torch.stack([(shear_y + sine) * (width / height), cosine * one], 1),
    ]
    shifts = 2 * _TRANSLATION * torch.stack([drawn("translate_x"), drawn("translate_y")], 1)
    return torch.stack(rows, 1), shifts


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])[:, None]  # (B, 1, H, W)


def _brightness(images: Tensor, factors: Tensor) -> Tensor:
    return images * factors


def _contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Away from, or towards, the mean of the grey picture, which is the grey of the channels' means."""
    mean = _grey(images.mean(dim=(2, 3), keepdim=True))  # (B, 1, 1, 1)
    return torch.lerp(mean, images, factors)


def _saturation(images: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(_grey(images), images, factors)


def _sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Away from, or towards, a 3x3 mean whose centre counts five times; the border stays."""
    if min(images.shape[2:]) < 3:
        return images
    kernel = images.new_ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel / 13, groups=3)
    return smooth + factors * (images - smooth)


def _posterize(images: Tensor, strengths: Tensor) -> Tensor:
    """Keep the 8 to 2 highest bits of a byte."""
    step = 2.0 ** (6 * strengths.abs()).round()
    return torch.floor((images * 255).round() / step) * step / 255


def _solarize(images: Tensor, strengths: Tensor) -> Tensor:
    """Invert what is at least as bright as the threshold, which falls from 1 to 0."""
    return torch.where(images >= 1 - strengths.abs(), 1 - images, images)


def _autocontrast(images: Tensor, strengths: Tensor) -> Tensor:
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _equalize(images: Tensor, strengths: Tensor) -> Tensor:
    """Spread each channel's bytes so that all are about as frequent, as Pillow does it."""
    count, channels, height, width = images.shape
    bytes_ = (images * 255).round().long().reshape(count * channels, -1)  # (M, H W)
    histogram = images.new_zeros(count * channels, 256).scatter_add_(1, bytes_, images.new_ones(bytes_.shape))
    last = histogram.gather(1, bytes_.amax(1, keepdim=True))  # pixels of the brightest byte
    step = ((height * width - last) / 255).floor()  # (M, 1)
    table = (
        ((histogram.cumsum(1) - histogram + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(max=255)
    )
    spread = torch.where(step > 0, table.gather(1, bytes_), bytes_.float())
    return (spread / 255).view(images.shape)


_COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda images, strengths: _brightness(images, 1 + 0.99 * strengths),
    "saturation": lambda images, strengths: _saturation(images, 1 + 0.99 * strengths),
    "contrast": lambda images, strengths: _contrast(images, 1 + 0.99 * strengths),
    "sharpness": lambda images, strengths: _sharpness(images, 1 + 0.99 * strengths),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
