"""Which pixels change the score: gradients with respect to the input, each a function of the context.

    >>> from torch import nn
    >>> from sightline.attribution import explain
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> explain(model, torch.rand(2, 3, 8, 8), method="saliency").maps.shape
    (2, 8, 8)

With y the target's score, x the image, c its channels and g the gradient that reaches a ReLU:

    saliency               max_c |dy/dx_c|               Simonyan 2014, arXiv:1312.6034, section 3.1
    integrated gradients   sum_c (x - x')_c int_0^1 dy/dx_c(x' + t (x - x')) dt
                                                         Sundararajan 2017, arXiv:1703.01365, eq. 1
    deconvnet              saliency, a ReLU passing back max(g, 0)             Zeiler 2014, arXiv:1311.2901
    guided backprop        the same, 1[x > 0] max(g, 0)                   Springenberg 2015, arXiv:1412.6806
    guided Grad-CAM        guided backprop * max(Grad-CAM, 0), resized      Selvaraju 2017, arXiv:1610.02391
    SmoothGrad             max_c |.| of the mean dy/dx over noisy copies  Smilkov 2017, arXiv:1706.03825
    Smooth Grad-CAM++      mean of Grad-CAM++ over noisy copies         Omeiza 2019, arXiv:1908.01224

Maps have the size of the image, but for Smooth Grad-CAM++, whose size is the layer's. What ends in
max_c |.| says how strongly a pixel changes the score and not in which direction: such a map is nowhere
negative. Integrated gradients are signed, and sum to y(x) - y(x').

One deviation: Omeiza averages the derivatives of the copies and joins their means to the activations
of the clean image. Here the derivatives of a copy meet its own activations, and the signed maps are
averaged: the weights of Grad-CAM++ are ratios of powers of one gradient, and a ratio of means is none.

FullGrad (Srinivas & Fleuret 2019, "Full-Gradient Representation", arXiv:1905.00780) adds the biases. A
network of affine layers and ReLU is, around an image x, a linear function of x and of its biases b,
so that with y the logit (proposition 1, completeness)

    y = x . dy/dx + sum_l b_l . dy/db_l

and the map gathers both terms (eq. 8), psi being |.|, scaled per image to [0, 1], resized to the image:

    psi(x * dy/dx) + sum_l sum_k psi(b_lk * dy/db_lk)

The bias of a layer is what it returns for zeros: the bias of a convolution, beta - gamma mu / sigma
of a batch normalisation (the paper's implicit bias), -mean / std of a normalisation in front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from sightline.attribution.context import AttributionContext
from sightline.attribution.hooks import hooks
from sightline.attribution.methods.cam import grad_cam, grad_cam_plus_plus
from sightline.attribution.scaling import resize, to_unit
from sightline.attribution.validation import warn_of_normalised
from sightline.attribution.wrapped_model import widened
from sightline.errors import InputError

# (gradient at the ReLU's input, gradient at its output) -> what it passes back instead.
Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Rectifiers other than ReLU, as autograd names them: for these the two papers define nothing.
_OTHER_RECTIFIERS = {
    *("Gelu", "Silu", "Mish", "Elu", "Celu", "LeakyRelu", "PreluKernel", "RreluWithNoise"),
    *("Hardtanh", "Hardswish", "Softplus", "Threshold"),
}


def saliency(context: AttributionContext) -> torch.Tensor:
    """Return max_c |dy/dx_c|, (B, H, W), not negative (Simonyan 2014, section 3.1)."""
    return strongest(gradient(context))


def integrated_gradients(
    context: AttributionContext,
    *,
    steps: int = 50,
    baseline: Callable[[torch.Tensor], torch.Tensor] = torch.zeros_like,
) -> torch.Tensor:
    """Return the signed share of each pixel in y(x) - y(x'), (B, H, W), summed over channels.

    The sum over a map equals y(x) - y(x') up to the error of the rule (Sundararajan 2017, Proposition 1).

    Args:
        context: Model, images and targets.
        steps: Points of the Gauss-Legendre rule on the path.
        baseline: From images to x', of the same shape; black by default.
    """
    if baseline is torch.zeros_like:
        warn_of_normalised(context.images, "the path begins at the mean colour where black was meant")
    start = widened(baseline(context.images))
    way = widened(context.images) - start  # (B, C, H, W)
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    shape = (-1, *[1] * way.ndim)
    at = torch.from_numpy((points + 1) / 2).to(way).view(shape)  # (steps, 1, 1, 1, 1) on [0, 1]
    share = torch.from_numpy(weights / 2).to(way).view(shape)  # their sum is 1
    total = torch.zeros_like(way)
    for some, shares in zip(
        at.split(context.copies_per_pass), share.split(context.copies_per_pass), strict=True
    ):
        total += (shares * gradients(context, start + some * way)).sum(0)
    return (way * total).sum(1)


def guided_backprop(context: AttributionContext) -> torch.Tensor:
    """Return saliency with every ReLU passing back 1[x > 0] max(g, 0), (B, H, W), not negative.

    (Springenberg 2015, section 3.4.) The operation is overridden where autograd recorded it, so a
    functional, reused or in-place ReLU counts as any other.

    Raises:
        InputError: The model applies another rectifier, such as GELU, or no ReLU.
    """
    return strongest(gradient(context, lambda before, after: before.clamp(min=0)))


def deconvnet(context: AttributionContext) -> torch.Tensor:
    """Return saliency with every ReLU passing back max(g, 0) wherever x was, (B, H, W), not negative.

    (Zeiler & Fergus 2014, section 2.1; its relation to gradients: Simonyan 2014, section 4.)

    Raises:
        InputError: As `guided_backprop`.
    """
    return strongest(gradient(context, lambda before, after: after.clamp(min=0)))


def guided_grad_cam(context: AttributionContext) -> torch.Tensor:
    """Return guided backprop times the positive part of the resized Grad-CAM, (B, H, W), not negative.

    (Selvaraju 2017, section 3.2.)

    Raises:
        InputError: As `guided_backprop`.
    """
    fine = guided_backprop(context)
    coarse = grad_cam(*context.record()).clamp(min=0)  # (B, h, w)
    return fine * resize(coarse, fine.shape[1:])


def strongest(gradient: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude over the channels, (B, C, H, W) to (B, H, W)."""
    return gradient.abs().amax(dim=1)


def gradient(context: AttributionContext, rule: Rule | None = None) -> torch.Tensor:
    """Return dy/dx (B, C, H, W), float32 or float64: one forward and one backward pass, logits included.

    rule: replaces the backward pass of every ReLU.

    Raises:
        InputError: No gradient reaches the images.
    """
    images, score = context.images_and_score()
    if rule:
        _override_relu(score, rule)
    return widened(_slope(score, images))


def gradients(context: AttributionContext, copies: torch.Tensor) -> torch.Tensor:
    """Return dy/dx at n copies of every image, (n, B, C, H, W), float32 or float64, in one pass.

    Raises:
        InputError: No gradient reaches the images.
    """
    with torch.enable_grad():
        copies = widened(copies.detach()).requires_grad_()
        return _slope(context.score_copies(copies), copies)


def _slope(score: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    found = None
    if score.requires_grad:  # with ones: no image depends on another, so each gets its own gradient
        found = torch.autograd.grad(score, images, torch.ones_like(score), allow_unused=True)[0]
    if found is None:
        raise InputError(
            "no gradient flows from the score to the images: the model detaches them or switches "
            "gradients off; use a method without gradients, such as occlusion or rise"
        )
    return found


def _override_relu(score: torch.Tensor, rule: Rule) -> None:
    """Replace the backward pass of every ReLU in the graph of `score`; the model itself is not touched."""
    waiting, seen, found = [score.grad_fn], set(), 0
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.extend(earlier for earlier, _ in node.next_functions)
        name = node.name().partition("Backward")[0]
        if name in _OTHER_RECTIFIERS:
            raise InputError(
                f"the model applies {name}, and guided backprop and deconvnet are defined for ReLU only; "
                "use saliency or integrated_gradients"
            )
        if name == "Relu":
            found += 1
            node.register_hook(lambda inputs, outputs: (rule(inputs[0], outputs[0]),))
    if not found:
        raise InputError(
            "autograd recorded no ReLU in this model, so guided backprop and deconvnet would be plain "
            "gradients; use saliency or integrated_gradients"
        )


def smooth_grad(
    context: AttributionContext, *, samples: int = 50, noise: float = 0.15, seed: int = 0
) -> torch.Tensor:
    """Return max_c |mean of dy/dx_c over noisy copies|, (B, H, W), not negative (Smilkov 2017, section 3).

    Args:
        context: Model, images and targets.
        samples: Noisy copies of each image.
        noise: The standard deviation, as a share of the image's own range (the paper: 0.1 to 0.2).
        seed: Of the noise, which is the same for every image.
    """
    total = torch.zeros_like(widened(context.images))
    for copies in _noisy(context, samples, noise, seed):
        total += gradients(context, copies).sum(0)
    return strongest(total / samples)


def smooth_grad_cam_plus_plus(
    context: AttributionContext, *, samples: int = 16, noise: float = 0.15, seed: int = 0
) -> torch.Tensor:
    """Return the mean Grad-CAM++ of noisy copies, (B, h, w), for the targets of the clean images.

    Signed where the layer is (Omeiza 2019). The arguments are those of `smooth_grad`.
    """
    maps = []
    for copies in _noisy(context, samples, noise, seed):
        noisy = dataclasses.replace(
            context,
            wrapped=dataclasses.replace(context.wrapped, every=len(context.images)),
            images=copies.flatten(0, 1).to(context.images.dtype),  # (n * B, C, H, W)
            requested_targets=context.targets.repeat(len(copies)),
            requested_layer=context.layer,
        )
        each = grad_cam_plus_plus(*noisy.record())  # (n * B, h, w)
        maps.append(each.unflatten(0, (len(copies), -1)).sum(0))
    return torch.stack(maps).sum(0) / samples


def _noisy(context: AttributionContext, samples: int, noise: float, seed: int) -> Iterator[torch.Tensor]:
    """Yield Gaussian copies (n, B, C, H, W), `samples` of each image in all.

    Every image meets the same draws, scaled by its own range: so neither the rest of the batch nor
    the size of a pass changes what it gets.
    """
    generator = torch.Generator().manual_seed(seed)
    images = widened(context.images)
    low, high = images.flatten(1).aminmax(dim=1)
    scale = noise * (high - low).view(-1, *[1] * (images.ndim - 1))  # (B, 1, 1, 1)
    for start in range(0, samples, context.copies_per_pass):
        count = min(context.copies_per_pass, samples - start)
        # One draw at a time: a longer call of randn does not continue where two shorter ones end.
        draws = [torch.randn(images.shape[1:], generator=generator) for _ in range(count)]
        yield images + scale * torch.stack(draws)[:, None].to(images)


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
    for name, layer in context.model.named_modules():
        if ".quantized" in type(layer).__module__:
            raise InputError(
                f"full_grad needs the gradients of biases, and {name!r} is quantised; explain the model that "
                "it was made of, or use a method without gradients, such as occlusion"
            )
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
