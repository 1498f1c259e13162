"""Training by several processes: each takes its part of every batch, and their gradients are averaged.

`DistributedDataParallel` takes the plain mean of the processes' gradients. Where a batch of n images is cut
into parts of n_r for R processes, process r multiplies its mean loss by R n_r / n, the weight that its
batches state, so that

    1/R sum_r (R n_r / n) grad(mean of part r) = grad(mean of the batch)

whatever n is. What is not the same as in one process: BatchNorm normalises each part by its own mean and
variance, and dropout draws anew for each process. The running statistics of BatchNorm are averaged before
they are used or saved; an average of moving averages is the moving average of the averages.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sightline.models import processes

_STATISTICS, _COUNT = ("running_mean", "running_var"), "num_batches_tracked"


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what a step calls: the model, or with several processes its replica with process 0's weights.

    A replica knows the parameters that train when it is made: make it again when others do.
    """
    if processes.size() == 1:
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
    if processes.size() == 1:
        return
    found = [tensor for name, tensor in named if name.endswith((*_STATISTICS, _COUNT))]
    if not found:
        return
    flat = torch.cat([tensor.detach().double().flatten() for tensor in found])
    mean, first = processes.total(flat) / processes.size(), processes.total(flat * processes.leads())
    sizes = [tensor.numel() for tensor in found]
    for tensor, average, count in zip(found, mean.split(sizes), first.split(sizes), strict=True):
        tensor.copy_((average if tensor.is_floating_point() else count).view_as(tensor))


def fill_gaps(tensor: Tensor) -> None:
    """Put in place of each NaN what another process has there, in place."""
    if processes.size() == 1:
        return
    known = ~tensor.isnan()
    summed = processes.total(torch.where(known, tensor, 0).double())
    tensor.copy_(summed / processes.total(known.long()))  # 0 / 0 where nobody knows: NaN again


def total_losses(losses: Tensor, sizes: Tensor, hits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean loss and number of images of each step, and the hits, over all processes.

    losses: (S,) mean of this process's part of each step. sizes: (S,) its images. hits: () int64.
    """
    if processes.size() == 1:
        return losses, sizes, hits
    summed = processes.total(losses.cpu().double() * sizes)
    count = processes.total(sizes)
    means = (summed / count.clamp(min=1)).to(losses)
    return means, count, processes.total(hits)


def reseed(seed: int, epoch: int, position: int) -> None:
    """Begin a step's random stream, for dropout and the like: one for each (seed, epoch, step, process).

    A single process draws on from one stream, which its checkpoint keeps.
    """
    if processes.size() > 1:
        state = np.random.SeedSequence([seed, epoch, position, processes.rank()]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))
