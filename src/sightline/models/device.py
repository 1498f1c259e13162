"""Where and how a model runs: device, precision, evaluation mode, and the step from bytes to floats."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from sightline import distributed
from sightline.errors import InputError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def to_float(images: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Turn uint8 (B, H, W, 3) into float32 (B, 3, H, W) in [0, 1]; the result is channels_last in memory.

    Raises:
        InputError: Anything but uint8 with three channels at the end.

    >>> to_float(np.full((1, 2, 2, 3), 255, np.uint8)).shape
    torch.Size([1, 3, 2, 2])
    """
    pixels = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        came = f"{pixels.dtype} {tuple(pixels.shape)}"
        raise InputError(f"images are {came}; to_float takes uint8 (B, H, W, 3), as a data set holds them")
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InputError: This machine does not have it, or several processes cannot share it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.partition(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in available:
        raise InputError(f"device {name!r} is not known; use auto, cpu, cuda or mps")
    if not available[kind]:
        raise InputError(
            f"device {name!r} is not available: PyTorch sees none on this machine; use cpu or auto"
        )
    return distributed.own_device(torch.device(name))


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve "auto": bfloat16 where the device multiplies it natively, float32 elsewhere."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "cpu" and _cpu_multiplies_bfloat16() else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    # Private in torch, and renamed before: an absent name means "no", not an error.
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def choose_memory_format(name: str = "auto") -> torch.memory_format:
    """Return the memory format called `name`; "auto" is channels_last, the usual one for convolutions."""
    if name not in ("auto", *MEMORY_FORMATS):
        raise InputError(f"memory format {name!r} is not known; use auto, {', '.join(MEMORY_FORMATS)}")
    return MEMORY_FORMATS["channels_last" if name == "auto" else name]


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the context in which a forward pass runs in `precision`."""
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not known; use auto, {', '.join(PRECISIONS)}")
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def keep_freed_memory() -> None:
    """Let the C library keep what tensors have freed, for as long as this process lives (glibc only).

    By default it hands large blocks back to the system, which has to find and clear each page anew when
    the next step asks for them. For a process that trains, not for a library: the setting is global.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            _ = mallopt(parameter, 2**30) or mallopt(parameter, 2**25)  # some versions refuse over 32 MiB


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer (CPU if it has none)."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, and each back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:  # not model.eval(), which a model may have made do something else
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training
