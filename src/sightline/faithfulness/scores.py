"""The number that a measure watches: the probability or the logit of each image's target class.

A score is a function `(images, rows) -> (M,)`: images float (M, C, H, W), rows (M,) the index of
the image that each of them was made from, so that many variants of an image share its target.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.faithfulness.arguments import Classes, as_classes, check_at_least
from sightline.models.execution import device_of, evaluating

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# (rows, steps), both (M,) -> images (M, C, H, W)
Vary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def class_probability(model: nn.Module, targets: Classes) -> Score:
    """Return the score "probability of the image's target class", in [0, 1].

    targets: (B,), one class per image. The model runs in evaluation mode and without gradients,
    and is left as it was found.
    """
    return _class_score(model, targets, lambda logits: logits.softmax(dim=1))


def class_logit(model: nn.Module, targets: Classes) -> Score:
    """Return the score "logit of the image's target class"; otherwise as `class_probability`."""
    return _class_score(model, targets, lambda logits: logits)


def _class_score(model: nn.Module, targets: Classes, scale: Callable[[torch.Tensor], torch.Tensor]) -> Score:
    # An int stands for one image; more rows than targets are caught below.
    classes = as_classes(targets, 1 if isinstance(targets, int) else len(targets))

    def score(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if int(rows.max()) >= len(classes):
            raise SightlineError(
                f"there are {len(classes)} targets and more images; pass one target per image"
            )
        logits = logits_of(model, images)  # (M, C)
        wanted = classes[rows].to(logits.device)  # (M,)
        if not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
            raise SightlineError(
                f"targets range from {int(classes.min())} to {int(classes.max())}; "
                f"the model has {logits.shape[1]} classes: 0 to {logits.shape[1] - 1}"
            )
        return scale(logits).gather(1, wanted[:, None])[:, 0]

    return score


def logits_of(model: nn.Module, images: torch.Tensor, *, batch_size: int = 64) -> torch.Tensor:
    """Return the logits (B, C), at least float32, of float images (B, C, H, W) in evaluation mode.

    Modes, gradients and the random state are left as they were found.
    """
    floating = (tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point())
    dtype = next((tensor.dtype for tensor in floating), images.dtype)
    device = device_of(model)
    cuda = [device] if device.type == "cuda" else []
    parts = []
    with torch.no_grad(), torch.random.fork_rng(cuda), evaluating(model):
        for part in images.split(batch_size):
            logits = model(part.to(device, dtype))
            if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
                came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
                raise SightlineError(
                    f"the model returned {came}; measures need logits (B, C): wrap it so that it returns them"
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
