"""Crop, flip and cutout for a whole batch at once, on the device that holds the data set.

An epoch's randomness is drawn at once, on the CPU, from the seed and the epoch's number. A step
then works out which pixel of the data set goes where, and takes them all in one gather:

    out[b, y, x] = images[index[b], reflect(y + dy[b]), reflect(mirror(x) + dx[b])]

with `mirror(x) = W - 1 - x` where the image is flipped. Cutouts are filled last, wholly inside the
image (DeVries & Taylor 2017, arXiv:1708.04552, lets them hang over the edge; we do not), on pixels
in [0, 1], with the channel means by default: 0 once the model has normalised them. The alternating
flip is that of Jordan 2024, arXiv:2404.00498, section 3.6: a random half of the images is flipped in
the first epoch, the other half in the second, and so on.

    >>> images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3)
    >>> augmentation = Augmentation(crop_padding=1, flip="random")
    >>> draws = augmentation.draw(2, (4, 4), seed=0, epoch=0)
    >>> augmentation.apply(images, torch.tensor([1, 0]), draws, fill=(0.5, 0.5, 0.5)).shape
    torch.Size([2, 3, 4, 4])

Any other transform is one of albumentations (extra `[albumentations]`), listed in a recipe and made by
`build_compose`; the library is imported when it is first needed, without its look at the network for a
newer version. `Augmentation.to_albumentations` gives the same distribution there.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from sightline.errors import InputError, MissingExtraError, nearest

if TYPE_CHECKING:
    import albumentations

_DRAWS, _MASK = 0, 1  # keep the random streams apart


@dataclass(frozen=True)
class Draws:
    """What was drawn for each image: the work of `Augmentation.apply` with nothing left to chance.

    Attributes:
        shifts: (n, 2) int64, rows and columns by which the crop is moved.
        flips: (n,) bool.
        cutouts: (n, 2) int64, top and left of the cutout; one that lies above the image is none.
    """

    shifts: Tensor
    flips: Tensor
    cutouts: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> Draws:
        return Draws(self.shifts[chosen], self.flips[chosen], self.cutouts[chosen])

    def to(self, device: torch.device | str) -> Draws:
        return Draws(self.shifts.to(device), self.flips.to(device), self.cutouts.to(device))


@dataclass(frozen=True)
class Augmentation:
    """Settings of crop, flip and cutout; the default changes nothing.

    Attributes:
        crop_padding: Pixels added to each side before a crop of the original size; between 0 and 1 it is a
            share of the image's shorter side, rounded to pixels, so that one recipe fits any size.
        crop_mode: Padding by reflection (the edge not repeated), or "zero": the fill, which is zero once
            normalised.
        crop_p: Share of the images that are cropped.
        flip: "random" mirrors each image with probability `flip_p`; "alternate" mirrors a random half in
            even epochs and the other half in odd ones.
        flip_p: Probability of a random flip.
        cutout_size: Side in pixels, or as a share in the same way, of a square, anywhere inside the image,
            that is filled; 0 for none.
        cutout_p: Share of the images that get one.
        cutout_fill: Three values in [0, 1], or "mean" for the fill that is passed to `apply`, the mean of
            the training split.
        engine: What does it: "builtin", on the device and a batch at a time, or "albumentations", in worker
            processes and from the same distribution; the latter knows no flip="alternate".

    Raises:
        InputError: A value is out of range.
    """

    crop_padding: int | float = 0
    crop_mode: Literal["reflect", "zero"] = "reflect"
    crop_p: float = 1.0
    flip: Literal["none", "random", "alternate"] = "none"
    flip_p: float = 0.5
    cutout_size: int | float = 0
    cutout_p: float = 1.0
    cutout_fill: tuple[float, float, float] | Literal["mean"] = "mean"
    engine: Literal["builtin", "albumentations"] = "builtin"

    def __post_init__(self) -> None:
        for name, known in (
            ("crop_mode", ("reflect", "zero")),
            ("flip", ("none", "random", "alternate")),
            ("engine", ("builtin", "albumentations")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        for name in ("crop_p", "flip_p", "cutout_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it needs a probability from 0 to 1")
        for name in ("crop_padding", "cutout_size"):
            value = getattr(self, name)
            if not 0 <= value < math.inf or (value > 1 and value != int(value)):
                raise InputError(
                    f"{name} is {value}; it needs 0 pixels or more, or a share of the side between 0 and 1"
                )
        if self.flip == "alternate" and self.flip_p != 0.5:
            raise InputError(f"flip='alternate' flips one half; flip_p={self.flip_p} needs flip='random'")
        if self.flip == "alternate" and self.engine == "albumentations":
            raise InputError(
                "flip='alternate' depends on the epoch, which engine='albumentations' does not know; use "
                "flip='random', or engine='builtin'"
            )

    def draw(self, count: int, image_size: tuple[int, int], *, seed: int, epoch: int) -> Draws:
        """Draw one epoch for `count` images of `image_size` (height, width): a pure function, on the CPU.

        Raises:
            InputError: The padding or the cutout does not fit the image.
        """
        pad, side = self.in_pixels(image_size)
        generator = random_generator(seed, epoch, _DRAWS)
        shifts = torch.randint(-pad, pad + 1, (count, 2), generator=generator)
        shifts *= torch.rand(count, 1, generator=generator) < self.crop_p
        random_flips = torch.rand(count, generator=generator) < self.flip_p
        free = torch.tensor(image_size) - side + 1  # positions that a cutout can take, per axis
        cutouts = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * free).long()
        none = torch.rand(count, generator=generator) >= self.cutout_p
        cutouts[none] = -side
        return Draws(shifts, self._flips(random_flips, seed, epoch), cutouts)

    def apply(self, images: Tensor, indices: Tensor, draws: Draws, *, fill: Sequence[float]) -> Tensor:
        """Return the images at `indices`, changed as drawn, float32 (B, 3, H, W) in [0, 1].

        Args:
            images: uint8 (N, H, W, 3), contiguous, on the device where the result will be.
            indices: (B,) int64, on that device.
            draws: Of these B images, in this order, on that device.
            fill: Three values in [0, 1].

        Returns:
            A batch that is channels_last in memory.
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
        fill = fill if self.cutout_fill == "mean" else self.cutout_fill
        if self.crop_padding and self.crop_mode == "zero":
            _fill(result, outside_rows[:, :, None] | outside_columns[:, None, :], fill)
        if self.cutout_size:
            side = self.in_pixels((height, width))[1]
            _fill(result, _inside_cutout(draws.cutouts, side, height, width), fill)
        return result

    def to_albumentations(
        self, image_size: tuple[int, int], *, fill: Sequence[float]
    ) -> albumentations.Compose:
        """Return the same distribution as an `albumentations.Compose` for uint8 images of `image_size`.

        Args:
            image_size: Height and width in pixels.
            fill: Three values in [0, 1]; there they are rounded to whole grey values.

        Raises:
            InputError: flip="alternate", which no transform of single images can do.
            MissingExtraError: albumentations is not installed.
        """
        pad, cutout = self.in_pixels(image_size)
        if self.flip == "alternate":
            raise InputError(
                "flip='alternate' depends on the epoch, which albumentations does not know; use flip='random'"
            )
        grey = _grey_values(fill if self.cutout_fill == "mean" else self.cutout_fill)
        steps: list[dict[str, Any]] = []
        if self.crop_padding:
            steps.append(_crop(self, pad, image_size, grey))
        if self.flip == "random":
            steps.append({"name": "HorizontalFlip", "p": self.flip_p})
        if self.cutout_size:
            side = (cutout, cutout)
            ranges = {"num_holes_range": (1, 1), "hole_height_range": side, "hole_width_range": side}
            steps.append({"name": "CoarseDropout", **ranges, "fill": grey, "p": self.cutout_p})
        return build_compose(steps, fill=fill)

    def in_pixels(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the padding and the side of the cutout for images of (height, width), in pixels.

        >>> Augmentation(crop_padding=0.125, cutout_size=16).in_pixels((32, 40))
        (4, 16)

        Raises:
            InputError: They do not fit the images.
        """
        height, width = image_size
        pad, side = (
            round(value * min(image_size)) if value < 1 else int(value)
            for value in (self.crop_padding, self.cutout_size)
        )
        if pad >= min(image_size):
            raise InputError(
                f"crop_padding={self.crop_padding} needs images larger than that, not {height}x{width}"
            )
        if side > min(image_size):
            raise InputError(f"cutout_size={self.cutout_size} is larger than the {height}x{width} images")
        return pad, side

    def _flips(self, random_flips: Tensor, seed: int, epoch: int) -> Tensor:
        if self.flip == "alternate":
            half = torch.rand(len(random_flips), generator=random_generator(seed, 0, _MASK)) < 0.5
            return half ^ bool(epoch % 2)
        return random_flips if self.flip == "random" else torch.zeros_like(random_flips)

    def _source(self, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Where padded positions (B, size) come from, and which of them lie outside."""
        outside = (positions < 0) | (positions >= size)
        reflected = positions.abs()
        return torch.where(reflected >= size, 2 * (size - 1) - reflected, reflected), outside


def random_generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """Return a CPU generator that is independent for each seed, epoch and stream."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _inside_cutout(cutouts: Tensor, side: int, height: int, width: int) -> Tensor:
    down = torch.arange(height, device=cutouts.device) - cutouts[:, :1]  # (B, H)
    right = torch.arange(width, device=cutouts.device) - cutouts[:, 1:]  # (B, W)
    rows, columns = ((away >= 0) & (away < side) for away in (down, right))
    return rows[:, :, None] & columns[:, None, :]  # (B, H, W)


def _fill(images: Tensor, mask: Tensor, fill: Sequence[float]) -> None:
    # Channel by channel: broadcasting three values over channels_last pixels is several times slower.
    for channel, value in enumerate(fill):
        images[:, channel].masked_fill_(mask, float(value))


def build_compose(steps: Sequence[Mapping[str, Any]], *, fill: Sequence[float]) -> albumentations.Compose:
    """Return the `albumentations.Compose` of a list such as `[{"name": "ColorJitter", "p": 0.5}]`.

    Args:
        steps: Each names a transform of albumentations and its arguments; `transforms` holds the steps of
            OneOf, Sequential and the like. The value "mean" for `fill` stands for the argument `fill`.
        fill: Three values in [0, 1], the mean of the training split.

    Raises:
        InputError: An unknown name or argument, or a value that the transform refuses.
        MissingExtraError: albumentations is not installed.
    """
    library = _import_albumentations()
    return library.Compose([_build(library, step, fill) for step in _steps(steps)])


def has_albumentations() -> bool:
    """Whether the extra `[albumentations]` is installed; nothing is imported."""
    return importlib.util.find_spec("albumentations") is not None


def _import_albumentations() -> ModuleType:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError as error:
        raise MissingExtraError(
            "this augmentation needs albumentations; pip install 'sightline-vision[albumentations]'"
        ) from error
    return albumentations


def reseed(compose: albumentations.Compose, seed: Sequence[int]) -> None:
    """Give each transform its own random stream, drawn from `seed`.

    `Compose.set_random_seed` gives all of them the same one: then an image is flipped exactly when
    it gets its cutout.
    """
    transforms = list(_walk(compose))
    seeds = np.random.SeedSequence(seed).generate_state(len(transforms), np.uint64)
    for transform, own in zip(transforms, seeds.tolist(), strict=True):
        transform.set_random_seed(own)  # a container seeds its children too, but they come after it


def _grey_values(fill: Sequence[float]) -> tuple[int, ...]:
    return tuple(round(255 * float(value)) for value in fill)


def _walk(transform: Any):
    yield transform
    for child in getattr(transform, "transforms", ()):
        if hasattr(child, "set_random_seed"):  # ColorJitter keeps plain functions under this name
            yield from _walk(child)


def _crop(
    augmentation: Augmentation, padding: int, image_size: tuple[int, int], grey: tuple[int, ...]
) -> dict[str, Any]:
    import cv2  # comes with albumentations

    reflect = augmentation.crop_mode == "reflect"
    border = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT
    pad = {"name": "Pad", "padding": padding, "border_mode": border, "fill": grey}
    crop = {"name": "RandomCrop", "height": image_size[0], "width": image_size[1]}
    return {"name": "Sequential", "transforms": [pad, crop], "p": augmentation.crop_p}


def _steps(value: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list | tuple) or not all(isinstance(step, Mapping) for step in value):
        raise InputError(f'transforms is {value!r}; it needs a list of tables such as {{ name = "Blur" }}')
    return value


def _build(library: ModuleType, step: Mapping[str, Any], fill: Sequence[float]) -> Any:
    arguments = dict(step)
    name = arguments.pop("name", None)
    kind = getattr(library, str(name), None)
    if not inspect.isclass(kind) or not issubclass(kind, library.BasicTransform | library.BaseCompose):
        known = [key for key, value in vars(library).items() if inspect.isclass(value)]
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = nearest(str(name), known) if close else "see its documentation for the names"
        raise InputError(f"albumentations has no transform {name!r}; {hint}")
    _check_arguments(name, kind, arguments)
    if "transforms" in arguments:
        arguments["transforms"] = [_build(library, child, fill) for child in _steps(arguments["transforms"])]
    for key in ("fill", "fill_mask"):
        if arguments.get(key) == "mean":
            arguments[key] = _grey_values(fill)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on names; what does not fit is an error
            return kind(**{key: _tuples(value) for key, value in arguments.items()})
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"albumentations refuses {name}({_spelled(arguments)}): {reason}") from error


def _check_arguments(name: Any, kind: type, arguments: dict[str, Any]) -> None:
    known = [key for key in inspect.signature(kind.__init__).parameters if key not in ("self", "kwargs")]
    if unknown := [key for key in arguments if key not in known]:
        raise InputError(f"{name} has no argument {unknown[0]!r}; {nearest(unknown[0], known)}")


def _tuples(value: Any) -> Any:
    # TOML knows lists only; a list of transforms stays one.
    plain = isinstance(value, list) and all(isinstance(item, int | float | list) for item in value)
    return tuple(_tuples(item) for item in value) if plain else value


def _spelled(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
