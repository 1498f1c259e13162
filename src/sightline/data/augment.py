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

Albumentations: transforms listed in a recipe, and the same distribution as `Augmentation`.

albumentations (extra `[albumentations]`) is imported when it is first needed, with its check for
updates switched off, so that nothing reaches the network.
"""

from __future__ import annotations

import difflib
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from sightline.errors import SightlineError, nearest

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
        pass

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


def build_compose(steps: Sequence[Mapping[str, Any]], *, fill: Sequence[float]) -> albumentations.Compose:
    """Return the `albumentations.Compose` of a list such as `[{"name": "ColorJitter", "p": 0.5}]`.

    Each step names a transform of albumentations and its arguments; `transforms` holds the steps of
    OneOf, Sequential and the like. The value "mean" for `fill` stands for the mean of the training
    split, which the argument `fill` gives: three values in [0, 1].
    Raises SightlineError for an unknown name or argument, a value that the transform refuses, or if
    albumentations is not installed.
    """
    library = import_albumentations()
    return library.Compose([_build(library, step, fill) for step in steps])


def compose_like(
    augmentation: Augmentation, image_size: tuple[int, int], fill: Sequence[float]
) -> albumentations.Compose:
    """Return what `Augmentation.to_albumentations` promises."""
    if augmentation.flip == "alternate":
        raise SightlineError(
            "flip='alternate' depends on the epoch, which albumentations does not know; use flip='random'"
        )
    grey = grey_values(fill if augmentation.hole_fill == "mean" else augmentation.hole_fill)
    steps = []
    if augmentation.crop_padding:
        steps.append(_crop(augmentation, image_size, grey))
    if augmentation.flip == "random":
        steps.append({"name": "HorizontalFlip", "p": augmentation.flip_p})
    if augmentation.hole_size:
        side = (augmentation.hole_size, augmentation.hole_size)
        ranges = {"num_holes_range": (1, 1), "hole_height_range": side, "hole_width_range": side}
        steps.append({"name": "CoarseDropout", **ranges, "fill": grey, "p": augmentation.hole_p})
    return build_compose(steps, fill=fill)


def import_albumentations() -> ModuleType:
    """Return the library, without its look at the network for a newer version."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError as error:
        raise SightlineError(
            "this augmentation needs albumentations; pip install 'sightline-vision[albumentations]'"
        ) from error
    return albumentations


def reseed(compose: albumentations.Compose, seed: Sequence[int]) -> None:
    """Give each transform its own random stream, drawn from `seed`.

    `Compose.set_random_seed` gives all of them the same one: then an image is flipped exactly when
    it gets its hole.
    """
    transforms = list(_walk(compose))
    seeds = np.random.SeedSequence(seed).generate_state(len(transforms), np.uint64)
    for transform, own in zip(transforms, seeds.tolist(), strict=True):
        transform.set_random_seed(own)  # a container seeds its children too, but they come after it


def grey_values(fill: Sequence[float]) -> tuple[int, ...]:
    """Return values in [0, 1] as whole grey values, 0 to 255."""
    return tuple(round(255 * float(value)) for value in fill)


def _walk(transform: Any):
    yield transform
    for child in getattr(transform, "transforms", ()):
        if hasattr(child, "set_random_seed"):  # ColorJitter keeps plain functions under this name
            yield from _walk(child)


def _crop(augmentation: Augmentation, image_size: tuple[int, int], grey: tuple[int, ...]) -> dict[str, Any]:
    import cv2  # comes with albumentations

    reflect = augmentation.crop_mode == "reflect"
    border = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT
    pad = {"name": "Pad", "padding": augmentation.crop_padding, "border_mode": border, "fill": grey}
    crop = {"name": "RandomCrop", "height": image_size[0], "width": image_size[1]}
    return {"name": "Sequential", "transforms": [pad, crop], "p": augmentation.crop_p}


def _build(library: ModuleType, step: Mapping[str, Any], fill: Sequence[float]) -> Any:
    arguments = dict(step)
    name = arguments.pop("name", None)
    kind = getattr(library, str(name), None)
    if not inspect.isclass(kind) or not issubclass(kind, library.BasicTransform | library.BaseCompose):
        known = [key for key, value in vars(library).items() if inspect.isclass(value)]
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = nearest(str(name), known) if close else "see its documentation for the names"
        raise SightlineError(f"albumentations has no transform {name!r}; {hint}")
    _check_arguments(name, kind, arguments)
    if "transforms" in arguments:
        arguments["transforms"] = [_build(library, child, fill) for child in arguments["transforms"]]
    for key in ("fill", "fill_mask"):
        if arguments.get(key) == "mean":
            arguments[key] = grey_values(fill)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on names; what does not fit is an error
            return kind(**{key: _tuples(value) for key, value in arguments.items()})
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise SightlineError(f"albumentations refuses {name}({_spelled(arguments)}): {reason}") from error


def _check_arguments(name: Any, kind: type, arguments: dict[str, Any]) -> None:
    known = [key for key in inspect.signature(kind.__init__).parameters if key not in ("self", "kwargs")]
    if unknown := [key for key in arguments if key not in known]:
        raise SightlineError(f"{name} has no argument {unknown[0]!r}; {nearest(unknown[0], known)}")


def _tuples(value: Any) -> Any:
    # TOML knows lists only; a list of transforms stays one.
    plain = isinstance(value, list) and all(isinstance(item, int | float | list) for item in value)
    return tuple(_tuples(item) for item in value) if plain else value


def _spelled(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
