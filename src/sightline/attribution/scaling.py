"""Maps scaled on their device: their grid, and their range."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def resize(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize maps (n, h, w) or (n, d, h, w) linearly, with half-pixel centres, to `size`."""
    mode = {3: "bilinear", 4: "trilinear"}[maps.ndim]
    return F.interpolate(maps[:, None], tuple(size), mode=mode)[:, 0]


def to_unit(values: torch.Tensor) -> torch.Tensor:
    """Scale the values of each item (n, ...) linearly to [0, 1]; constant ones become 0.

    >>> to_unit(torch.tensor([[-1.0, 1.0, 3.0], [2.0, 2.0, 2.0]]))
    tensor([[0.0000, 0.5000, 1.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    low, high = (bound.view(-1, *[1] * (values.ndim - 1)) for bound in values.flatten(1).aminmax(dim=1))
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
