"""Pictures as bad cameras, bad weather and bad storage make them, a whole batch at once.

    CORRUPTIONS["fog"](images, 2, torch.Generator().manual_seed(0))    # (B, 3, H, W) in [0, 1]

Each corruption is a function `(images, severity, generator) -> images` with three severities, 1 to 3. Where
Hendrycks & Dietterich (2019), arXiv:1903.12261, have it, its constants are those of their CIFAR-10-C at
their severities 1, 3 and 5. Lengths are theirs at 32 pixels and grow with the picture. We deviate where
theirs needs a library of its own: the streak of `motion_blur` is sampled along its direction instead of
by ImageMagick, and the haze of `fog` is a sum of smooth random grids instead of the diamond-square fractal,
with the same decay from one octave to the next. `shift` and `rotate` are ours; what they uncover is
filled by reflection.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sightline.errors import InputError, nearest

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]
SEVERITIES = (1, 2, 3)


def gaussian_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Noise of an electronic sensor: standard deviation 0.04, 0.08, 0.10."""
    scale = (0.04, 0.08, 0.10)[severity - 1]
    return (images + scale * _normal(images, generator)).clamp(0, 1)


def shot_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Noise of few photons: Poisson counts of at most 500, 100, 50."""
    photons = (500, 100, 50)[severity - 1]
    counts = torch.poisson(images.cpu().contiguous() * photons, generator=generator)
    return (counts.to(images) / photons).clamp(0, 1)


def gaussian_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A soft picture: standard deviation 0.4, 0.7, 1.0 pixels."""
    sigma = (0.4, 0.7, 1.0)[severity - 1] * _scale(images)
    return _separable(images, _bell(sigma))


def defocus_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A lens out of focus: discs of radius 0.3, 0.5, 1.5 pixels, softened by 0.4, 0.6, 0.1 pixels."""
    radius, soft = ((0.3, 0.4), (0.5, 0.6), (1.5, 0.1))[severity - 1]
    reach = math.ceil(radius * _scale(images) + 1)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    disc = (offset[:, None] ** 2 + offset[None] ** 2 <= (radius * _scale(images)) ** 2).float()
    bell = _bell(soft * _scale(images), reach=reach)
    kernel = F.conv2d(disc[None, None], (bell[:, None] * bell[None])[None, None], padding=reach)[0, 0]
    return _filter(images, (kernel / kernel.sum()).to(images))


def motion_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A streak: half a bell of 1, 2, 2.5 pixels, cut off at 6, 6, 9; each picture in its own direction."""
    length, sigma = ((6, 1.0), (6, 2.0), (9, 2.5))[severity - 1]
    angles = _uniform(images, generator) * math.pi / 2 - math.pi / 4  # (B,), within 45 degrees of level
    steps = torch.arange(0, length + 1, 0.5) * _scale(images)
    weights = torch.exp(-0.5 * (steps / (sigma * _scale(images))) ** 2)
    result = torch.zeros_like(images)
    for step, weight in zip(steps.tolist(), (weights / weights.sum()).tolist(), strict=True):
        result += weight * _moved(images, step * angles.cos(), step * angles.sin())
    return result.clamp(0, 1)


def fog(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Haze of weight 0.2, 0.75, 1.5 whose octaves fall off by 3, 2.5, 1.75; the highest value is kept."""
    weight, decay = ((0.2, 3.0), (0.75, 2.5), (1.5, 1.75))[severity - 1]
    haze = _haze(images, decay, generator)
    highest = images.amax(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    return ((images + weight * haze) * highest / (highest + weight)).clamp(0, 1)


def brightness(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Too much light: 0.05, 0.15, 0.30 more in HSV's value, hue and saturation as they were."""
    more = (0.05, 0.15, 0.30)[severity - 1]
    value = images.amax(dim=1, keepdim=True)  # (B, 1, H, W)
    # Hue and saturation depend on the channels' ratios alone; black has none and turns grey.
    ratio = torch.where(value > 0, images / value.clamp(min=1e-8), torch.ones_like(images))
    return ratio * (value + more).clamp(max=1)


def contrast(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A flat picture: 0.75, 0.4, 0.15 of the distance from the mean of each channel."""
    left = (0.75, 0.4, 0.15)[severity - 1]
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (mean + left * (images - mean)).clamp(0, 1)


def pixelate(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Enlarged from 0.95, 0.85, 0.65 of the size; whole boxes of pixels both ways."""
    share = (0.95, 0.85, 0.65)[severity - 1]
    height, width = images.shape[2:]
    down, right = (_boxes(side, max(1, int(share * side))).to(images) for side in (height, width))
    small = torch.einsum("bchw,ih,jw->bcij", images, down, right)
    return F.interpolate(small, size=(height, width), mode="nearest-exact")


def jpeg(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Stored as JPEG of quality 80, 58, 40.

    By Pillow on the CPU, picture by picture: an own transform would be faster but would not be JPEG, and
    its chroma subsampling and rounding are what this asks about. A thousand small pictures take 0.2 s.
    """
    quality = (80, 58, 40)[severity - 1]
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    stored = np.empty_like(pixels)
    for number, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as reopened:
            stored[number] = np.asarray(reopened)
    return torch.from_numpy(stored).permute(0, 3, 1, 2).to(images) / 255


def shift(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Off centre by 1/16, 1/8, 3/16 of the size, in a direction of its own for each picture."""
    away = (1 / 16, 1 / 8, 3 / 16)[severity - 1] * min(images.shape[2:])
    angles = _uniform(images, generator) * 2 * math.pi
    return _moved(images, (away * angles.cos()).round(), (away * angles.sin()).round())


def rotate(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Turned by 5, 10, 20 degrees, to the left or to the right."""
    angle = math.radians((5, 10, 20)[severity - 1])
    turns = torch.where(_uniform(images, generator) < 0.5, -angle, angle)  # (B,)
    height, width = images.shape[2:]
    matrix = torch.zeros(len(images), 2, 3, device=images.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = turns.cos()
    # In units of half sides; a picture that is not square is turned in pixels all the same.
    matrix[:, 0, 1], matrix[:, 1, 0] = -turns.sin() * height / width, turns.sin() * width / height
    return _sampled(images, F.affine_grid(matrix, list(images.shape), align_corners=False))


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, gaussian_blur, defocus_blur, motion_blur, fog, brightness, contrast,
        pixelate, jpeg, shift, rotate,
    )
}  # fmt: skip
"""Corruptions by name."""


def corrupt(images: Tensor, corruption: str | Corruption, severity: int, *, seed: int = 0) -> Tensor:
    """Return `images` corrupted, the same for the same seed, device and batch.

    Args:
        images: (B, 3, H, W) floats in [0, 1].
        corruption: A name of :data:`CORRUPTIONS`, or a function like them.
        severity: 1, 2 or 3.
        seed: Of whatever the corruption draws.

    Raises:
        InputError: An unknown name, another severity, or images that are no batch of floats.

    >>> corrupt(torch.full((1, 3, 8, 8), 0.5), "brightness", 3).unique().tolist()
    [0.800000011920929]
    """
    if isinstance(corruption, str):
        if corruption not in CORRUPTIONS:
            raise InputError(
                f"corruption {corruption!r} is not known; {nearest(corruption, list(CORRUPTIONS))}"
            )
        corruption = CORRUPTIONS[corruption]
    if severity not in SEVERITIES:
        raise InputError(f"severity is {severity}; corruptions have 1, 2 and 3")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype} {tuple(images.shape)}; corruptions take floats (B, 3, H, W) in [0, 1]"
        )
    return corruption(images, severity, torch.Generator().manual_seed(seed))


def _scale(images: Tensor) -> float:
    return min(images.shape[2:]) / 32


def _normal(images: Tensor, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU: the same noise on every device.
    return torch.randn(images.shape, generator=generator).to(images)


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(images), generator=generator).to(images)


def _bell(sigma: float, *, reach: int | None = None) -> Tensor:
    reach = math.ceil(4 * sigma) if reach is None else reach
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


def _separable(images: Tensor, weights: Tensor) -> Tensor:
    weights = weights.to(images)
    return _filter(_filter(images, weights[None]), weights[:, None])


def _filter(images: Tensor, kernel: Tensor) -> Tensor:
    """Every channel with one kernel, both sides odd, over a reflected margin."""
    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = F.pad(images, (right, right, down, down), mode="reflect")
    channels = kernel.expand(3, 1, *kernel.shape)
    return F.conv2d(padded, channels, groups=3).clamp(0, 1)


def _boxes(size: int, cells: int) -> Tensor:
    """The mean of the pixels whose middles lie in each cell, (cells, size), as Pillow's BOX takes it."""
    middles = (torch.arange(cells) + 0.5) * size / cells
    inside = (torch.arange(size) + 0.5 - middles[:, None]).abs() <= size / cells / 2
    return inside / inside.sum(dim=1, keepdim=True)


def _moved(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Each picture moved by pixels, (B,) each; bilinear between pixels."""
    height, width = images.shape[2:]
    matrix = torch.zeros(len(images), 2, 3, device=images.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1
    matrix[:, 0, 2], matrix[:, 1, 2] = -2 * right / width, -2 * down / height
    return _sampled(images, F.affine_grid(matrix, list(images.shape), align_corners=False))


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _haze(images: Tensor, decay: float, generator: torch.Generator) -> Tensor:
    """Smooth random fields in [0, 1], (B, 1, H, W): grids of 2, 4, 8.. cells, each `decay` times weaker."""
    size = list(images.shape[2:])
    field = torch.zeros(len(images), 1, *size)
    weight, cells = 1.0, 2
    while cells <= min(size):
        grid = torch.rand(len(images), 1, cells + 1, cells + 1, generator=generator)
        field += weight * F.interpolate(grid, size=size, mode="bilinear", align_corners=True)
        weight, cells = weight / decay, 2 * cells
    field -= field.amin(dim=(2, 3), keepdim=True)
    return (field / field.amax(dim=(2, 3), keepdim=True).clamp(min=1e-8)).to(images)
