"""How much a map changes when the image hardly does (Yeh 2019)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sightline.explain import explain
from sightline.faithfulness.arguments import Classes, as_classes, check_at_least, check_images
from sightline.faithfulness.measurement import Measurement
from sightline.faithfulness.scores import logits_of


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
    """max |map(x + noise) - map(x)| / |map(x)| over noise of at most `radius` per value; lower is better.

    images: float (B, C, H, W). targets: None (the class predicted for the clean image), one for all, or
    one per image. Yeh 2019, definition 2.3 with the Frobenius norm, in units of the map's own
    norm, on raw maps: the largest over `samples` draws of uniform noise. A map of zeros gets 0 if it
    stays so, and 1 if it does not.
    """
    check_at_least("samples", samples, 1)
    check_at_least("radius", radius, 0)
    images = check_images(images)
    classes = logits_of(model, images).argmax(dim=1) if targets is None else as_classes(targets, len(images))
    own = explain(model, images, classes, method=method, layer=layer).maps  # (B, h, w)
    rng = np.random.default_rng(seed)
    largest = np.zeros(len(images))
    for _ in range(samples):
        noise = (
            torch.from_numpy(rng.uniform(-radius, radius, images.shape)).to(images.dtype).to(images.device)
        )
        maps = explain(model, images + noise, classes, method=method, layer=layer).maps
        largest = np.maximum(largest, np.linalg.norm(maps - own, axis=(1, 2)))
    norm = np.linalg.norm(own, axis=(1, 2)).astype(np.float64)
    values = np.divide(largest, norm, out=(largest > 0).astype(float), where=norm > 0)
    return Measurement("sensitivity", values, False)
