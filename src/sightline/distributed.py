"""The processes of one job: who this one is, what one does for all, what all put together, how they train.

A job is one process unless `torch.distributed` has been initialised: by :func:`joined`, which the command
line calls under torchrun, or by whoever uses the package as a library. Process 0 leads: it alone reads and
writes the run's folder and logs. A function here that waits for the others has to be called by all.

In training each process takes its part of every batch, and their gradients are averaged.
`DistributedDataParallel` takes the plain mean of the processes' gradients. Where a batch of n images is cut
into parts of n_r for R processes, process r multiplies its mean loss by R n_r / n, the weight that its
batches state, so that

    1/R sum_r (R n_r / n) grad(mean of part r) = grad(mean of the batch)

whatever n is. What is not the same as in one process: BatchNorm normalises each part by its own mean and
variance, and dropout draws anew for each process. The running statistics of BatchNorm are averaged before
they are used or saved; an average of moving averages is the moving average of the averages.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sightline.errors import InputError, SightlineError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

# The others wait while process 0 explains and reports. One that ends is noticed by its closed connection:
# the limit serves for one that hangs.
_PATIENCE = datetime.timedelta(hours=12)


def size() -> int:
    """Return the number of processes, 1 where there is no group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def leads() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def own_device(device: torch.device) -> torch.device:
    """Return this process's own device of a kind: with several processes, its current CUDA device.

    Raises SightlineError if the processes would have to share it.
    """
    if size() == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise InputError(
            f"device '{device}' cannot serve {size()} processes; use cuda, which gives each its own, or cpu"
        )
    if (local := _local_rank()) >= torch.cuda.device_count():
        raise InputError(
            f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}; "
            "start at most so many with --nproc-per-node, or use device cpu"
        )
    return torch.device("cuda", torch.cuda.current_device())


def leader_does(work: Callable[[], T]) -> T:
    """Call `work` in process 0 alone and return its result in every process.

    What it raises is raised there, and as a SightlineError in all others.
    """
    if size() == 1:
        return work()
    value, error = _attempt(work) if leads() else (None, None)
    parcel: list[Any] = [value, _told(error)]
    distributed.broadcast_object_list(parcel, src=0)
    _raise(error, parcel[1:])
    return parcel[0]


def agreed(value: T) -> T:
    """Return process 0's value in every process."""
    return leader_does(lambda: value)


def all_do(work: Callable[[], T]) -> list[T]:
    """Call `work` in every process and return all results in each, in the order of the processes.

    What it raises in one is raised there, and as a SightlineError in all others.
    """
    if size() == 1:
        return [work()]
    value, error = _attempt(work)
    parcels: list[Any] = [None] * size()
    distributed.all_gather_object(parcels, (value, _told(error)))
    _raise(error, [told for _, told in parcels])
    return [value for value, _ in parcels]


def machine_first(work: Callable[[], T]) -> T:
    """Call `work` in every process, the first one of each machine before its others: it may download."""
    if size() == 1:
        return work()
    results: list[T] = []
    first = _local_rank() == 0
    for turn in (True, False):
        all_do(lambda now=first is turn: results.append(work()) if now else None)
    return results[0]


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of the processes' tensors, the same to the last bit in each of them."""
    if size() == 1:
        return tensor
    wire = "cpu" if "cpu:" in distributed.get_backend_config() else "cuda"  # where the group can send from
    summed = tensor.detach().to(wire, copy=True)
    distributed.all_reduce(summed)
    return summed.to(tensor.device)


def is_lost(error: BaseException) -> bool:
    """Whether an error says no more than that another process has gone."""
    words = ("gloo", "nccl", "connection closed", "connection reset")
    return size() > 1 and (
        isinstance(error, distributed.DistError)
        or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words))
    )


@contextlib.contextmanager
def joined() -> Iterator[Callable[[], bool]]:
    """Join the group that the environment describes, as torchrun does, and leave it at the end.

    Yields a function that is true for the first of the processes that calls it, the one to print an error.
    """
    from torch.distributed.distributed_c10d import PrefixStore  # PyTorch can be built without
    from torch.distributed.rendezvous import rendezvous

    store, number, count = next(rendezvous("env://"))
    gpu = torch.cuda.is_available() and _local_rank() < torch.cuda.device_count()
    if gpu:
        torch.cuda.set_device(_local_rank())
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        store=PrefixStore("sightline", store),
        rank=number,
        world_size=count,
        timeout=_PATIENCE,
    )
    try:
        yield lambda: _first(store)
    finally:
        gc.collect()  # replicas that only a cycle holds would outlive their group, and end the process badly
        distributed.destroy_process_group()


def _first(store: Store) -> bool:
    try:
        return store.add("sightline/failures", 1) == 1
    except RuntimeError:  # the store has gone with its process: better printed twice than not at all
        return True


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _told(error: Exception | None) -> str | None:
    """What the other processes hear of an error."""
    if error is None or isinstance(error, SightlineError):
        return str(error) if error else None
    return f"process {rank()} failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _raise(own: Exception | None, told: list[str | None]) -> None:
    if own is not None:
        raise own
    for text in told:
        if text is not None:
            raise SightlineError(text)


_STATISTICS, _COUNT = ("running_mean", "running_var"), "num_batches_tracked"


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what a step calls: the model, or with several processes its replica with process 0's weights.

    A replica knows the parameters that train when it is made: make it again when others do.
    """
    if size() == 1:
        return model
    # Buffers are not sent at each step: they are averaged where they are read. torch 2.13 renamed the option.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, buffers: False}
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **options)


def average_statistics(named: Iterable[tuple[str, Tensor]]) -> None:
    """Give the statistics of BatchNorm among `named` tensors their mean over the processes, in place.

    Their count of batches is that of process 0, which has a part of every batch.
    """
    if size() == 1:
        return
    found = [tensor for name, tensor in named if name.endswith((*_STATISTICS, _COUNT))]
    if not found:
        return
    flat = torch.cat([tensor.detach().double().flatten() for tensor in found])
    mean, first = total(flat) / size(), total(flat * leads())
    sizes = [tensor.numel() for tensor in found]
    for tensor, average, count in zip(found, mean.split(sizes), first.split(sizes), strict=True):
        tensor.copy_((average if tensor.is_floating_point() else count).view_as(tensor))


def fill_gaps(tensor: Tensor) -> None:
    """Put in place of each NaN what another process has there, in place."""
    if size() == 1:
        return
    known = ~tensor.isnan()
    summed = total(torch.where(known, tensor, 0).double())
    tensor.copy_(summed / total(known.long()))  # 0 / 0 where nobody knows: NaN again


def total_losses(losses: Tensor, sizes: Tensor, hits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean loss and number of images of each step, and the hits, over all processes.

    losses: (S,) mean of this process's part of each step. sizes: (S,) its images. hits: () int64.
    """
    if size() == 1:
        return losses, sizes, hits
    summed = total(losses.cpu().double() * sizes)
    count = total(sizes)
    means = (summed / count.clamp(min=1)).to(losses)
    return means, count, total(hits)


def reseed(seed: int, epoch: int, position: int) -> None:
    """Begin a step's random stream, for dropout and the like: one for each (seed, epoch, step, process).

    A single process draws on from one stream, which its checkpoint keeps.
    """
    if size() > 1:
        state = np.random.SeedSequence([seed, epoch, position, rank()]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))
