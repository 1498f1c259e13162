"""The state from which training goes on as if nothing had happened."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from sightline.errors import SightlineError
from sightline.files import write_atomic


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    packed = io.BytesIO()  # torch turns a full disk into an error of its own when it writes the file itself
    torch.save(state, packed)
    write_atomic(path, lambda file: file.write(packed.getbuffer()))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing in the file can run (`weights_only=True`).

    Raises SightlineError if the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SightlineError(f"{path} is not there; start the run anew") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SightlineError(f"{path} is damaged ({first}); delete it and start the run anew") from None
