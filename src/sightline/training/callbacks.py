"""What watches a training: the split that is held out, and the epoch that was best on it.

Averages of the weights over the steps of training.

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

What each image's margin and probability were in the pass that trained on it, gathered for nothing.

A step scatters two values per image into a buffer on the device; the host waits for it once per epoch.

Batches whose pictures are mixtures of two: mixup and cutmix.

A mix takes a batch and a random generator, and returns pictures of which each is one image's own for the
`share` and that of another image for the rest. The own part is never the smaller one, so that accuracy and
margins against an image's own label keep their sense; by symmetry of the pairs, the batches are
distributed as in the papers all the same.

    >>> mixed = mixup(alpha=1.0)(torch.eye(2).view(2, 1, 1, 2), np.random.default_rng(0))
    >>> 0.5 <= mixed.share <= 1
    True
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sightline.data import Dataset, Split
from sightline.data.splits import stratified_split
from sightline.errors import SightlineError
from sightline.predictions.inference import predict_shared
from sightline.predictions.training_dynamics import Dynamics
from sightline.training.bounds import BelowOne, Count, NonNegative, Positive
from sightline.training.history import Row

_MIX = 3  # the random stream, beside those of order and augmentation


@dataclass(frozen=True)
class Mixed:
    """images: (B, 3, H, W). partners: (B,) int64, positions of the other images. share: of the own ones."""

    images: torch.Tensor
    partners: torch.Tensor
    share: float


Mix = Callable[[torch.Tensor, np.random.Generator], Mixed]


def mixup(*, alpha: Positive = 1.0) -> Mix:
    """Every picture is share * own + (1 - share) * other (Zhang et al. 2018, arXiv:1710.09412).

    The share is drawn from Beta(alpha, alpha), once for a batch, as in the authors' code.
    """

    def mix(images: torch.Tensor, generator: np.random.Generator) -> Mixed:
        drawn = generator.beta(alpha, alpha)
        share = max(drawn, 1 - drawn)
        partners = _partners(images, generator)
        return Mixed(images.lerp(images[partners], 1 - share), partners, share)

    return mix


def cutmix(*, alpha: Positive = 1.0) -> Mix:
    """Every picture has a rectangle of another one (Yun et al. 2019, arXiv:1905.04899, algorithm 1).

    The rectangle has the picture's aspect and the area 1 - Beta(alpha, alpha), its centre lies anywhere,
    what hangs over the edge is cut, and the share counts the pixels that are left. One rectangle
    for a batch, as in the authors' code.
    """

    def mix(images: torch.Tensor, generator: np.random.Generator) -> Mixed:
        height, width = images.shape[-2:]
        side = np.sqrt(1 - generator.beta(alpha, alpha))
        rows = _span(height, int(height * side), generator)
        columns = _span(width, int(width * side), generator)
        partners = _partners(images, generator)
        inside = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        others = images[partners]
        base, patch = (images, others) if inside <= 0.5 else (others, images)
        mixed = base.clone()
        mixed[:, :, rows, columns] = patch[:, :, rows, columns]
        return Mixed(mixed, partners, max(inside, 1 - inside))

    return mix


def mix_generator(seed: int, epoch: int, step: int) -> np.random.Generator:
    """Return the generator of one batch: a function of its arguments, so that a resumed run draws alike."""
    return np.random.default_rng([seed, epoch, _MIX, step])


def _span(size: int, length: int, generator: np.random.Generator) -> slice:
    centre = int(generator.integers(size))
    return slice(max(0, centre - length // 2), min(size, centre - length // 2 + length))


def _partners(images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(generator.permutation(len(images))).to(images.device)


MIXES: dict[str, Callable[..., Mix | None]] = {
    "none": lambda: None,
    "mixup": mixup,
    "cutmix": cutmix,
}


_LARGEST = torch.finfo(torch.float16).max


class Recorder:
    """Gathers one epoch after another.

    count: images of the whole training split. rows: (n,) int64, the place in it of each image that is trained
    on; the others stay NaN.
    """

    def __init__(self, count: int, rows: np.ndarray, device: torch.device | str = "cpu") -> None:
        self.epochs: list[torch.Tensor] = []  # one (2, count) float16 per finished epoch, on the CPU
        self._count = count
        self._rows = torch.from_numpy(rows)
        self.current = torch.full((2, len(rows)), torch.nan, dtype=torch.float16, device=device)

    def note(self, indices: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep the margin and the probability of a batch; indices: (B,), among those trained on."""
        self.current.index_copy_(1, indices, margin_and_probability(logits, labels).half())

    def close_epoch(self) -> None:
        """File the epoch and begin the next."""
        whole = torch.full((2, self._count), torch.nan, dtype=torch.float16)
        whole[:, self._rows] = self.current.cpu()
        self.epochs.append(whole)
        self.current.fill_(torch.nan)

    def dynamics(self) -> Dynamics:
        """Return the finished epochs."""
        stacked = (
            torch.stack(self.epochs).numpy() if self.epochs else np.empty((0, 2, self._count), np.float16)
        )
        return Dynamics(stacked[:, 0], stacked[:, 1])

    def state(self) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return what a checkpoint keeps."""
        return {"epochs": list(self.epochs), "current": self.current}

    def restore(self, state: dict) -> None:
        """Go back to what :meth:`state` returned."""
        self.epochs = list(state["epochs"])
        self.current.copy_(state["current"])


def margin_and_probability(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the label's logit minus the largest other, and its probability: (2, B) float32.

    logits: (B, C). labels: (B,). Margins end at the largest number that float16 has.
    """
    logits, places = logits.float(), labels[:, None]
    own = logits.gather(1, places)  # (B, 1)
    others = logits.scatter(1, places, -torch.inf).amax(1)  # (B,)
    margin = (own[:, 0] - others).clamp(-_LARGEST, _LARGEST)
    probability = (own[:, 0] - logits.logsumexp(1)).exp()
    return torch.stack([margin, probability])


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


def hold_out(split: Split, share: float, seed: int) -> tuple[np.ndarray, Split | None]:
    """Return the places of the rest, and a part of `share`, drawn by seed with that share of each class."""
    if share == 0:
        return np.arange(len(split)), None
    kept, held = stratified_split(split.labels, test_fraction=share, seed=seed)
    if not len(held):
        raise SightlineError(
            f"validation={share} of {len(split)} training images leaves no image to validate on"
        )
    return kept, split.take(held)


@dataclass
class Monitor:
    """Watches a model at the end of each epoch; chooses by the validation split alone."""

    data: Dataset
    held: Split | None
    keep: str
    patience: int | None
    best: dict[str, Any] = field(default_factory=dict)

    def measure(self, model: nn.Module, precision: str) -> Row:
        """Return validation_loss, validation_accuracy (if there is a split), test_loss, test_accuracy."""
        row: Row = {}
        for name, split in (("validation", self.held), ("test", self.data.test)):
            if split is not None:
                found = predict_shared(model, split, class_names=self.data.class_names, precision=precision)
                row[f"{name}_loss"] = float(found.loss.mean())
                row[f"{name}_accuracy"] = float(found.correct.mean())
        return row

    def note(self, row: Row, model: nn.Module) -> None:
        """Remember the epoch of `row`, with its weights if they are to be kept, if it is the best so far."""
        if self.held is not None and row["validation_loss"] < self.best.get("loss", float("inf")):
            weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            self.best = {"loss": row["validation_loss"], "epoch": row["epoch"]}
            self.best |= {"weights": weights} if self.keep == "best" else {}

    def gives_up(self, epoch: int) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        return bool(self.patience) and epoch - self.best.get("epoch", epoch) >= self.patience
