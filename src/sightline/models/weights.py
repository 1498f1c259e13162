"""Files of weights: safetensors, or a state dict read with `weights_only=True`; by the names of a model."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.files import check_regular

_WRAPPINGS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_ema",
)  # under which a checkpoint keeps its state
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def load_weights(model: nn.Module, path: str | Path, *, head: bool = False) -> None:
    """Put the weights of a file into a model, in place.

    A file with the names of the backbone's own library fills the body, and its head stays new; a file with
    the model's own names, such as a run's `model.safetensors`, fills all, but for a head of other classes.

    Args:
        model: A `Backbone` or another module.
        path: Safetensors, or what `torch.save` wrote of a state dict.
        head: Whether the file has to fill the head too, which is then not new.

    Raises:
        NotFoundError, DamagedFileError: The file is missing, or holds no tensors by name.
        InputError: It holds other tensors than the model has.
    """
    found, target = read_weights(path), model
    body, net = getattr(model, "body", None), getattr(model, "net", None)
    if isinstance(net, nn.Module) and not any(name.startswith("net.") for name in found):
        target = net  # somebody else's, which stands behind a normalisation here
    if isinstance(body, nn.Module) and not any(name.startswith("body.") for name in found):
        target = getattr(body, "net", body)
        replaced = getattr(model, "replaced", ())
        if head:
            _fill_head(model, found, replaced, path)
        found = {name: one for name, one in found.items() if not name.startswith(replaced)}
    own = target.state_dict()
    if target is model and isinstance(body, nn.Module):
        for name in ("head.weight", "head.bias"):
            if not head and name in found and name in own and found[name].shape != own[name].shape:
                found[name] = own[name]  # of other classes: it stays new
    if problem := state_problem(found, own):
        raise InputError(f"{path} does not hold weights of this {type(target).__name__}: {problem}")
    target.load_state_dict(found)


def _fill_head(
    model: nn.Module, found: Mapping[str, torch.Tensor], replaced: tuple[str, ...], path: str | Path
) -> None:
    """Put the head of a library's own network into the linear head of a `Backbone`."""
    head: nn.Linear = model.head  # pyright: ignore[reportAssignmentType]
    wanted = {"weight": head.weight, "bias": head.bias}
    theirs = [name for name in found if name.startswith(replaced)] if replaced else []
    for key, tensor in wanted.items():
        fits = [name for name in theirs if name.endswith(key) and found[name].shape == tensor.shape]
        if not fits:
            seen = ", ".join(f"{name} {tuple(found[name].shape)}" for name in theirs) or "none"
            raise InputError(
                f"{path} has no head of {len(head.bias)} classes ({key} {tuple(tensor.shape)}), only: {seen}"
            )
        tensor.data.copy_(found[fits[-1]])


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name; nothing in it can run.

    Raises:
        NotFoundError: There is no such file.
        DamagedFileError: It holds no tensors by name.
    """
    try:
        check_regular(path)
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NotFoundError(f"the file of weights {path} is missing; check --weights") from None
    except (
        *(pickle.UnpicklingError, safetensors.SafetensorError, RuntimeError),
        *(EOFError, ValueError, LookupError, OSError),
    ) as error:
        reason = str(error).partition("\n")[0][:120]
        raise DamagedFileError(
            f"{path} cannot be read as weights ({reason}); it has to be safetensors or a saved state dict"
        ) from None
    for key in _WRAPPINGS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise DamagedFileError(f"{path} is not a state dict: a table of tensors by name")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): one for name, one in state.items()}
    return dict(state)


def state_problem(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str | None:
    """Say in which tensor two states of a model differ first, None where they have the same ones."""
    for name in [*wanted, *found]:
        if name not in found:
            return f"it lacks the tensor {name!r}"
        if name not in wanted:
            return f"it has a tensor {name!r}, which this model does not have"
        if found[name].shape != wanted[name].shape:
            return f"its tensor {name!r} is {tuple(found[name].shape)} and not {tuple(wanted[name].shape)}"
    return None


def state_hash(module: nn.Module, *, without: str = "") -> str:
    """Return the SHA-256 of the build of a module and of its tensors, as 64 hexadecimal digits.

    without: the name of a submodule that does not count.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        if name != without:
            digest.update(f"{name} {type(part).__qualname__} {part.extra_repr()}\n".encode())
    for name, tensor in module.state_dict().items():
        if not without or not name.startswith(f"{without}."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
