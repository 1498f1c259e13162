"""Optimizers: functions that return a function from a model to a `torch.optim.Optimizer`.

    >>> from torch import nn
    >>> sgd(momentum=0.9)(nn.Linear(2, 2)).defaults["momentum"]
    0.9

The learning rate belongs to the schedule, which sets it before each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sightline.training.bounds import BelowOne, NonNegative, Positive

OptimizerFactory = Callable[[nn.Module], torch.optim.Optimizer]


def sgd(
    *,
    momentum: BelowOne = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    bias_lr_factor: Positive = 1.0,
) -> OptimizerFactory:
    """SGD with momentum; weight_decay is L2 regularisation of every trained parameter.

    bias_lr_factor: learning rate of the vectors (biases and normalisation) in units of that of the
    matrices and filters; their weight decay is divided by it, so that decay per step stays equal.
    """

    def make(model: nn.Module) -> torch.optim.Optimizer:
        groups = _groups(model, weight_decay, bias_lr_factor)
        return torch.optim.SGD(groups, lr=1.0, momentum=momentum, nesterov=nesterov)

    return make


def adam(
    *, beta1: BelowOne = 0.9, beta2: BelowOne = 0.999, eps: Positive = 1e-8, weight_decay: NonNegative = 0.0
) -> OptimizerFactory:
    """Adam (Kingma & Ba 2014); weight_decay is an L2 term in the gradient."""
    return lambda model: torch.optim.Adam(_groups(model, weight_decay), lr=1.0, betas=(beta1, beta2), eps=eps)


def adamw(
    *, beta1: BelowOne = 0.9, beta2: BelowOne = 0.999, eps: Positive = 1e-8, weight_decay: NonNegative = 0.01
) -> OptimizerFactory:
    """AdamW (Loshchilov & Hutter 2017); weight_decay is decoupled, in units of the learning rate."""
    return lambda model: torch.optim.AdamW(
        _groups(model, weight_decay), lr=1.0, betas=(beta1, beta2), eps=eps
    )


def _groups(model: nn.Module, weight_decay: float, bias_lr_factor: float = 1.0) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    if bias_lr_factor == 1.0:
        return [{"params": trained, "weight_decay": weight_decay, "lr_factor": 1.0}]
    vectors = [p for p in trained if p.ndim < 2]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay, "lr_factor": 1.0},
        {"params": vectors, "weight_decay": weight_decay / bias_lr_factor, "lr_factor": bias_lr_factor},
    ]


def set_rates(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None) -> None:
    """Set the learning rate of every group (times its `lr_factor`) and, if given, its momentum."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
        if momentum is not None:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


OPTIMIZERS: dict[str, Callable[..., OptimizerFactory]] = {"sgd": sgd, "adam": adam, "adamw": adamw}
