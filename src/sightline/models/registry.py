"""Models by name, made for a data set, saved and opened without running code from a file."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torchinfo
from torch import nn

from sightline.data import Dataset
from sightline.errors import (
    DamagedFileError,
    InputError,
    InputTypeError,
    NotFoundError,
)
from sightline.extensions import resolve, spelled
from sightline.files import write_atomic, write_text
from sightline.models.custom_resnet import custom_resnet
from sightline.models.device import device_of, evaluating
from sightline.models.layers import Normalize
from sightline.models.resnet import resnet18, resnet34
from sightline.models.speednet import speednet
from sightline.signatures import checked_options

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "custom_resnet": custom_resnet,
    "speednet": speednet,
}


def create_model(
    model: str | Callable[..., nn.Module], data: Dataset, *, seed: int = 0, **options: Any
) -> nn.Module:
    """Return a new model for `data`: as many logits as classes, its channel statistics inside.

    The global random state is left as it was. A model that has a method `whiten` is given the training
    images.

    Args:
        model: A name of :data:`MODELS`, of a plugin, "package.module:function", or a function
            `(num_classes, normalize, **options) -> Module`. `normalize` is the layer that it begins with:
            images come in as (B, 3, H, W) in [0, 1].
        data: What it is for.
        seed: Of the initial weights.
        **options: Further arguments of the function.

    Raises:
        InputError: An unknown name, or an option that the function does not take.
        InputTypeError: The function returns something else than a Module.
    """
    function = resolve("model", model, MODELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _build(function, data.num_classes, Normalize(data.mean.tolist(), data.std.tolist()), options)
    whiten = getattr(made, "whiten", None)
    if whiten is not None:
        whiten(data.train.images)
    return made


def check_options(
    where: str, function: Callable[..., nn.Module], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a model as its function takes them; the first two arguments are not among them.

    Raises InputError, with `where` before the option's name, for one that does not fit.
    """
    return checked_options(where, options, function, given=list(inspect.signature(function).parameters)[:2])


def _build(
    function: Callable[..., nn.Module], num_classes: int, normalize: Normalize, options: Mapping[str, Any]
) -> nn.Module:
    name = getattr(function, "__name__", str(function))
    checked = check_options(f"options of model {name}: ", function, options)
    try:
        made = function(num_classes, normalize, **checked)
    except TypeError as error:
        raise InputError(f"model {name!r} cannot be made with options {dict(options)}: {error}") from error
    if not isinstance(made, nn.Module):
        raise InputTypeError(
            f"model {name!r} returned a {type(made).__name__}; its function has to return a torch.nn.Module"
        )
    return made


def save_model(
    folder: Path,
    model: nn.Module,
    *,
    name: str | Callable[..., nn.Module],
    options: Mapping[str, Any],
    data: Dataset,
    epoch: int,
) -> None:
    """Write `model.safetensors` and `model.json`, from which :func:`load_model` makes it again.

    Args:
        folder: Where.
        model: With the weights to keep.
        name: What `create_model` was given: a name, or the function, which has to live in a module.
        options: The other arguments that it was made with.
        data: The data set that it was made for.
        epoch: The one that the weights come from.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    packed = safetensors.torch.save(tensors)
    write_atomic(folder / "model.safetensors", lambda file: file.write(packed))
    card = {
        "name": spelled(name),
        "options": dict(options),
        "class_names": list(data.class_names),
        "image_size": list(data.image_size),
        "epoch": epoch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "summary": summarize(model, data.image_size),
    }
    write_text(folder / "model.json", json.dumps(card, indent=2))


def load_model(folder: Path, *, trust: Collection[str] | None = ()) -> tuple[nn.Module, dict[str, Any]]:
    """Open what :func:`save_model` wrote: the model in evaluation mode on the CPU, and its card.

    Args:
        folder: The folder of a run, or another that holds both files.
        trust: Modules that may be imported to make a model which is not the package's own; their submodules
            too. None allows all.

    Raises:
        NotFoundError: A file is missing.
        DamagedFileError: A file is damaged, or weights and card do not fit.
        UntrustedError: The card names a function in a module that is not trusted.
    """
    card_path, weights_path = folder / "model.json", folder / "model.safetensors"
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        name, options, classes = card["name"], card["options"], len(card["class_names"])
    except FileNotFoundError as error:
        raise NotFoundError(f"{error.filename} is missing; train first, or resume the run") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{card_path} is not a model's card: {error}; train again or resume the run"
        ) from None
    try:
        model = _build(resolve("model", name, MODELS, trust=trust), classes, Normalize(), options)
    except InputError as error:
        raise DamagedFileError(f"{card_path} names a model that cannot be made: {error}") from None
    try:
        model.load_state_dict(safetensors.torch.load_file(weights_path))
    except FileNotFoundError:
        raise NotFoundError(f"{weights_path} is missing; train first, or resume the run") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise DamagedFileError(
            f"{weights_path} does not hold the weights of its model.json: {first}"
        ) from None
    return model.eval(), card


def summarize(model: nn.Module, image_size: Sequence[int], *, batch_size: int = 1) -> str:
    """Return a table of the layers: shapes, parameters, kernels, share, mult-adds, memory (torchinfo)."""
    with evaluating(model), torch.no_grad():
        summary = torchinfo.summary(
            model,
            input_size=(batch_size, 3, *image_size),
            col_names=(
                "input_size",
                "output_size",
                "num_params",
                "kernel_size",
                "params_percent",
                "mult_adds",
            ),
            col_width=20,
            depth=4,
            device=device_of(model),
            mode="eval",
            verbose=0,
        )
    return str(summary)
