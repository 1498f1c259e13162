"""Models by name, made for a data set, saved and opened without running code from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torchinfo
from torch import nn

from sightline.data import Dataset
from sightline.errors import SightlineError, nearest
from sightline.files import write_atomic, write_text
from sightline.models.custom_resnet import custom_resnet
from sightline.models.device import device_of, evaluating
from sightline.models.layers import Normalize
from sightline.models.resnet import resnet18, resnet34
from sightline.models.speednet import speednet

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

    model: a name of :data:`MODELS`, or a function `(num_classes, normalize, **options) -> Module`.
    seed: of the initial weights; the global random state is left as it was. A model that has a
    method `whiten` is given the training images.

    Raises SightlineError for an unknown name or an option that the model does not have.
    """
    function = MODELS.get(model) if isinstance(model, str) else model
    if function is None:
        raise SightlineError(f"model {model!r} is not known; {nearest(str(model), list(MODELS))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _build(function, data.num_classes, Normalize(data.mean.tolist(), data.std.tolist()), options)
    whiten = getattr(made, "whiten", None)
    if whiten is not None:
        whiten(data.train.images)
    return made


def _build(
    function: Callable[..., nn.Module], num_classes: int, normalize: Normalize, options: Mapping[str, Any]
) -> nn.Module:
    try:
        return function(num_classes, normalize, **options)
    except TypeError as error:
        name = getattr(function, "__name__", function)
        raise SightlineError(f"model {name!r} cannot be made with options {dict(options)}: {error}") from None


def save_model(
    folder: Path, model: nn.Module, *, name: str, options: Mapping[str, Any], data: Dataset, epoch: int
) -> None:
    """Write `model.safetensors` and `model.json`, from which :func:`load_model` makes it again.

    epoch: the one that the weights come from.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    packed = safetensors.torch.save(tensors)
    write_atomic(folder / "model.safetensors", lambda file: file.write(packed))
    card = {
        "name": name,
        "options": dict(options),
        "class_names": list(data.class_names),
        "image_size": list(data.image_size),
        "epoch": epoch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "summary": summarize(model, data.image_size),
    }
    write_text(folder / "model.json", json.dumps(card, indent=2))


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Open what :func:`save_model` wrote: the model in evaluation mode on the CPU, and its card.

    Raises SightlineError if a file is missing or damaged, or if weights and name do not fit.
    """
    card_path, weights_path = folder / "model.json", folder / "model.safetensors"
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        function = MODELS[card["name"]]
        model = _build(function, len(card["class_names"]), Normalize(), card["options"])
        model.load_state_dict(safetensors.torch.load_file(weights_path))
    except FileNotFoundError as error:
        raise SightlineError(
            f"{error.filename or weights_path} is not there; train first, or resume the run"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise SightlineError(
            f"{card_path} is not a model's card: {error}; train again or resume the run"
        ) from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise SightlineError(f"{weights_path} does not hold the weights of its model.json: {first}") from None
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
