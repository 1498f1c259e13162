"""One step of training, shared by the trainer and the learning-rate finder; and mixup and cutmix.

A mix takes a batch and a random generator, and returns pictures of which each is one image's own for the
`share` and that of another image for the rest. The own part is never the smaller one, so that accuracy and
margins against an image's own label keep their sense; by symmetry of the pairs, the batches are
distributed as in the papers all the same.

    >>> mixed = mixup(alpha=1.0)(torch.eye(2).view(2, 1, 1, 2), np.random.default_rng(0))
    >>> 0.5 <= mixed.share <= 1
    True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sightline.data import Dataset, ImageFiles, OnDevice, ResidentBatches, Split, StreamedBatches
from sightline.errors import InputError
from sightline.models import autocast
from sightline.signatures import BelowOne, NonNegative, Positive

if TYPE_CHECKING:
    import albumentations

_STREAM = 3  # the random stream, next to those of order and augmentation


@dataclass(frozen=True)
class Mixed:
    """A batch of mixtures.

    images: (B, 3, H, W). partners: (B,) int64, index within the batch of each image's other one. share: of
    the own images, in [0.5, 1].
    """

    images: torch.Tensor
    partners: torch.Tensor
    share: float


Mix = Callable[[torch.Tensor, np.random.Generator], Mixed]


def mixup(*, alpha: Positive = 1.0) -> Mix:
    """Every picture is share * own + (1 - share) * other (Zhang et al. 2018, arXiv:1710.09412).

    The share is drawn from Beta(alpha, alpha), once for a batch, as in the authors' code.
    """

    def mix(images: torch.Tensor, generator: np.random.Generator) -> Mixed:
        drawn = generator.beta(alpha, alpha)
        share = max(drawn, 1 - drawn)
        partners = _partners(images, generator)
        return Mixed(images.lerp(images[partners], 1 - share), partners, share)

    return mix


def cutmix(*, alpha: Positive = 1.0) -> Mix:
    """Every picture has a rectangle of another one (Yun et al. 2019, arXiv:1905.04899, algorithm 1).

    The rectangle has the picture's aspect and the area 1 - Beta(alpha, alpha), its centre lies anywhere,
    what hangs over the edge is cut, and the share counts the pixels that are left. One rectangle
    for a batch, as in the authors' code.
    """

    def mix(images: torch.Tensor, generator: np.random.Generator) -> Mixed:
        height, width = images.shape[-2:]
        side = np.sqrt(1 - generator.beta(alpha, alpha))
        rows = _span(height, int(height * side), generator)
        columns = _span(width, int(width * side), generator)
        partners = _partners(images, generator)
        inside = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        others = images[partners]
        base, patch = (images, others) if inside <= 0.5 else (others, images)
        mixed = base.clone()
        mixed[:, :, rows, columns] = patch[:, :, rows, columns]
        return Mixed(mixed, partners, max(inside, 1 - inside))

    return mix


def mix_generator(seed: int, epoch: int, step: int) -> np.random.Generator:
    """Return the generator of one batch: a function of its arguments, so that a resumed run draws alike."""
    return np.random.default_rng([seed, epoch, _STREAM, step])


def _span(size: int, length: int, generator: np.random.Generator) -> slice:
    centre = int(generator.integers(size))
    return slice(max(0, centre - length // 2), min(size, centre - length // 2 + length))


def _partners(images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(generator.permutation(len(images))).to(images.device)


MIXES: dict[str, Callable[..., Mix | None]] = {"none": lambda: None, "mixup": mixup, "cutmix": cutmix}
"""Mixes by name: functions that return a mix, or None."""


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """What a step of training minimises: the mean cross-entropy of the batch, or a loss of your own.

    Attributes:
        label_smoothing: Share of each label that is spread over all classes, in [0, 1).
        l1: Factor of the sum of absolute values of matrices and filters, added to the loss.
        class_weights: C factors of the losses of the images of each class; the mean is over images, so that a
            batch shared by several processes has the same gradient. `balanced_weights` makes them.
        adjustment: C values that are added to the logits while training, and not afterwards: tau times the
            log of the classes' shares (Menon et al. 2021, arXiv:2007.07314, equation 10); see `log_prior`.
        loss: A function (logits (B, C) float32, labels (B,) int64) -> scalar, in place of cross-entropy.
    """

    label_smoothing: BelowOne = 0.0
    l1: NonNegative = 0.0
    loss: Loss | None = None
    class_weights: tuple[float, ...] = ()
    adjustment: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.l1 < math.inf:
            raise InputError(
                f"label_smoothing={self.label_smoothing}, l1={self.l1}; "
                "use 0 <= label_smoothing < 1 and l1 >= 0"
            )
        if self.loss is not None and (self.label_smoothing or self.class_weights or self.adjustment):
            raise InputError(
                "label_smoothing, class_weights and adjustment belong to cross-entropy; a loss of your own "
                "does its own"
            )

    @property
    def is_plain(self) -> bool:
        """Whether the loss without the penalty is the plain cross-entropy."""
        return self.loss is None and not (self.label_smoothing or self.class_weights or self.adjustment)

    def of_batch(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, without the penalty. logits: (B, C). labels: (B,)."""
        if self.loss is not None:
            return self.loss(logits, labels)
        if self.adjustment:
            logits = logits + logits.new_tensor(self.adjustment)
        if self.class_weights:
            losses = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
            return (logits.new_tensor(self.class_weights)[labels] * losses).mean()
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def penalty(self, model: nn.Module) -> torch.Tensor:
        """Return `l1` times the sum of absolute values of the matrices and filters that train."""
        weights = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        return self.l1 * torch.stack([w.abs().sum() for w in weights]).sum()


def balanced_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """Return N / (C N_c) for each class: all classes count the same, and the mean over images is 1.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 2)
    (0.6666666666666666, 2.0)
    """
    counts = np.bincount(labels, minlength=classes)
    present = (counts > 0).sum()
    return tuple((len(labels) / (present * np.maximum(counts, 1))).tolist())


def log_prior(labels: np.ndarray, classes: int, *, tau: NonNegative = 1.0) -> tuple[float, ...]:
    """Return tau * log(N_c / N) for each class, the `adjustment` of an objective; of no image as of one."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return tuple((tau * np.log(counts / len(labels))).tolist())


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    precision: str,
    objective: Objective = Objective(),
    mixed: Mixed | None = None,
    weight: float = 1.0,
    parts: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change the weights once; return the batch's mean cross-entropy and its logits, on the device.

    The returned loss is the plain one, against the images' own labels and without smoothing and penalty, so
    that it can stand next to the test loss. The logits, (B, C) float32, are those from before the weights
    changed.

    Args:
        model: What is called.
        optimizer: Of its parameters, with the learning rate set.
        images: (B, 3, H, W) in [0, 1].
        labels: (B,) int64.
        precision: Of the forward pass, "float32", "bfloat16" or "float16".
        objective: What is minimised.
        mixed: What the images were mixed of; what is minimised is then the mean of both labels' losses,
            weighted by their shares.
        weight: Factor of what is minimised.
        parts: In how many the batch goes through the model, one after the other, so that the activations of
            one are in memory at a time. The gradient is that of the whole batch; normalisation over a batch
            sees each part alone.
    """
    optimizer.zero_grad(set_to_none=True)
    others = None if mixed is None else labels[mixed.partners]
    losses, all_logits = [], []
    for rows in torch.arange(len(labels), device=labels.device).chunk(min(parts, len(labels))):
        whole = len(rows) == len(labels)
        taken, own = (images, labels) if whole else (images[rows], labels[rows])
        with autocast(images.device, precision):
            logits = model(taken)  # (b, C)
        logits = logits.float()
        minimised = objective.of_batch(logits, own)
        loss = minimised.detach() if objective.is_plain else F.cross_entropy(logits.detach(), own)
        if mixed is not None and others is not None:
            other = objective.of_batch(logits, others if whole else others[rows])
            minimised = mixed.share * minimised + (1 - mixed.share) * other
        if objective.l1:
            minimised = minimised + objective.penalty(model)
        factor = weight if whole else weight * len(rows) / len(labels)
        (minimised if factor == 1 else factor * minimised).backward()
        losses.append(loss if whole else loss * (len(rows) / len(labels)))
        all_logits.append(logits.detach())
    optimizer.step()
    return (losses[0] if len(losses) == 1 else torch.stack(losses).sum()), torch.cat(all_logits)


def training_batches(
    split: Split,
    data: Dataset,
    *,
    batch_size: int,
    augmentation: OnDevice | albumentations.Compose | None,
    seed: int,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
    balanced: bool = False,
) -> ResidentBatches | StreamedBatches:
    """Return shuffled batches: what works on the device there, any other transform through workers, and
    through these too whatever images stay in their files.

    shard: the part of each batch that this process takes, and how many parts there are. balanced: draw each
    class as often.
    """
    fill = tuple(data.mean.tolist())
    options: dict[str, Any] = {
        "batch_size": batch_size, "seed": seed, "device": device, "drop_last": False, "fill": fill,
        "shard": shard, "balanced": balanced,
    }  # fmt: skip
    if not isinstance(split.images, ImageFiles) and (
        augmentation is None or (isinstance(augmentation, OnDevice) and augmentation.engine == "builtin")
    ):
        return ResidentBatches(split, augmentation=augmentation, **options)
    return StreamedBatches(split, augmentation, **options)


def check_outputs(model: nn.Module, data: Dataset, device: torch.device) -> None:
    """Raise InputError unless the model returns one logit per class for an image of `data`, the first one."""
    from sightline.predictions import predict

    split = data.train if len(data.train) else data.test
    first = Split(np.ascontiguousarray(split.images[:1]), split.labels[:1])
    model.to(device)
    try:
        predict(model, first, class_names=data.class_names)
    except RuntimeError as error:
        height, width = data.image_size
        line = str(error).splitlines()[0]
        raise InputError(f"the model cannot take images of {height}x{width} pixels: {line}") from None
