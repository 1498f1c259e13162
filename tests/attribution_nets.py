"""Small networks of the layouts that classifiers come in, and the slow way to Grad-CAM."""

from __future__ import annotations

import torch
from torch import nn


def conv(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class Scale(nn.Module):
    """Normalisation without weights, as the first layer of a model."""

    def forward(self, x):
        return (x - 0.5) / 0.25


class Staged(nn.Module):
    """A stem and four stages, as a ResNet: the grid is halved from the second on. `relu` runs twice."""

    def __init__(self, classes: int = 5, dropout: float = 0.3):
        super().__init__()
        self.normalize = Scale()
        self.stem = conv(3, 4)
        self.layer1, self.layer2 = conv(4, 4), conv(4, 6, 2)
        self.layer3, self.layer4 = conv(6, 8, 2), conv(8, 8, 2)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.relu(self.layer1(self.stem(self.normalize(x))))
        x = self.layer3(self.relu(self.layer2(x)))
        x = self.layer4(x)
        return self.fc(self.dropout(x.mean((2, 3))))


class Wrapped(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x)


def pooled(classes: int = 4) -> nn.Sequential:
    """Convolution, in-place ReLU, global average pooling, dropout, linear: a head that is exact."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6, classes),
    )


def nonlinear(classes: int = 4) -> nn.Sequential:
    """Convolutions and a head with a hidden layer, for images of 12 pixels: gradients that vary in space."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(6 * 36, 7),
        nn.Tanh(),
        nn.Linear(7, classes),
    )


def seeded(build, *arguments, **options) -> nn.Module:
    """Build a network with fixed weights and batch statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(*arguments, **options)
        model.train()
        with torch.no_grad():
            model(torch.rand(8, 3, 12, 12))
    return model.eval()


def pictures(count: int = 3, size: int = 12, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def naive_grad_cam(model: nn.Module, layer: nn.Module, images: torch.Tensor, targets) -> torch.Tensor:
    """Equations 1 and 2 of the paper without the ReLU: an image, a channel, a cell at a time."""
    maps = []
    for image, target in zip(images, targets, strict=True):
        kept = []
        # Added to, so that the layer's own output survives an in-place ReLU.
        handle = layer.register_forward_hook(
            lambda module, inputs, output, kept=kept: kept.append(output) or output + 0
        )
        score = model(image[None])[0, int(target)]
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept[0])
        _, channels, height, width = kept[0].shape
        total = torch.zeros(height, width, dtype=images.dtype)
        for k in range(channels):
            alpha = sum(gradient[0, k, i, j] for i in range(height) for j in range(width)) / (height * width)
            total += alpha * kept[0][0, k].detach()
        maps.append(total)
    return torch.stack(maps)


class Prototypes(nn.Module):
    """Distances to learned prototypes: PyTorch has no second derivative of them."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return torch.cdist(x.mean((2, 3)), self.points)


def prototypical() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), Prototypes(), nn.Tanh(), nn.Linear(5, 3))
