"""Averages of the weights over the steps of training.

An average is made for a model at its first step and told of each step. It covers every floating-point
tensor of the model's state: parameters and the running statistics of normalisation alike, so that
nothing has to be measured anew for the averaged weights.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> average = ema(decay=0.5)(model)
    >>> for step in range(1, 3):
    ...     _ = nn.init.ones_(model.weight)
    ...     average.update(model, step, 2)
    >>> float(average.slow["weight"])  # decays of 2/11 and 3/12: 1 - 2/11 * 3/12
    0.9545454...
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sightline.training.bounds import BelowOne, Count, NonNegative

AverageFactory = Callable[[nn.Module], "Average | None"]


class Average:
    """A copy of a model's tensors that follows them slowly: slow = d * slow + (1 - d) * fast.

    every: steps between two updates. decay: d as a function of (step, steps), steps counted from 1.
    returns: whether the model takes the slow tensors after each update and trains on from there; if
    not, it never sees them in training.
    """

    def __init__(
        self, model: nn.Module, decay: Callable[[int, int], float], *, every: int, returns: bool
    ) -> None:
        self.slow = {name: tensor.clone() for name, tensor in _floats(model).items()}
        self._decay, self._every, self._returns = decay, every, returns

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, steps: int) -> None:
        """Take note of the model after `step` (from 1) of `steps`."""
        fast = _floats(model)
        if step % self._every == 0:
            merge = get_ema_multi_avg_fn(self._decay(step, steps))
            merge(list(self.slow.values()), list(fast.values()), None)  # pyright: ignore[reportCallIssue]
        if self._returns and (step % self._every == 0 or step == steps):
            _copy(self.slow, fast)

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Give the model the weights that are to be measured and kept, and afterwards its own again."""
        if self._returns:
            yield
            return
        fast = _floats(model)
        own = {name: tensor.clone() for name, tensor in fast.items()}
        _copy(self.slow, fast)
        try:
            yield
        finally:
            _copy(own, fast)

    def give(self, model: nn.Module) -> None:
        """Give the model, at the end of training, the weights that are to be kept."""
        if not self._returns:  # else it has them already
            _copy(self.slow, _floats(model))

    def load(self, slow: dict[str, torch.Tensor]) -> None:
        """Go back to the `slow` of a checkpoint.

        Raises KeyError or RuntimeError if it belongs to another model.
        """
        for name, tensor in self.slow.items():
            tensor.copy_(slow[name])


def none() -> AverageFactory:
    """No average: the last weights are the ones that count."""
    return lambda model: None


def ema(*, decay: BelowOne = 0.999) -> AverageFactory:
    """Exponential moving average of every step, measured and kept in place of the trained weights.

    Its decay begins as (1 + step) / (10 + step), so that the first weights are soon forgotten, and
    stops at `decay` (Polyak & Juditsky 1992 for the average; the start is TensorFlow's).
    """
    return lambda model: Average(
        model, lambda step, steps: min(decay, (1 + step) / (10 + step)), every=1, returns=False
    )


def lookahead(*, every: Count = 5, decay: BelowOne = 0.95, power: NonNegative = 3.0) -> AverageFactory:
    """Every few steps, blend the weights into a slow copy and go on from there.

    Zhang et al. 2019, arXiv:1907.08610. The slow copy keeps the share decay**every * (step / steps)**power:
    nearly none at first, much at the end, where the model takes the slow copy as it is (Jordan 2024,
    arXiv:2404.00498, section 3.4).
    """
    return lambda model: Average(
        model, lambda step, steps: decay**every * (step / steps) ** power, every=every, returns=True
    )


def _floats(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


AVERAGES: dict[str, Callable[..., AverageFactory]] = {"none": none, "ema": ema, "lookahead": lookahead}
