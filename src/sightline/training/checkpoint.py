"""Files from which a training goes on as if it had not been interrupted."""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sightline import distributed
from sightline.errors import DamagedFileError, InputTypeError, NotFoundError, SightlineError
from sightline.files import check_regular, write_atomic
from sightline.models.weights import state_problem
from sightline.training.callbacks import Callback

if TYPE_CHECKING:
    from sightline.training.trainer import Trainer

SCHEMA = 2  # of a checkpoint's content; version 0.1 of the package wrote the first one, without a number
_CHECK_EVERY = 50  # steps between looks at the clock, where several processes have to agree on an accelerator


class Checkpoint(Callback):
    """Write the whole state of the training at the end of each epoch and every so often within one.

    `fit` calls it after all other callbacks, whose state it keeps with the rest.

    Args:
        path: The file. It is whole at any moment.
        seconds: How often to write within an epoch.
        resume: Go on from the file, if it is there.
    """

    def __init__(self, path: str | Path, *, seconds: float = 30.0, resume: bool = False) -> None:
        self.path, self.seconds, self.resume = Path(path), seconds, resume

    def on_train_begin(self, trainer: Trainer) -> None:
        self._saved = time.perf_counter()
        if not (self.resume and distributed.agreed(self.path.exists())):
            return
        state = distributed.leader_does(lambda: load_checkpoint(self.path))
        try:
            trainer.load_state_dict(state)
        except SightlineError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"it has no {error}" if type(error) is KeyError else str(error).partition("\n")[0]
            if isinstance(model := state.get("model"), dict):
                reason = state_problem(model, trainer.model.state_dict()) or reason
            raise DamagedFileError(
                f"{self.path} belongs to another recipe ({reason}; sightline {state['version']} wrote it and "
                f"this is {_version()}); start the run anew"
            ) from None

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self._saved = time.perf_counter()

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.position < len(trainer.batches) and self._is_due(trainer):
            self._save(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        # Clocks differ, and all processes have to save at the same step: process 0 says when.
        if distributed.size() > 1 and trainer.device.type != "cpu" and trainer.position % _CHECK_EVERY:
            return False
        return distributed.agreed(time.perf_counter() - self._saved > self.seconds)

    def _save(self, trainer: Trainer) -> None:
        state = trainer.state_dict()  # in every process: they put together what they have
        if distributed.leads():
            save_checkpoint(self.path, state)
        self._saved = time.perf_counter()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all.

    Raises:
        InputTypeError: A callback's state holds something else, which could not be read again.
    """
    for name, kept in state.get("callbacks", {}).items():
        _check_plain(f"the state of callback {name}", kept)
    packed = io.BytesIO()  # torch turns a full disk into an error of its own when it writes the file itself
    torch.save({"schema": SCHEMA, "version": _version(), **state}, packed)
    write_atomic(path, lambda file: file.write(packed.getbuffer()))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing in the file can run (`weights_only=True`).

    Raises:
        NotFoundError: The file is missing.
        DamagedFileError: It is damaged, or another version of the package wrote it.
    """
    try:
        check_regular(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing; start the run anew") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(f"{path} is damaged ({first}); delete it and start the run anew") from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        wrote = state.get("version", "0.1") if isinstance(state, dict) else "0.1"
        raise DamagedFileError(
            f"{path} was written by sightline {wrote}, whose checkpoints version {_version()} cannot read; "
            "finish the run with that version, or start it anew"
        )
    return state


def _version() -> str:
    import sightline

    return sightline.__version__


def _check_plain(where: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _check_plain(where, key)
            _check_plain(where, part)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_plain(where, part)
    elif type(value) not in (bool, int, float, str, type(None)) and not isinstance(value, torch.Tensor):
        raise InputTypeError(
            f"{where} holds a {type(value).__name__}; a checkpoint keeps tensors, numbers, strings, lists, "
            "tuples and dicts of these"
        )
