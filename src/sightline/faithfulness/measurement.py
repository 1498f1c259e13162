"""What a measure takes and returns: the score that it watches, and one number per image with its interval.

A score is a function `(images, rows) -> (M,)`: images float (M, C, H, W), rows (M,) the index of
the image that each of them was made from, so that many variants of an image share its target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sightline.attribution import validation
from sightline.attribution.wrapped_model import Score as OwnScore
from sightline.attribution.wrapped_model import score_of
from sightline.errors import InputError, InputTypeError
from sightline.models.device import device_of, evaluating
from sightline.stats import bootstrap_interval

Maps = np.ndarray | torch.Tensor
Classes = int | Sequence[int] | np.ndarray | torch.Tensor
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
OutputScore = OwnScore  # as `score` of explain
# (rows, steps), both (M,) -> images (M, C, H, W)
Vary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Measurement:
    """One number per image, and how it was measured.

    Attributes:
        measure: Its name.
        values: (B,) float64.
        higher_is_better: How to read them.
        curve: (B, S), the score at each step; None for measures without steps.
        shares: (S,), the exact share of pixels changed at each step (for `randomization`, of layers), or
            None.
        fill: The name of the function that replaced removed pixels, or None.
        chance: (B,), what is expected by chance: what a map that knows nothing gets on each image; None if
            that is not known.
    """

    measure: str
    values: np.ndarray
    higher_is_better: bool
    curve: np.ndarray | None = None
    shares: np.ndarray | None = None
    fill: str | None = None
    chance: np.ndarray | None = None

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Over the images."""
        return float(self.values.mean())

    def interval(self, *, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the mean over images."""
        low, high = bootstrap_interval(self.values, seed=seed)
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval()
        fill = f", fill {self.fill}" if self.fill else ""
        chance = "" if self.chance is None else f", expected by chance {self.chance.mean():.3f}"
        better = "higher" if self.higher_is_better else "lower"
        return (
            f"{self.measure} {self.mean:.3f} [{low:.3f}, {high:.3f}], n {self.n}{fill}{chance}; "
            f"{better} is better"
        )


def class_probability(model: nn.Module, targets: Classes, *, score: OutputScore | None = None) -> Score:
    """Return the score "probability of the image's target class", in [0, 1].

    Args:
        model: A classifier. It runs in evaluation mode and without gradients, and is left as it was found.
        targets: (B,), one class per image.
        score: As of `explain`, from what the model returns to logits, or to one number per image: then it is
            that number.
    """
    return _class_score(model, targets, lambda logits: logits.softmax(dim=1), score)


def class_logit(model: nn.Module, targets: Classes, *, score: OutputScore | None = None) -> Score:
    """Return the score "logit of the image's target class"; otherwise as `class_probability`."""
    return _class_score(model, targets, lambda logits: logits, score)


def _class_score(
    model: nn.Module,
    targets: Classes,
    scale: Callable[[torch.Tensor], torch.Tensor],
    output_score: OutputScore | None,
) -> Score:
    # An int stands for one image; more rows than targets are caught below.
    classes = as_classes(targets, 1 if isinstance(targets, int) else len(targets))

    def score(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if int(rows.max()) >= len(classes):
            raise InputError(f"there are {len(classes)} targets and more images; pass one target per image")
        logits = logits_of(model, images, score=output_score, rows=rows)  # (M, C)
        if output_score is not None and logits.shape[1] == 1:
            return logits[:, 0]
        wanted = classes[rows].to(logits.device)  # (M,)
        if not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
            raise InputError(
                f"targets range from {int(classes.min())} to {int(classes.max())}; "
                f"the model has {logits.shape[1]} classes: 0 to {logits.shape[1] - 1}"
            )
        return scale(logits).gather(1, wanted[:, None])[:, 0]

    return score


def logits_of(
    model: nn.Module,
    images: torch.Tensor,
    *,
    score: OutputScore | None = None,
    rows: torch.Tensor | None = None,
    batch_size: int = 64,
) -> torch.Tensor:
    """Return the logits (B, C), at least float32, of float images (B, C, H, W) in evaluation mode.

    With a `score` of one number per image they are (B, 1); `rows` (B,) int64 is which image each is of, for a
    score that asks for it, and their order otherwise. Modes, gradients and the random state are left as
    they were found.
    """
    floating = (tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point())
    dtype = next((tensor.dtype for tensor in floating), images.dtype)
    device = device_of(model)
    cuda = [device] if device.type == "cuda" else []
    parts = []
    with torch.no_grad(), torch.random.fork_rng(cuda), evaluating(model):
        index = torch.arange(len(images)) if rows is None else rows
        for part, own in zip(images.split(batch_size), index.split(batch_size), strict=True):
            logits = model(part.to(device, dtype))
            if score is not None:
                logits = score_of(score, logits, own.to(device))
                logits = validation.check_logits(logits, len(part), scored=True)
            if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
                came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
                raise InputError(
                    f"the model returned {came}; measures need logits (B, C): wrap it so that it returns "
                    "them, or pass score="
                )
            parts.append(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    return torch.cat(parts)


def score_variants(score: Score, vary: Vary, *, images: int, steps: int, batch_size: int) -> np.ndarray:
    """Score `steps` variants of each of `images` images: (images, steps) float64.

    Never more than `batch_size` variants are held at a time; a batch may span images and steps.
    """
    check_at_least("batch_size", batch_size, 1)
    values = np.empty(images * steps)
    for start in range(0, images * steps, batch_size):
        flat = torch.arange(start, min(start + batch_size, images * steps))
        rows = flat // steps
        values[start : start + len(flat)] = score(vary(rows, flat % steps), rows).cpu().numpy()
    return values.reshape(images, steps)


def check_images(images: object) -> torch.Tensor:
    """Return the images if they are float (B, C, H, W), at least one."""
    if isinstance(images, torch.Tensor) and images.ndim == 4 and images.is_floating_point() and len(images):
        return images.detach()
    came = (
        f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
    )
    raise InputError(f"images are {came}; pass a float tensor (B, 3, H, W) in [0, 1], at least one")


def as_maps(maps: Maps, images: torch.Tensor | None = None) -> np.ndarray:
    """Return maps (B, H, W) as float64, one of the image's size per image."""
    values = _array(maps).astype(np.float64)
    if values.ndim != 3:
        raise InputError(f"maps are {values.shape}; pass (B, H, W), a single map as maps[None]")
    if images is not None and values.shape != (len(images), *images.shape[2:]):
        fits = (len(images), *images.shape[2:])
        raise InputError(
            f"maps are {values.shape} for images {tuple(images.shape)}; pass {fits}: explanation.heatmaps()"
        )
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))[0])
        raise InputError(
            f"map {bad} holds NaN or infinity; leave it out, or pass explanation.heatmaps(): zeros there"
        )
    return values


def as_masks(masks: Maps, shape: tuple[int, ...]) -> np.ndarray:
    """Return masks (B, H, W) as booleans, of the maps' shape."""
    values = _array(masks)
    if values.shape != shape:
        raise InputError(f"masks are {values.shape} and maps {shape}; pass one mask of the same size per map")
    return values.astype(bool)


def as_classes(targets: Classes, count: int) -> torch.Tensor:
    """Return one class per image, (B,) int64 on the CPU."""
    classes = validation.as_classes(targets, count)
    if not isinstance(classes, torch.Tensor):
        raise InputTypeError(f"targets are {type(targets).__name__}; pass an integer, or one per image")
    return classes.cpu()


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below `least`."""
    if value < least:
        raise InputError(f"{name} is {value}; it needs at least {least}")


def _array(values: Maps) -> np.ndarray:
    return values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
