"""Albumentations: transforms listed in a recipe, and the same distribution as `Augmentation`.

albumentations (extra `[albumentations]`) is imported when it is first needed, with its check for
updates switched off, so that nothing reaches the network.
"""

from __future__ import annotations

import difflib
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import SightlineError, nearest

if TYPE_CHECKING:
    import albumentations

    from sightline.data.augment import Augmentation


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
            "this augmentation needs albumentations; install it with: pip install 'sightline[albumentations]'"
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
