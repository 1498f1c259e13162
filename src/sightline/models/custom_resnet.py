"""A short wide ResNet for 32x32 images: three stages, residual blocks in the first and the last.

    prep     conv 3x3, BN, ReLU                                         64 channels
    layer1   conv 3x3, max-pool 2, BN, ReLU; + (conv, BN, ReLU) x 2     128
    layer2   conv 3x3, max-pool 2, BN, ReLU                             256
    layer3   conv 3x3, max-pool 2, BN, ReLU; + (conv, BN, ReLU) x 2     512
    pool     max over the 4x4 that is left
    fc       linear, with bias: 6,573,130 parameters in all for 10 classes

Logits out: softmax belongs to the loss. For 32x32 pixels the stages give maps of 16, 8 and 4.
The layout is that of Page's "How to train your ResNet" (2018), widths and head as above.
"""

from __future__ import annotations

import torch
from torch import nn

from sightline.models.layers import Normalize


def _conv(channels_in: int, channels: int, *, pool: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)]
    layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class ResidualStage(nn.Module):
    """x = conv-pool-BN-ReLU(input); x + (conv-BN-ReLU-conv-BN-ReLU)(x)."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.reduce = _conv(channels_in, channels, pool=True)
        self.residual = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.reduce(x)
        return x + self.residual(x)


class CustomResNet(nn.Module):
    """The network of the module's docstring. Image sides that eight divides fit without loss."""

    def __init__(self, num_classes: int, normalize: Normalize | None = None):
        super().__init__()
        self.normalize = normalize or Normalize()
        self.prep = _conv(3, 64)
        self.layer1 = ResidualStage(64, 128)
        self.layer2 = _conv(128, 256, pool=True)
        self.layer3 = ResidualStage(256, 512)
        self.pool = nn.AdaptiveMaxPool2d(1)  # 4x4 to 1x1 for 32x32 pixels: a max-pool with kernel 4
        self.fc = nn.Linear(512, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.prep(self.normalize(images))  # (B, 64, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 512, H/8, W/8)
        return self.fc(self.pool(x).flatten(1))  # (B, num_classes)


def custom_resnet(num_classes: int, normalize: Normalize | None = None) -> CustomResNet:
    """The three-stage residual network of this module."""
    return CustomResNet(num_classes, normalize)
