"""FullGrad (Srinivas & Fleuret 2019, "Full-Gradient Representation", arXiv:1905.00780).

A network of affine layers and ReLU is, around an image x, a linear function of x and of its biases b,
so that with y the logit (proposition 1, completeness)

    y = x . dy/dx + sum_l b_l . dy/db_l

and the map gathers both terms (eq. 8), psi being |.|, scaled per image to [0, 1], resized to the image:

    psi(x * dy/dx) + sum_l sum_k psi(b_lk * dy/db_lk)

    >>> from torch import nn
    >>> from sightline.attribution import explain
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> explain(model, torch.rand(2, 3, 8, 8), method="full_grad").maps.shape
    (2, 8, 8)

The bias of a layer is what it returns for zeros: the bias of a convolution, beta - gamma mu / sigma
of a batch normalisation (the paper's implicit bias), -mean / std of a normalisation in front.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sightline.attribution.context import AttributionContext
from sightline.attribution.hooks import hooks
from sightline.attribution.methods.gradients import gradient
from sightline.attribution.scaling import resize, to_unit
from sightline.attribution.wrapped_model import widened


def full_grad(context: AttributionContext) -> torch.Tensor:
    """Return the FullGrad map (B, H, W), nowhere negative (Srinivas & Fleuret 2019, eq. 8).

    One forward and one backward pass for all terms, and one run on zeros of the layers with a bias;
    each term is reduced as soon as its gradient is there. Terms without a grid, such as the head's
    bias, are not in the map, as in the paper's code. Biases that a module adds in its own `forward`,
    not by a layer, are not seen.
    """
    maps = torch.zeros_like(widened(context.images[:, 0]))  # (B, H, W)

    def gather(term: torch.Tensor) -> None:
        if term.ndim == context.images.ndim:
            # Channels are summed before the resize, which is linear: one map per layer to resize.
            maps.add_(resize(to_unit(widened(term).abs()).sum(1), maps.shape[1:]))

    each_term(context, gather)
    return maps


def each_term(context: AttributionContext, take: Callable[[torch.Tensor], None]) -> None:
    """Pass x * dy/dx (B, C, H, W), and b * dy/db (B, K, ...) of every layer, to `take`, last layer first.

    For a network of affine layers, ReLU and max-pooling all terms of an image sum to its logit.
    """
    layers = {name: layer for name, layer in context.model.named_modules() if _may_hold_bias(layer)}

    def watch(name: str, inputs: tuple, output: object) -> None:
        if not (isinstance(output, torch.Tensor) and output.requires_grad):
            return
        if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor) or not inputs[0].is_floating_point():
            return
        with torch.no_grad():  # not layer(...), which would call this hook again
            bias = layers[name].forward(torch.zeros_like(inputs[0][:1]))  # (1, K, ...)
        if bias.any():
            output.register_hook(lambda slope: take(bias * slope))

    with hooks(layers, watch):
        slope = gradient(context)
    take(context.images * slope)


def _may_hold_bias(layer: nn.Module) -> bool:
    """Whether it is a leaf with a buffer or a parameter other than a weight; activation functions are not."""
    parameters = {name for name, _ in layer.named_parameters(recurse=False)} - {"weight"}
    return bool(parameters or [*layer.buffers(recurse=False)]) and not [*layer.children()]
