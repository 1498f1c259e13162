"""Optimizers: functions that return a function from a model to a `torch.optim.Optimizer`.

    >>> from torch import nn
    >>> sgd(momentum=0.9)(nn.Linear(2, 2)).defaults["momentum"]
    0.9

The learning rate belongs to the schedule, which sets it before each step.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sightline.errors import InputTypeError
from sightline.signatures import BelowOne, Count, Decay, NonNegative, Positive

OptimizerFactory = Callable[[nn.Module], torch.optim.Optimizer]


def sgd(
    *,
    momentum: BelowOne = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    bias_lr_factor: Positive = 1.0,
    layer_decay: Decay = 1.0,
) -> OptimizerFactory:
    """SGD with momentum; weight_decay is L2 regularisation of every trained parameter.

    bias_lr_factor: learning rate of normalisation (BatchNorm's biases, and scales if they train) in units
    of that of the rest; its weight decay is divided by it, so that decay per step stays equal.
    layer_decay: the learning rate of each block in units of the one after it, see :func:`layer_depths`.
    """

    def make(model: nn.Module) -> torch.optim.Optimizer:
        groups = _groups(model, weight_decay, bias_lr_factor, layer_decay)
        return torch.optim.SGD(groups, lr=1.0, momentum=momentum, nesterov=nesterov)

    return make


def muon(
    *,
    momentum: BelowOne = 0.95,
    nesterov: bool = True,
    weight_decay: NonNegative = 0.0,
    steps: Count = 5,
    unit_norm: bool = False,
    vector_lr_factor: Positive = 1.0,
    head_lr_factor: Positive = 1.0,
    sgd_momentum: BelowOne = 0.9,
) -> OptimizerFactory:
    """Muon (Jordan et al. 2024) for matrices and filters, SGD for vectors and the head, the last matrix.

    A filter bank counts as a matrix of its filters. steps: iterations of Newton and Schulz.
    weight_decay: decoupled, in units of the learning rate, the same for all. unit_norm: before each step
    scale a matrix so that the mean square of its rows' norms is 1, as the CIFAR-10 speed record does
    in place of weight decay. vector_lr_factor, head_lr_factor: the learning rates of SGD in units
    of Muon's.
    """

    def make(model: nn.Module) -> torch.optim.Optimizer:
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim >= 2]
        vectors = [p for p in trained if p.ndim < 2]
        sgd_options = {"momentum": sgd_momentum, "newton_schulz": 0, "unit_norm": False}
        groups: list[dict[str, Any]] = [
            {"params": matrices[:-1], "lr_factor": 1.0, "weight_decay": weight_decay,
             "momentum": momentum, "newton_schulz": steps, "unit_norm": unit_norm},
            {"params": matrices[-1:], "lr_factor": head_lr_factor,
             "weight_decay": weight_decay / head_lr_factor, **sgd_options},
            {"params": vectors, "lr_factor": vector_lr_factor,
             "weight_decay": weight_decay / vector_lr_factor, **sgd_options},
        ]  # fmt: skip
        return Muon(groups, lr=1.0, momentum=momentum, nesterov=nesterov)

    return make


class Muon(torch.optim.SGD):
    """SGD in which the groups with `newton_schulz` > 0 step along orthogonal matrices.

    With those groups it does to a filter bank what `torch.optim.Muon` does to a matrix.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the weights once."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"] if group["newton_schulz"] else ():
                if p.grad is not None:
                    self._step_along(p, p.grad, group)
                    p.grad = None  # so that SGD passes it by
        super().step()
        return loss

    def _step_along(self, p: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(gradient))
        mean.lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(mean, momentum) if group["nesterov"] else mean
        rows = len(p)
        update = orthogonalize(ahead.reshape(rows, -1), steps=group["newton_schulz"])
        if group["unit_norm"]:
            p.mul_(rows**0.5 / p.norm().clamp(min=1e-7))
        p.mul_(1 - lr * group["weight_decay"])
        stretch = max(1.0, rows / (p.numel() / rows)) ** 0.5
        p.add_(update.reshape(p.shape), alpha=-lr * stretch)


def orthogonalize(matrix: torch.Tensor, *, steps: int = 5) -> torch.Tensor:
    """Return a matrix near to U V^T for `matrix` = U S V^T, its singular values about 1, in bfloat16.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": `steps` iterations
    X = a X + (b A + c A A) X with A = X X^T, from the matrix divided by its Frobenius norm.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = len(matrix) <= matrix.shape[1]
    x = matrix.bfloat16() if wide else matrix.bfloat16().T  # (n, m), n <= m
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T  # (n, n)
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


def adam(
    *,
    beta1: BelowOne = 0.9,
    beta2: BelowOne = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    layer_decay: Decay = 1.0,
) -> OptimizerFactory:
    """Adam (Kingma & Ba 2014); weight_decay is an L2 term in the gradient. layer_decay: as of `sgd`."""
    return lambda model: torch.optim.Adam(
        _groups(model, weight_decay, layer_decay=layer_decay), lr=1.0, betas=(beta1, beta2), eps=eps
    )


def adamw(
    *,
    beta1: BelowOne = 0.9,
    beta2: BelowOne = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
    layer_decay: Decay = 1.0,
) -> OptimizerFactory:
    """AdamW (Loshchilov & Hutter 2017); weight_decay is decoupled, in units of the learning rate.

    layer_decay: as of `sgd`.
    """
    return lambda model: torch.optim.AdamW(
        _groups(model, weight_decay, layer_decay=layer_decay), lr=1.0, betas=(beta1, beta2), eps=eps
    )


_NUMBERED = re.compile(r"\d+|\w*(?:block|layer|stage|unit)s?_?\d+")
_HOLDS_BLOCKS = {"blocks", "layers", "stages"}


def _block(name: str) -> str:
    """The innermost block that a parameter is in, "" if none: `stages.2.blocks.1` of ...1.conv.weight."""
    parts, found = name.split(".")[:-1], 0
    for place, part in enumerate(parts, 1):
        if _NUMBERED.fullmatch(part):
            found = place
        elif found and part not in _HOLDS_BLOCKS:
            break
    return ".".join(parts[:found])


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Return how far from the output each parameter is: 0 for the head, 1 for the last block, and so on.

    Blocks are what a network numbers (`layer1.0`, `block3`, `stages.2.blocks.1`), in the order of its
    parameters; what stands between two of them belongs to the one before, what stands before the first is
    a block of its own. The head is the last module that has parameters. With rates that fall by a constant
    factor from block to block, a fine-tuned network keeps the general features of its first layers
    (Howard & Ruder 2018, arXiv:1801.06146, section 3.2; Bao et al. 2022, arXiv:2106.08254).

        >>> blocks = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        >>> layer_depths(nn.ModuleDict({"blocks": blocks, "head": nn.Linear(2, 2, bias=False)}))
        {'blocks.0.weight': 2, 'blocks.1.weight': 1, 'head.weight': 0}
    """
    names = [name for name, _ in model.named_parameters()]
    head = names[-1].rpartition(".")[0] if names else ""
    seen: dict[str, int] = {}
    places: dict[str, int] = {}
    for name in names:
        if name.rpartition(".")[0] == head:
            continue
        block = _block(name)
        places[name] = seen.setdefault(block, len(seen)) if block or not seen else len(seen) - 1
    return {name: len(seen) - places[name] if name in places else 0 for name in names}


def _groups(
    model: nn.Module, weight_decay: float, bias_lr_factor: float = 1.0, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trained parameters, those of one factor of the learning rate together."""
    depths = layer_depths(model) if layer_decay != 1 else {}
    norms = _norm_parameters(model) if bias_lr_factor != 1 else set()
    groups: dict[tuple[int, float], list[nn.Parameter]] = defaultdict(list)
    if bias_lr_factor != 1 and layer_decay == 1:
        groups |= {(0, 1.0): [], (0, bias_lr_factor): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = bias_lr_factor if id(parameter) in norms else 1.0
            groups[depths.get(name, 0), factor].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay / factor,
            "lr_factor": factor * layer_decay**depth,
        }
        for (depth, factor), parameters in groups.items()
    ]


def _norm_parameters(model: nn.Module) -> set[int]:
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return {id(p) for module in model.modules() if isinstance(module, kinds) for p in module.parameters()}


def build_optimizer(factory: OptimizerFactory | None, model: nn.Module) -> torch.optim.Optimizer:
    """Return what `factory`, by default `sgd()`, makes for `model`; its groups keep their ratios of lr."""
    made = (factory or sgd())(model)
    if not isinstance(made, torch.optim.Optimizer):
        raise InputTypeError(
            f"optimizer: the function returned a {type(made).__name__}; it takes a model and returns a "
            "torch.optim.Optimizer of its parameters, as sgd() does"
        )
    keep_lr_ratios(made)
    return made


def keep_lr_ratios(optimizer: torch.optim.Optimizer) -> None:
    """Give each group that has none an `lr_factor`: its learning rate in units of the first group's."""
    first = optimizer.param_groups[0]["lr"] or 1.0
    for group in optimizer.param_groups:
        group.setdefault("lr_factor", group["lr"] / first)


def set_lr(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None) -> None:
    """Set the learning rate of every group (times its `lr_factor`) and, if given, its momentum."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)  # a group that a callback added has none
        if momentum is not None:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


OPTIMIZERS: dict[str, Callable[..., OptimizerFactory]] = {
    "sgd": sgd,
    "muon": muon,
    "adam": adam,
    "adamw": adamw,
}
"""Makers of optimizers by name; their options are a recipe's `optimizer` section."""
