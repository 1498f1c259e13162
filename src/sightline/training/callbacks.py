"""What takes part in a training next to its loop: a callback is called at five moments of it.

    class Losses(Callback):
        def on_train_begin(self, trainer):
            self.seen = []

        def on_step_end(self, trainer):
            self.seen.append(float(trainer.loss))

        def state_dict(self):
            return {"seen": self.seen}

        def load_state_dict(self, state):
            self.seen = state["seen"]

    losses = Losses()
    fit(model, data, callbacks=[losses, EMA(decay=0.99)])

Averages of the weights, freezing, keeping the best epoch, stopping early and recording the training dynamics
are callbacks too. With several processes every one of them calls its callbacks.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sightline import distributed
from sightline.distributed import average_statistics, fill_gaps
from sightline.errors import InputError, nearest
from sightline.predictions.training_dynamics import Dynamics
from sightline.signatures import BelowOne, Count, CountOrZero, NonNegative, Share
from sightline.training.history import describe_epoch
from sightline.training.optimizers import layer_depths

if TYPE_CHECKING:
    from sightline.training.trainer import Trainer

log = logging.getLogger(__name__)


class Callback:
    """Base of whatever takes part in a training; each method here does nothing.

    A callback may read and change what the trainer holds (see `Trainer`). It begins anew in
    `on_train_begin`; where it remembers something from step to step, it hands that to the checkpoint by
    `state_dict`, and a resumed training goes on as if it had not been interrupted.
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Once, before the first step; of a resumed training, before the checkpoint is loaded."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Before the first step of each epoch; not where one is resumed in its midst."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After the weights were changed by `trainer.batch`, at `trainer.progress`."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After the epoch was measured: its row is the last of `trainer.history.epochs`."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Once, after the last epoch, when the model has its final weights; not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep: tensors, numbers, strings, lists and dicts of these."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""


class WeightAverage(Callback):
    """Abstract: a copy of a model's tensors that follows them slowly, slow = d * slow + (1 - d) * fast.

    It covers every floating-point tensor of the model's state: parameters and the running statistics of
    normalisation alike, so that nothing has to be measured anew for the averaged weights. The epochs are
    measured with the averaged weights, and the model has them at the end.

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> average = EMA(decay=0.5)
        >>> average.start(model)
        >>> for step in range(1, 3):
        ...     _ = nn.init.ones_(model.weight)
        ...     average.update(model, step, 2)
        >>> float(average.slow["weight"])  # decays of 2/11 and 3/12: 1 - 2/11 * 3/12
        0.9545454...
    """

    slow: dict[str, torch.Tensor]

    def _decay(self, step: int, steps: int) -> float | None:
        """Return d after `step` (from 1) of `steps`; None where the copy stays as it is."""
        raise NotImplementedError

    def start(self, model: nn.Module) -> None:
        """Begin with the weights that the model has."""
        self.slow = {name: tensor.clone() for name, tensor in _floats(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, steps: int) -> None:
        """Take note of the model after `step` (from 1) of `steps`."""
        decay = self._decay(step, steps)
        if decay is not None:
            merge = get_ema_multi_avg_fn(decay)
            fast = list(_floats(model).values())
            merge(list(self.slow.values()), fast, None)  # pyright: ignore[reportCallIssue]

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights, and afterwards its own again."""
        fast = _floats(model)
        own = {name: tensor.clone() for name, tensor in fast.items()}
        average_statistics(self.slow.items())
        _copy(self.slow, fast)
        try:
            yield
        finally:
            _copy(own, fast)

    def give(self, model: nn.Module) -> None:
        """Give the model the averaged weights for good."""
        _copy(self.slow, _floats(model))

    def on_train_begin(self, trainer: Trainer) -> None:
        if trainer.average is not None:
            raise InputError(
                f"{type(trainer.average).__name__} and {type(self).__name__} both average the weights; "
                "use one of them"
            )
        trainer.average = self
        self.start(trainer.model)

    def on_step_end(self, trainer: Trainer) -> None:
        self.update(trainer.model, trainer.progress.step + 1, trainer.progress.steps)

    def state_dict(self) -> dict[str, Any]:
        average_statistics(self.slow.items())
        return {"slow": self.slow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensor in self.slow.items():
            tensor.copy_(state["slow"][name])


class EMA(WeightAverage):
    """Exponential moving average of the weights over every step; the training itself is left as it is.

    Its decay begins as (1 + step) / (10 + step), so that the first weights are soon forgotten, and
    stops at `decay` (Polyak & Juditsky 1992 for the average; the start is TensorFlow's).
    """

    def __init__(self, *, decay: BelowOne = 0.999) -> None:
        self.decay = decay

    def _decay(self, step: int, steps: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))


class Lookahead(WeightAverage):
    """Every few steps, blend the weights into a slow copy and go on from there.

    Zhang et al. 2019, arXiv:1907.08610. The slow copy keeps the share decay**every * (step / steps)**power:
    nearly none at first, much at the end, where the model takes the slow copy as it is (Jordan 2024,
    arXiv:2404.00498, section 3.4).
    """

    def __init__(self, *, every: Count = 5, decay: BelowOne = 0.95, power: NonNegative = 3.0) -> None:
        self.every, self.decay, self.power = every, decay, power

    def _decay(self, step: int, steps: int) -> float | None:
        if step % self.every:
            return None
        return self.decay**self.every * (step / steps) ** self.power

    def update(self, model: nn.Module, step: int, steps: int) -> None:
        super().update(model, step, steps)
        if step % self.every == 0 or step == steps:
            _copy(self.slow, _floats(model))

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Measure the weights that train: they are the slow ones every few steps, and at the end."""
        average_statistics(self.slow.items())
        yield

    def give(self, model: nn.Module) -> None:
        """Do nothing: the model has taken the slow weights at the last step."""


def _floats(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


WEIGHT_AVERAGES: dict[str, Callable[..., Callback | None]] = {
    "none": lambda: None,
    "ema": EMA,
    "lookahead": Lookahead,
}
"""Averages of the weights by name: functions that return a callback, or None."""


class Freeze(Callback):
    """Stop parameters or layers after their number of epochs, and let them train again at the end.

    A frozen parameter takes neither gradient nor momentum nor weight decay, and the backward pass ends before
    layers that are frozen from the first on. The running statistics of the normalisation in a frozen layer
    stay as they are, and are what it normalises with: new pictures do not undo what it has learnt.

    Args:
        epochs: Epochs that a parameter or a layer trains, by its name: `{"whitening.bias": 3}`.
    """

    def __init__(self, epochs: Mapping[str, CountOrZero]) -> None:
        self.epochs = dict(epochs)

    def check(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that each name stands for.

        Raises:
            InputError: A name means nothing that trains.
        """
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        chosen = {
            name: [p for key, p in trained.items() if key == name or key.startswith(f"{name}.")]
            for name in self.epochs
        }
        for name, parameters in chosen.items():
            if not parameters:
                layers = [key.rpartition(".")[0] for key in trained]
                raise InputError(
                    f"freeze: nothing that trains is called {name!r} in this {type(model).__name__}; "
                    f"{nearest(name, sorted({*trained, *layers} - {''}))}"
                )
        return chosen

    def on_train_begin(self, trainer: Trainer) -> None:
        self._chosen, self._epoch = self.check(trainer.model), 0
        self._norms = {name: list(_norms_in(trainer.model, name).values()) for name in self.epochs}
        self._still = trainer.still
        trainer.finally_do(lambda: self._set(-1))

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self._set(trainer.epoch)

    def _set(self, epoch: int) -> None:
        self._epoch = epoch
        for name, parameters in self._chosen.items():
            for parameter in parameters:
                parameter.requires_grad_(epoch < self.epochs[name])
            for module in self._norms[name]:
                self._still.discard(module)
                if epoch >= self.epochs[name]:
                    self._still.add(module)
                module.train(epoch < self.epochs[name])

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._set(state["epoch"])  # an epoch that is resumed in its midst does not begin again


class FineTune(Callback):
    """Train the last layer alone at first, then the blocks above the first ones, which stay as they are.

    A new head sends large gradients into the body and undoes what it has learnt before (Kumar et al. 2022,
    arXiv:2202.10054). The first blocks know edges and colours, which serve any pictures, and cost the most:
    where they are frozen the backward pass ends above them. What is frozen takes neither gradient nor weight
    decay, and normalises with the running statistics that it came with.

    Args:
        head_epochs: Epochs that train the head alone.
        frozen: Share of the blocks, from the first on, that never train; see `layer_depths`.
    """

    def __init__(self, *, head_epochs: CountOrZero = 1, frozen: Share = 0.0) -> None:
        self.head_epochs, self.frozen = head_epochs, frozen

    def on_train_begin(self, trainer: Trainer) -> None:
        depths, model = layer_depths(trainer.model), trainer.model
        self._still, self._epoch = trainer.still, 0
        self._trained = [(p, depths[name]) for name, p in model.named_parameters() if p.requires_grad]
        self._norms = [(m, depths.get(f"{name}.weight", 1)) for name, m in _norms_in(model, "").items()]
        blocks = max(depths.values(), default=0)
        self._deepest = blocks - int(self.frozen * blocks)
        trainer.finally_do(self._thaw)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self._set(trainer.epoch)

    def _set(self, epoch: int) -> None:
        self._epoch = epoch
        self._train_down_to(0 if epoch < self.head_epochs else self._deepest)

    def _thaw(self) -> None:
        self._train_down_to(max((depth for _, depth in self._trained), default=0))

    def _train_down_to(self, deepest: int) -> None:
        for parameter, depth in self._trained:
            parameter.requires_grad_(depth <= deepest)
        for module, depth in self._norms:
            (self._still.discard if depth <= deepest else self._still.add)(module)
            module.train(depth <= deepest)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._set(state["epoch"])


def _norms_in(model: nn.Module, name: str) -> dict[str, nn.Module]:
    """Return the modules with running statistics of a layer by name, of the whole network for ""."""
    return {
        key: module
        for key, module in model.named_modules()
        if (not name or key == name or key.startswith(f"{name}."))
        and isinstance(module, nn.modules.batchnorm._NormBase)
        and module.track_running_stats
    }


WATCHED = {"loss": -1, "accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1}
"""Metrics of the validation split that can choose an epoch; -1 where lower is better."""


class _WatchesValidation(Callback):
    """Abstract: knows the epoch with the best `metric` of the validation split, the first of equal ones."""

    best: dict[str, Any]

    def __init__(self, *, metric: str = "loss") -> None:
        if metric not in WATCHED:
            raise InputError(f"metric {metric!r} cannot be watched; {nearest(metric, list(WATCHED))}")
        self.metric = metric

    def on_train_begin(self, trainer: Trainer) -> None:
        self.best = {}
        if trainer.held_out is None:
            raise InputError(
                f"{type(self).__name__} chooses by a validation split, and validation is 0; "
                "set validation=0.1"
            )

    def on_epoch_end(self, trainer: Trainer) -> None:
        row = trainer.history.epochs[-1]
        value, sign = row[f"validation_{self.metric}"], WATCHED[self.metric]
        if sign * value > sign * self.best.get(self.metric, -sign * float("inf")):
            self.best = {self.metric: value, "epoch": row["epoch"], **self._remembered(trainer)}

    def _remembered(self, trainer: Trainer) -> dict[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return self.best

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state


class KeepBest(_WatchesValidation):
    """Give the model, at the end, the weights of the epoch with the best `metric` of the validation split."""

    def _remembered(self, trainer: Trainer) -> dict[str, Any]:
        with trainer.averaged():
            return {"weights": {k: v.detach().cpu().clone() for k, v in trainer.model.state_dict().items()}}

    def on_train_end(self, trainer: Trainer) -> None:
        if self.best:  # not a single finite value: the last weights stay
            trainer.model.load_state_dict(self.best["weights"])
            trainer.kept = self.best["epoch"]


class EarlyStopping(_WatchesValidation):
    """End the training once `patience` epochs have brought no better `metric` of the validation split."""

    def __init__(self, patience: Count = 5, *, metric: str = "loss") -> None:
        super().__init__(metric=metric)
        self.patience = patience

    def on_epoch_end(self, trainer: Trainer) -> None:
        super().on_epoch_end(trainer)
        if trainer.epoch - self.best.get("epoch", trainer.epoch) >= self.patience:
            trainer.stop = True


class LogEpochs(Callback):
    """Log a line for each epoch, at level INFO."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        if distributed.leads():
            log.info(describe_epoch(trainer.history.epochs[-1], trainer.epochs))


_LARGEST = torch.finfo(torch.float16).max


class RecordDynamics(Callback):
    """Keep what each image's margin and probability were in the pass that trained on it, for nothing.

    A step scatters two values per image into a buffer on the device; the host waits for it once per epoch.
    `fit` has one always; what it has recorded is `History.dynamics`.
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        self.start(len(trainer.data.train), trainer.trained, trainer.device)

    def start(self, count: int, trained: np.ndarray, device: torch.device | str = "cpu") -> None:
        """Begin with a split of `count` images, of which those at `trained`, (n,) int64, are trained on."""
        self.epochs: list[torch.Tensor] = []  # one (2, count) float16 per finished epoch, on the CPU
        self._count = count
        self._trained = torch.from_numpy(trained)
        self.current = torch.full((2, len(trained)), torch.nan, dtype=torch.float16, device=device)

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.weight:  # else this process has only repeated the image of another one
            self.note(trainer.batch.indices, trainer.batch.labels, trainer.logits)

    def note(self, indices: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep the margin and the probability of a batch; indices: (B,), among those trained on."""
        self.current.index_copy_(1, indices, margin_and_probability(logits, labels).half())

    def on_epoch_end(self, trainer: Trainer) -> None:
        fill_gaps(self.current)
        self.close_epoch()
        trainer.history = trainer.history.with_dynamics(self.dynamics())

    def close_epoch(self) -> None:
        """File the epoch and begin the next."""
        whole = torch.full((2, self._count), torch.nan, dtype=torch.float16)
        whole[:, self._trained] = self.current.cpu()
        self.epochs.append(whole)
        self.current.fill_(torch.nan)

    def dynamics(self) -> Dynamics:
        """Return the finished epochs; images that were not trained on are NaN."""
        stacked = (
            torch.stack(self.epochs).numpy() if self.epochs else np.empty((0, 2, self._count), np.float16)
        )
        return Dynamics(stacked[:, 0], stacked[:, 1])

    def state_dict(self) -> dict[str, Any]:
        fill_gaps(self.current)
        return {"epochs": list(self.epochs), "current": self.current}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = list(state["epochs"])
        self.current.copy_(state["current"])


def margin_and_probability(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the label's logit minus the largest other, and its probability: (2, B) float32.

    logits: (B, C). labels: (B,). Margins end at the largest number that float16 has.
    """
    logits, index = logits.float(), labels[:, None]
    own = logits.gather(1, index)  # (B, 1)
    others = logits.scatter(1, index, -torch.inf).amax(1)  # (B,)
    margin = (own[:, 0] - others).clamp(-_LARGEST, _LARGEST)
    probability = (own[:, 0] - logits.logsumexp(1)).exp()
    return torch.stack([margin, probability])


CALLBACKS: dict[str, Callable[..., Callback]] = {}
"""Callbacks by name, for a recipe's `callbacks`: functions that return one. Add your own.

Those of the package have keys of their own in a recipe: `weight_averaging`, `training.freeze`, and so on.
"""
