"""A network's weights drawn anew in a copy: the untrained twin, and the cascade from the top.

A method whose maps stay the same when the weights are gone shows the image, not the model (Adebayo
2018). Maps of unrelated things are alike to some degree too (Binder 2023, Hedstrom 2023), so the
similarity stands beside that of maps of different images under the trained model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.explain import explain
from sightline.faithfulness.arguments import Classes, as_classes, check_at_least, check_images
from sightline.faithfulness.measurement import Measurement
from sightline.faithfulness.scores import logits_of
from sightline.faithfulness.similarity import spearman
from sightline.models.execution import device_of
from sightline.models.layers import layer_name

Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


def untrained_twin(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy of the model with all weights drawn anew from the seed; the model stays as it is.

    Each layer draws by its own `reset_parameters`; weights that no such function covers are shuffled.

    Raises SightlineError if the model has no weights.
    """
    twin = copy.deepcopy(model)
    for position, layer in enumerate(_layers_to_redraw(twin)):
        _redraw(layer, seed=seed, position=position)
    return twin


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

    images: float (B, C, H, W), at least two. targets: None (the class the trained model predicts), one
    for all, or one per image. The layers, in the order in which the model names them, are drawn anew
    from the last to the first, in at most `steps` groups of about equal size. `curve` (B, S) is the
    similarity of the raw maps before, and after each group; `shares` (S,) the share of layers drawn
    anew, 0 to 1; `values` the end of the curve. `baseline` is the similarity to the next image's map:
    a method that shows the model falls to about that.

    Raises SightlineError if there are fewer than two images, or the model has no weights.
    """
    images = check_images(images)
    check_at_least("steps", steps, 1)
    if len(images) < 2:
        raise SightlineError(
            "there is 1 image; randomization needs 2 or more, to compare maps of different ones"
        )
    classes = logits_of(model, images).argmax(dim=1) if targets is None else as_classes(targets, len(images))
    chosen = {"method": method, "layer": name_in(model, layer)}
    own = explain(model, images, classes, **chosen).maps  # (B, h, w)
    twin = copy.deepcopy(model)
    top_down = list(enumerate(_layers_to_redraw(twin)))[::-1]
    curve, shares = [similarity(own, own)], [0.0]
    for group in np.array_split(np.arange(len(top_down)), min(steps, len(top_down))):
        for position, module in (top_down[index] for index in group):
            _redraw(module, seed=seed, position=position)
        curve.append(similarity(own, np.nan_to_num(explain(twin, images, classes, **chosen).maps)))
        shares.append((group[-1] + 1) / len(top_down))
    return Measurement(
        "randomization",
        curve[-1],
        False,
        curve=np.stack(curve, axis=1),
        shares=np.array(shares),
        baseline=similarity(own, np.roll(own, 1, axis=0)),
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
        raise SightlineError(f"{type(model).__name__} has no weights, so there is no untrained twin of it")
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
