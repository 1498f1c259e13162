"""A small network built to train fast, from the ingredients of the published CIFAR-10 speed records.

    whiten   conv 2x2, 24 fixed filters: the whitening transform of the training patches (Page 2019)
    block x3 conv 3x3, max-pool 2, BN, GELU, conv 3x3, BN, GELU      64, 128, 256 channels by default
    pool     max over the 3x3 that is left of 32x32 pixels
    fc       linear without bias, logits times 1/9

The published networks for 94 % and 96 % on CIFAR-10 are widths of 64, 256, 256, and 128, 512, 512 with a
third convolution per block, whose input of the second is added to its output before the last GELU.

Normalisation scales are fixed at 1 (only biases train), and the first filters of each convolution
start as the identity (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", arXiv:2404.00498, section 3).
Pooling comes before normalisation: the same result, a quarter of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le, Len
from torch import nn

from sightline.errors import InputError
from sightline.models.layers import Normalize
from sightline.signatures import Share

_SMALLEST = 9  # pixels: the whitening takes one, and each of the three poolings half of what is left
Channels = Annotated[int, Ge(1), Le(8192)]


class Block(nn.Module):
    """conv, pool, BN, GELU, conv, BN, GELU: (B, C_in, H, W) to (B, C, H/2, W/2)."""

    def __init__(self, channels_in: int, channels: int, bn_momentum: float):
        super().__init__()
        self.conv1 = _dirac_conv(channels_in, channels)
        self.pool = nn.MaxPool2d(2)
        self.bn1 = _unscaled_norm(channels, bn_momentum)
        self.act1 = nn.GELU()
        self.conv2 = _dirac_conv(channels, channels)
        self.bn2 = _unscaled_norm(channels, bn_momentum)
        self.act2 = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.bn1(self.pool(self.conv1(x))))
        return self.act2(self.bn2(self.conv2(x)))


class ResidualBlock(Block):
    """A block with a third conv and BN: x = conv-pool-BN-GELU(input); GELU(x + BN-conv-GELU-BN-conv(x))."""

    def __init__(self, channels_in: int, channels: int, bn_momentum: float):
        super().__init__(channels_in, channels, bn_momentum)
        self.conv3 = _dirac_conv(channels, channels)
        self.bn3 = _unscaled_norm(channels, bn_momentum)
        self.act3 = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.bn1(self.pool(self.conv1(x))))
        return self.act3(x + self.bn3(self.conv3(self.act2(self.bn2(self.conv2(x))))))


class SpeedNet(nn.Module):
    """The network of the module's docstring; call :meth:`whiten` before training."""

    def __init__(
        self,
        num_classes: int,
        normalize: Normalize | None = None,
        *,
        widths: Sequence[int] = (64, 128, 256),
        residual: bool = False,
        bn_momentum: float = 0.4,
    ):
        super().__init__()
        block = ResidualBlock if residual else Block
        self.normalize = normalize or Normalize()
        self.whitening = nn.Conv2d(3, 24, 2, bias=True)
        self.whitening.weight.requires_grad_(False)
        nn.init.zeros_(self.whitening.bias)  # pyright: ignore[reportArgumentType]
        self.act = nn.GELU()
        self.block1 = block(24, widths[0], bn_momentum)
        self.block2 = block(widths[0], widths[1], bn_momentum)
        self.block3 = block(widths[1], widths[2], bn_momentum)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes, bias=False)
        self.scale = 1 / 9

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.act(self.whitening(self.normalize(images)))  # (B, 24, H-1, W-1)
        x = self.block3(self.block2(self.block1(x)))  # (B, widths[2], H/8, W/8)
        return self.fc(self.pool(x).flatten(1)) * self.scale  # (B, num_classes)

    @torch.no_grad()
    def whiten(self, images: np.ndarray, *, count: int = 5000, eps: float = 5e-4) -> None:
        """Set the first layer from the 2x2 patches of the first `count` images, (N, H, W, 3) uint8.

        The filters are the eigenvectors of the patches' second moments, divided by
        sqrt(eigenvalue + eps), with both signs: 12 + 12.

        Raises:
            InputError: The images are too small for this network.
        """
        height, width = images.shape[1:3]
        if min(height, width) < _SMALLEST:
            raise InputError(
                f"the model cannot take images of {height}x{width} pixels: speednet needs at least "
                f"{_SMALLEST}x{_SMALLEST}"
            )
        pixels = torch.from_numpy(images[:count]).permute(0, 3, 1, 2).double() / 255  # (N, 3, H, W)
        pixels = (pixels - self.normalize.mean.double().cpu()) / self.normalize.std.double().cpu()
        patches = pixels.unfold(2, 2, 1).unfold(3, 2, 1)  # (N, 3, H-1, W-1, 2, 2)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + eps).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))


def _dirac_conv(channels_in: int, channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[: min(channels_in, channels)].data)
    return conv


def _unscaled_norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=momentum, eps=1e-5)
    norm.weight.requires_grad_(False)
    return norm


def speednet(
    num_classes: int,
    normalize: Normalize | None = None,
    *,
    widths: Annotated[Sequence[Channels], Len(3, 3)] = (64, 128, 256),
    residual: bool = False,
    bn_momentum: Share = 0.4,
) -> SpeedNet:
    """The fast small network, for images of at least 9x9 pixels.

    Args:
        num_classes: Logits.
        normalize: The first layer, with the statistics of the channels.
        widths: Channels of the three blocks.
        residual: Three convolutions per block instead of two, the last two bridged.
        bn_momentum: Share of a batch in the running statistics; 0.4 follows weights that move fast in a short
            training.
    """
    return SpeedNet(num_classes, normalize, widths=widths, residual=residual, bn_momentum=bn_momentum)
