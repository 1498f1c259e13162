"""The methods by name. Each is a pure function `(activations, gradients) -> maps`; so is a user's own."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sightline.explain.cams import grad_cam

Method = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

METHODS: dict[str, Method] = {"grad_cam": grad_cam}
