"""ResNet-18 and ResNet-34 for small images: He et al. 2015, arXiv:1512.03385, with a 3x3 stem.

For 32x32 pixels, `layer1` to `layer4` give maps of 32, 16, 8 and 4 pixels.
ResNet-18 has 11,173,962 parameters for 10 classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sightline.models.layers import Normalize


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, section 3.3, option B)."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of basic blocks with 64, 128, 256, 512 channels; logits out."""

    def __init__(self, blocks: Sequence[int], num_classes: int, normalize: Normalize | None = None):
        super().__init__()
        self.normalize = normalize or Normalize()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(64, 128, blocks[1], stride=2)
        self.layer3 = _stage(128, 256, blocks[2], stride=2)
        self.layer4 = _stage(256, 512, blocks[3], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(self.normalize(images))))  # (B, 64, H, W)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 512, H/8, W/8)
        return self.fc(self.pool(x).flatten(1))  # (B, num_classes)


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet18(num_classes: int, normalize: Normalize | None = None) -> ResNet:
    """ResNet-18 with a 3x3 stem: blocks [2, 2, 2, 2]."""
    return ResNet((2, 2, 2, 2), num_classes, normalize)


def resnet34(num_classes: int, normalize: Normalize | None = None) -> ResNet:
    """ResNet-34 with a 3x3 stem: blocks [3, 4, 6, 3]."""
    return ResNet((3, 4, 6, 3), num_classes, normalize)
