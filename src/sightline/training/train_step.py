"""One step of training, shared by the loop and the learning-rate finder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sightline.data import Augmentation, Dataset, ImageFiles, ResidentBatches, Split, StreamedBatches
from sightline.errors import SightlineError, nearest
from sightline.models import autocast
from sightline.training.callbacks import Mixed

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
    mixed: Mixed | None = None,
    weight: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change the weights once; return the batch's mean cross-entropy and its logits, on the device.

    images: (B, 3, H, W) in [0, 1]. labels: (B,). mixed: what the images were mixed of; the objective is then
    the mean of both labels' losses, weighted by their shares. The returned loss is the plain one, against
    the images' own labels and without smoothing and penalty, so that it can stand beside the test loss.
    The logits, (B, C) float32, are those from before the weights changed. weight: factor of what is
    minimised.
    """
    with autocast(images.device, precision):
        logits = model(images)  # (B, C)
    logits = logits.float()
    objective = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    loss = F.cross_entropy(logits.detach(), labels) if label_smoothing else objective.detach()
    if mixed is not None:
        other = F.cross_entropy(logits, labels[mixed.partners], label_smoothing=label_smoothing)
        objective = mixed.share * objective + (1 - mixed.share) * other
    if l1:
        weights = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        objective = objective + l1 * torch.stack([w.abs().sum() for w in weights]).sum()
    optimizer.zero_grad(set_to_none=True)
    (objective if weight == 1 else weight * objective).backward()
    optimizer.step()
    return loss, logits.detach()


@contextlib.contextmanager
def freezing(model: nn.Module, freeze: Mapping[str, int]) -> Iterator[Callable[[int], None]]:
    """Yield a function of the epoch (from 0) that stops what has trained for its epochs; undo it at the end.

    freeze: epochs by the name of a parameter or of a layer. A frozen parameter takes neither gradient nor
    momentum nor weight decay, and the backward pass ends before layers that are frozen from the first on.

    Raises SightlineError for a name that means nothing that trains.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen = {
        name: [p for key, p in trained.items() if key == name or key.startswith(f"{name}.")]
        for name in freeze
    }
    for name, parameters in chosen.items():
        if not parameters:
            layers = [key.rpartition(".")[0] for key in trained]
            raise SightlineError(
                f"freeze: nothing that trains is called {name!r} in this {type(model).__name__}; "
                f"{nearest(name, sorted({*trained, *layers} - {''}))}"
            )

    def at(epoch: int) -> None:
        for name, parameters in chosen.items():
            for parameter in parameters:
                parameter.requires_grad_(epoch < freeze[name])

    try:
        yield at
    finally:
        for parameter in trained.values():
            parameter.requires_grad_(True)


def training_batches(
    split: Split,
    data: Dataset,
    *,
    batch_size: int,
    augmentation: Augmentation | albumentations.Compose | None,
    seed: int,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
) -> ResidentBatches | StreamedBatches:
    """Return shuffled batches: crop, flip and hole on the device, any other transform through workers, and
    through these too whatever images stay in their files.

    shard: the part of each batch that this process takes, and how many parts there are.
    """
    fill = tuple(data.mean.tolist())
    options: dict[str, Any] = {
        "batch_size": batch_size, "seed": seed, "device": device, "drop_last": False, "fill": fill,
        "shard": shard,
    }  # fmt: skip
    in_files = isinstance(split.images, ImageFiles)
    if not in_files and (augmentation is None or isinstance(augmentation, Augmentation)):
        return ResidentBatches(split, augmentation=augmentation, **options)
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
