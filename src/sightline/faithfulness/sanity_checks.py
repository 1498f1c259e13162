"""Do maps depend on the model, and not on noise: randomised weights, and small changes of the image.

A method whose maps stay the same when the weights are gone shows the image, not the model (Adebayo
2018). Maps of unrelated things are alike to some degree too (Binder 2023, Hedstrom 2023), so the
similarity is compared with that of maps of different images under the trained model. Sensitivity is how much
a map changes when the image hardly does (Yeh 2019).

A similarity of maps is a function `(a, b) -> (B,)` of two sets of them, image by image, 1 if they are alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import nn

from sightline.attribution import explain
from sightline.errors import InputError
from sightline.faithfulness.measurement import (
    Classes,
    Measurement,
    as_classes,
    check_at_least,
    check_images,
    logits_of,
)
from sightline.models.device import device_of
from sightline.models.layers import layer_name

WINDOW = 7  # Wang 2004 with a uniform window, as most implementations have it


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each pair of maps, from two (B, h, w): (B,) in [-1, 1].

    Equal values share their mean rank. A flat map has no ranks: 0, and 1 against an equal map.

    >>> spearman(np.array([[[1, 2], [3, 4]]]), np.array([[[10, 20], [40, 30]]])).round(1)
    array([0.8])
    """
    first, second = (pd.DataFrame(maps.reshape(len(maps), -1)).rank(axis=1).to_numpy() for maps in (a, b))
    first, second = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (first, second))
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    same = (a == b).all(axis=(1, 2)).astype(float)
    return np.divide((first * second).sum(axis=1), scale, out=same, where=scale > 0)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the structural similarity of each pair of maps, from two (B, h, w): (B,) in [-1, 1].

    Wang 2004, equation 13: the mean over all windows of 7x7 (less where the map is smaller), with each
    map divided by its largest magnitude and a range of 1.
    """
    a, b = (_scaled(maps) for maps in (a, b))
    side = (min(WINDOW, a.shape[1]), min(WINDOW, a.shape[2]))
    first, second = (np.lib.stride_tricks.sliding_window_view(maps, side, axis=(1, 2)) for maps in (a, b))
    across = (3, 4)
    mean_a, mean_b = first.mean(axis=across), second.mean(axis=across)  # (B, h', w')
    both = (first * second).mean(axis=across) - mean_a * mean_b
    spread = first.var(axis=across) + second.var(axis=across)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))).mean(axis=(1, 2))


def _scaled(maps: np.ndarray) -> np.ndarray:
    top = np.abs(maps).max(axis=(1, 2), keepdims=True).astype(np.float64)
    return maps / np.where(top > 0, top, 1)


Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


def untrained_copy(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy of the model with all weights drawn anew from the seed; the model stays as it is.

    Each layer draws by its own `reset_parameters`; weights that no such function covers are shuffled.

    Raises:
        InputError: The model has no weights.
    """
    untrained = copy.deepcopy(model)
    for position, layer in enumerate(_layers_to_redraw(untrained)):
        _redraw(layer, seed=seed, position=position)
    return untrained


def randomization(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes | None = None,
    *,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    similarity: Similarity = spearman,
    steps: int = 8,
    seed: int = 0,
) -> Measurement:
    """Similarity of the maps to their own as layers are re-initialised from the top; lower is better.

    The layers, in the order in which the model names them, are drawn anew from the last to the first.

    Args:
        model: A classifier; it stays as it is.
        images: Float (B, C, H, W), at least two.
        targets: None (the class the trained model predicts), one for all, or one per image.
        method: As for `explain`.
        layer: As for `explain`.
        similarity: Of maps.
        steps: Groups of layers of about equal size, at most.
        seed: Of the weights.

    Returns:
        curve (B, S): the similarity of the raw maps before, and after each group. shares (S,): the share of
        layers drawn anew, 0 to 1. values: the end of the curve. chance: the similarity to the next image's
        map; a method that shows the model falls to about that.

    Raises:
        InputError: There are fewer than two images, or the model has no weights.
    """
    images = check_images(images)
    check_at_least("steps", steps, 1)
    if len(images) < 2:
        raise InputError("there is 1 image; randomization needs 2 or more, to compare maps of different ones")
    classes = logits_of(model, images).argmax(dim=1) if targets is None else as_classes(targets, len(images))
    chosen = {"method": method, "layer": name_in(model, layer)}
    own = explain(model, images, classes, **chosen).maps  # (B, h, w)
    randomized = copy.deepcopy(model)
    top_down = list(enumerate(_layers_to_redraw(randomized)))[::-1]
    curve, shares = [similarity(own, own)], [0.0]
    for group in np.array_split(np.arange(len(top_down)), min(steps, len(top_down))):
        for position, module in (top_down[index] for index in group):
            _redraw(module, seed=seed, position=position)
        curve.append(similarity(own, np.nan_to_num(explain(randomized, images, classes, **chosen).maps)))
        shares.append((group[-1] + 1) / len(top_down))
    return Measurement(
        "randomization",
        curve[-1],
        False,
        curve=np.stack(curve, axis=1),
        shares=np.array(shares),
        chance=similarity(own, np.roll(own, 1, axis=0)),
    )


def name_in(model: nn.Module, layer: str | nn.Module | None) -> str | None:
    """Return the layer's name, by which a copy of the model knows it too; None stays None."""
    return layer_name(model, layer) if isinstance(layer, nn.Module) else layer


def _layers_to_redraw(model: nn.Module) -> list[nn.Module]:
    """Return the modules with weights or statistics of their own, in the order of `named_modules`."""
    found = [
        module
        for module in model.modules()
        if hasattr(module, "reset_parameters") or any(True for _ in module.parameters(recurse=False))
    ]
    if not found:
        raise InputError(f"{type(model).__name__} has no weights, so no untrained copy of it can be made")
    return found


def _redraw(module: nn.Module, *, seed: int, position: int) -> None:
    """Draw the module's weights anew, on the CPU so that every device gets the same ones."""
    device = device_of(module)
    module.to("cpu")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        # Layers of one shape must not get the same weights, nor any the ones that a model made after
        # torch.manual_seed(seed) began with.
        state = np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)
        torch.default_generator.manual_seed(int(state[0]))
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
        else:
            for weight in module.parameters(recurse=False):
                weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
    module.to(device)


def sensitivity(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes | None = None,
    *,
    method: str | Callable = "grad_cam",
    layer: str | nn.Module | None = None,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> Measurement:
    """`max |map(x + noise) - map(x)| / |map(x)|` over noise of at most `radius` per value; lower is better.

    Yeh 2019, definition 2.3 with the Frobenius norm, in units of the map's own norm, on raw maps. A map of
    zeros gets 0 if it stays so, and 1 if it does not.

    Args:
        model: A classifier.
        images: Float (B, C, H, W).
        targets: None (the class predicted for the clean image), one for all, or one per image.
        method: As for `explain`.
        layer: As for `explain`.
        radius: Of the uniform noise, in units of the images.
        samples: Draws of noise; the largest change counts.
        seed: Of the noise.
    """
    check_at_least("samples", samples, 1)
    check_at_least("radius", radius, 0)
    images = check_images(images)
    classes = logits_of(model, images).argmax(dim=1) if targets is None else as_classes(targets, len(images))
    own = explain(model, images, classes, method=method, layer=layer).maps  # (B, h, w)
    rng = np.random.default_rng(seed)
    largest = np.zeros(len(images))
    for _ in range(samples):
        noise = torch.from_numpy(rng.uniform(-radius, radius, images.shape)).to(images.dtype)
        maps = explain(model, images + noise.to(images.device), classes, method=method, layer=layer).maps
        largest = np.maximum(largest, np.linalg.norm(maps - own, axis=(1, 2)))
    norm = np.linalg.norm(own, axis=(1, 2)).astype(np.float64)
    values = np.divide(largest, norm, out=(largest > 0).astype(float), where=norm > 0)
    return Measurement("sensitivity", values, False)
