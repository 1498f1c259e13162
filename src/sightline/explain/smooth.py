"""Gradients averaged over noisy copies of an image: SmoothGrad and Smooth Grad-CAM++.

SmoothGrad is Smilkov et al. 2017, arXiv:1706.03825; Smooth Grad-CAM++ Omeiza et al. 2019, "Smooth
Grad-CAM++: An Enhanced Inference Level Visualization Technique", arXiv:1908.01224.

One deviation: Omeiza averages the derivatives of the copies and joins their means to the activations
of the clean image. Here the derivatives of a copy meet its own activations, and the signed maps are
averaged: the weights of Grad-CAM++ are ratios of powers of one gradient, and a ratio of means is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from sightline.explain.cams import grad_cam_plus_plus
from sightline.explain.case import Case
from sightline.explain.copies import per_pass
from sightline.explain.input_gradients import gradients, strongest
from sightline.explain.subject import widened


def smooth_grad(case: Case, *, samples: int = 50, noise: float = 0.15, seed: int = 0) -> torch.Tensor:
    """Return max_c |mean of dy/dx_c over noisy copies|, (B, H, W), not negative (Smilkov 2017, section 3).

    noise: the standard deviation, as a share of the image's own range (the paper: 0.1 to 0.2).
    """
    total = torch.zeros_like(widened(case.images))
    for copies in _noisy(case, samples, noise, seed):
        total += gradients(case, copies).sum(0)
    return strongest(total / samples)


def smooth_grad_cam_plus_plus(
    case: Case, *, samples: int = 16, noise: float = 0.15, seed: int = 0
) -> torch.Tensor:
    """Return the mean Grad-CAM++ of noisy copies, (B, h, w), for the targets of the clean images.

    Signed where the layer is (Omeiza 2019). noise: as in `smooth_grad`.
    """
    maps = []
    for copies in _noisy(case, samples, noise, seed):
        noisy = dataclasses.replace(
            case,
            images=copies.flatten(0, 1).to(case.images.dtype),  # (n * B, C, H, W)
            wanted=case.targets.repeat(len(copies)),
            asked=case.layer,
        )
        each = grad_cam_plus_plus(*noisy.record())  # (n * B, h, w)
        maps.append(each.unflatten(0, (len(copies), -1)).sum(0))
    return torch.stack(maps).sum(0) / samples


def _noisy(case: Case, samples: int, noise: float, seed: int) -> Iterator[torch.Tensor]:
    """Yield Gaussian copies (n, B, C, H, W), `samples` of each image in all.

    Every image meets the same draws, scaled by its own range: so neither the rest of the batch nor
    the size of a pass changes what it gets.
    """
    generator = torch.Generator().manual_seed(seed)
    images = widened(case.images)
    low, high = images.flatten(1).aminmax(dim=1)
    scale = noise * (high - low).view(-1, *[1] * (images.ndim - 1))  # (B, 1, 1, 1)
    for start in range(0, samples, per_pass(case)):
        count = min(per_pass(case), samples - start)
        # One draw at a time: a longer call of randn does not continue where two shorter ones end.
        draws = [torch.randn(images.shape[1:], generator=generator) for _ in range(count)]
        yield images + scale * torch.stack(draws)[:, None].to(images)
