"""ResNet-50 for images of 224 pixels (He et al. 2015, arXiv:1512.03385, table 1): to measure with.

The stride is in the 3x3 convolution, as in the weights that everyone uses; 25,557,032 parameters for
1,000 classes.
"""

from __future__ import annotations

import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        wide = 4 * channels
        self.body = nn.Sequential(
            *_convolution(channels_in, channels, 1),
            nn.ReLU(inplace=True),
            *_convolution(channels, channels, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(channels, wide, 1),
        )
        projects = stride != 1 or channels_in != wide
        self.shortcut = nn.Sequential(*_convolution(channels_in, wide, 1, stride) if projects else ())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))  # (B, 2048, H/32, W/32)
        return self.fc(self.pool(x).flatten(1))


def _convolution(
    channels_in: int, channels: int, kernel: int, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels)


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(4 * channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(channels_in, channels, stride), *rest)
