"""How to run a training fastest on this machine: precision and memory format, by measuring a few steps.

execution = measure_execution(model, data, batch_size=512, steps=490)
fit(model, data, execution=execution)
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

import torch
from torch import nn

from sightline import logs
from sightline.data import Dataset
from sightline.errors import InputError
from sightline.models import choose_device, choose_memory_format, choose_precision, to_float
from sightline.training.optimizers import OptimizerFactory, sgd
from sightline.training.train_step import train_step

_FEWEST_STEPS = 300  # a training shorter than this would not get back what measuring costs
_TIMED_STEPS = {"cpu": 2, "cuda": 10}
_GAIN = 1.1  # by how much another way has to be faster than the usual one to be taken


@dataclass(frozen=True)
class Execution:
    """How a training runs: a precision and a memory format, and whether the network is compiled.

    Attributes:
        precision: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device multiplies it
            natively, else float32.
        memory_format: "channels_last", "contiguous", or "auto": channels_last.
        images_per_second: What was measured, by (precision, memory format), the usual way first; empty if
            nothing was, because the training is short or the device has one way only.
        compiled: Whether `torch.compile` joins the small operations of a step. It takes about a minute before
            the first one, and a C++ compiler on a CPU; worth it where a training takes ten.
    """

    precision: str = "auto"
    memory_format: str = "auto"
    images_per_second: dict[tuple[str, str], float] = field(default_factory=dict)
    compiled: bool = False

    def describe(self) -> str:
        """Return the choice and what it was chosen from, as one line."""
        chosen = f"{self.precision}, {self.memory_format}"
        if not self.images_per_second:
            return f"{chosen} (not measured)"
        best = self.images_per_second[self.precision, self.memory_format]
        others = [
            f"{', '.join(way)} {speed / best:.2f} of it"
            for way, speed in self.images_per_second.items()
            if way != (self.precision, self.memory_format)
        ]
        return f"{chosen}: {best:,.0f} images/s; {'; '.join(others)}"


@logs.stage("trying which precision is fastest")
def measure_execution(
    model: nn.Module,
    data: Dataset,
    *,
    batch_size: int,
    steps: int,
    optimizer: OptimizerFactory | None = None,
    memory_format: str = "auto",
    device: str = "auto",
) -> Execution:
    """Train copies of `model` for a few steps in each precision and memory format, and choose the fastest.

    steps: of the training to come; one under 300 is not measured for. The usual way (bfloat16 where the
    device multiplies it natively, and channels_last) stays unless another is a tenth faster: first
    float32, then, in the faster precision, the other memory format unless one is named. Each is warmed
    up for a step and timed by its fastest one. Model, data and random state are left as they were.
    """
    torch_device = choose_device(device)
    usual = (
        choose_precision("auto", torch_device),
        "channels_last" if memory_format == "auto" else memory_format,
    )
    if steps < _FEWEST_STEPS or torch_device.type not in _TIMED_STEPS:
        return Execution(*usual)
    images = to_float(next(data.train.blocks(batch_size))).to(torch_device)  # (B, 3, H, W)
    labels = torch.from_numpy(data.train.labels[:batch_size]).to(torch_device)
    speeds: dict[tuple[str, str], float] = {}

    def faster(way: tuple[str, str], other: tuple[str, str]) -> tuple[str, str]:
        for each in (way, other):
            if each not in speeds:
                speeds[each] = _speed(
                    model, optimizer or sgd(), images, labels, each, _TIMED_STEPS[torch_device.type]
                )
        return other if speeds[other] > _GAIN * speeds[way] else way

    with torch.random.fork_rng(devices=[torch_device] if torch_device.type == "cuda" else []):
        chosen = faster(usual, ("float32", usual[1])) if usual[0] != "float32" else usual
        if memory_format == "auto":
            chosen = faster(chosen, (chosen[0], "contiguous"))
    return Execution(*chosen, images_per_second=speeds)


def check_compiler() -> None:
    """Raise InputError if torch cannot compile on this machine."""
    try:
        torch.compile(_tried)(torch.zeros(2))
    except Exception as error:  # of many kinds: torch passes on what its backend and the compiler raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"training.compile is true, and torch cannot compile here: {reason}; install a C++ compiler "
            "(such as g++) or leave training.compile out"
        ) from error


def _tried(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def _speed(
    model: nn.Module,
    optimizer: OptimizerFactory,
    images: torch.Tensor,
    labels: torch.Tensor,
    way: tuple[str, str],
    timed: int,
) -> float:
    precision, layout = way[0], choose_memory_format(way[1])
    trial = copy.deepcopy(model).train().to(images.device)
    trial.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    images = images.contiguous(memory_format=layout)
    trained = optimizer(trial)
    for group in trained.param_groups:
        group["lr"] = 1e-6  # the work is the same at any learning rate, and this one cannot diverge
    seconds = []
    for _ in range(1 + timed):
        begin = time.perf_counter()
        train_step(trial, trained, images, labels, precision=precision)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        seconds.append(time.perf_counter() - begin)
    return len(images) / min(seconds[1:])
