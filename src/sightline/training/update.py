"""One step of training, shared by the loop and the learning-rate finder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sightline.data import Augmentation, Dataset, ResidentBatches, Split, StreamedBatches
from sightline.errors import SightlineError
from sightline.models import autocast

if TYPE_CHECKING:
    import albumentations


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    precision: str,
    label_smoothing: float = 0.0,
    l1: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change the weights once; return the batch's mean cross-entropy and its number of hits, on the device.

    images: (B, 3, H, W) in [0, 1]. labels: (B,). The returned loss is the plain one, without smoothing
    and penalty, so that it can stand beside the test loss.
    """
    with autocast(images.device, precision):
        logits = model(images)  # (B, C)
    logits = logits.float()
    objective = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    loss = F.cross_entropy(logits.detach(), labels) if label_smoothing else objective.detach()
    if l1:
        weights = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        objective = objective + l1 * torch.stack([w.abs().sum() for w in weights]).sum()
    optimizer.zero_grad(set_to_none=True)
    objective.backward()
    optimizer.step()
    return loss, (logits.detach().argmax(1) == labels).sum()


def training_batches(
    split: Split,
    data: Dataset,
    *,
    batch_size: int,
    augmentation: Augmentation | albumentations.Compose | None,
    seed: int,
    device: torch.device,
) -> ResidentBatches | StreamedBatches:
    """Return shuffled batches: crop, flip and hole on the device, any other transform through workers."""
    fill = tuple(data.mean.tolist())
    options: dict[str, Any] = {
        "batch_size": batch_size, "seed": seed, "device": device, "drop_last": False,
    }  # fmt: skip
    if augmentation is None or isinstance(augmentation, Augmentation):
        return ResidentBatches(split, augmentation=augmentation, fill=fill, **options)
    return StreamedBatches(split, augmentation, **options)


def check_outputs(model: nn.Module, data: Dataset, device: torch.device) -> None:
    """Raise SightlineError unless the model returns one logit per class for an image of `data`."""
    from sightline.predictions import predict

    first = Split(np.ascontiguousarray(data.train.images[:1]), data.train.labels[:1])
    model.to(device)
    try:
        predict(model, first, class_names=data.class_names)
    except RuntimeError as error:
        height, width = data.image_size
        line = str(error).splitlines()[0]
        raise SightlineError(f"the model cannot take images of {height}x{width} pixels: {line}") from None
