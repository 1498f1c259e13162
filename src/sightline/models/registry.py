"""Models by name, made for a data set, saved and opened without running code from a file."""

from __future__ import annotations

import json
import re
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
    MissingExtraError,
    NotFoundError,
    SightlineError,
)
from sightline.extensions import resolve, spelled
from sightline.files import check_regular, read_json, write_atomic, write_json
from sightline.models.backbones import (
    LITE0,
    Backbone,
    backbone_function,
    card_problem,
    is_backbone,
    make_backbone,
)
from sightline.models.custom_resnet import custom_resnet
from sightline.models.device import device_of, evaluating
from sightline.models.layers import Normalize, Normalized
from sightline.models.resnet import resnet18, resnet34
from sightline.models.speednet import speednet
from sightline.models.weights import load_weights, state_problem
from sightline.signatures import accepts, checked_options, takes

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "custom_resnet": custom_resnet,
    "speednet": speednet,
}
"""Models by name: functions `(num_classes, normalize, **options)` that return a `torch.nn.Module`.

A function of yours may lack both arguments.
"""

_GIVEN = ("num_classes", "normalize")


def create_model(
    model: str | Callable[..., nn.Module],
    data: Dataset,
    *,
    seed: int = 0,
    weights: str | Path | None = None,
    pretrained: bool = True,
    head: bool = False,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    trust: Collection[str] | None = None,
    **options: Any,
) -> nn.Module:
    """Return a new model for `data`: as many logits as classes, its channel statistics inside.

    The global random state is left as it was. A model that has a method `whiten` is given the training
    images.

    Args:
        model: A name of :data:`MODELS`, of a plugin, "package.module:function", or a function
            `(num_classes, normalize, **options)`. It returns a `torch.nn.Module` that takes images
            (B, 3, H, W) in [0, 1], applies `normalize` to them first and returns logits (B, num_classes).
            What a function without the argument `normalize` returns is given normalised images.
            Or a backbone with a new head and statistics of its own: "efficientnet_lite0", "timm/NAME",
            "torchvision/NAME", "hf/NAME" or "hf/FOLDER".
        data: Gives the number of classes, the statistics of the channels and the training images.
        seed: Of the initial weights.
        weights: A file of weights to start from; see `load_weights`.
        pretrained: Whether a backbone starts from its library's weights, where there is no file. A function
            of yours with an argument of that name is given False then, and when a saved model is opened.
        head: Whether the weights have to fill the head of a backbone too.
        statistics: Mean and standard deviation per channel of `normalize`; by default those of the data.
        trust: Modules that may be imported for a name that stands in a file; None for a name of your own.
        **options: Further arguments of the function, checked by its annotations.

    Raises:
        InputError: An unknown name, a function of other arguments, an option that does not fit, or weights
            that cannot be had.
        MissingExtraError: The backbone's package is not installed.
        InputTypeError: The function returns something else than a Module.
        UntrustedError: The name would import a module that is not in `trust`.
    """
    function = find_model(model, trust=trust)
    if takes(function, "pretrained") and (weights or not pretrained):
        options = {**options, "pretrained": False}
    mean, std = statistics or (data.mean.tolist(), data.std.tolist())
    normalize = Normalize() if is_backbone(model) else Normalize(mean, std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _build(function, data.num_classes, normalize, options)
    if weights:
        load_weights(made, weights, head=head)
    whiten = getattr(made, "whiten", None)
    if whiten is not None and not weights and len(data.train):
        whiten(data.train.images)
    return made


def find_model(
    model: str | Callable[..., nn.Module], *, trust: Collection[str] | None = None
) -> Callable[..., nn.Module]:
    """Return the function of a model: one of the package's own, a backbone's, a plugin's or a user's.

    Raises:
        InputError: Nothing is called so.
        UntrustedError: The name would import a module that is not in `trust`.
    """
    if isinstance(model, str) and is_backbone(model):
        return backbone_function(model)
    known: dict[str, Callable[..., nn.Module]] = {**MODELS, LITE0: backbone_function(LITE0)}
    return resolve("model", model, known, trust=trust)


def check_options(
    where: str, function: Callable[..., nn.Module], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a model as its function takes them.

    Args:
        where: What an error says before the option's name.
        function: A model's function.
        options: Its arguments but `num_classes` and `normalize`.

    Raises:
        InputError: An option does not fit.
    """
    name = getattr(function, "__name__", str(function))
    if not callable(function):
        raise InputTypeError(f"model {name!r} is a {type(function).__name__}; it has to be a function")
    return checked_options(where, options, function, given=_GIVEN)


def _build(
    function: Callable[..., nn.Module], num_classes: int, normalize: Normalize, options: Mapping[str, Any]
) -> nn.Module:
    name = getattr(function, "__name__", str(function))
    checked = check_options(f"options of model {name}: ", function, options)
    try:
        given = {"num_classes": num_classes, "normalize": normalize}
        made = function(**{key: value for key, value in given.items() if accepts(function, key)}, **checked)
    except SightlineError:
        raise
    except Exception as error:  # options that do not fit together can make a network raise anything
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"model {name!r} cannot be made with options {dict(options)}: {reason}") from error
    if not isinstance(made, nn.Module):
        raise InputTypeError(
            f"model {name!r} returned a {type(made).__name__}; its function has to return a torch.nn.Module"
        )
    return made if accepts(function, "normalize") else Normalized(normalize, made)


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
        folder: Where; it exists.
        model: With the weights to keep.
        name: What `create_model` was given: a name, or the function, which has to live in a module.
        options: The other arguments that it was made with, as JSON can write them.
        data: The data set that it was made for.
        epoch: The one that the weights come from.

    Raises:
        InputError: A function that another process cannot find, or an option that JSON cannot write.
    """
    card = {
        "name": spelled(name),
        "options": dict(options),
        "class_names": list(data.class_names),
        "image_size": list(data.image_size),
        "epoch": epoch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "summary": summarize(model, data.image_size),
    }
    if isinstance(model, Backbone) and is_backbone(card["name"]):
        card["backbone"] = model.card
    for option, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise InputError(
                f"option {option} of model {card['name']!r} is {value!r}, which cannot be saved; "
                "numbers, texts, lists and tables can"
            ) from None
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    packed = safetensors.torch.save(tensors)
    write_atomic(folder / "model.safetensors", lambda file: file.write(packed))
    write_json(folder / "model.json", card)


def load_model(folder: Path, *, trust: Collection[str] | None = ()) -> tuple[nn.Module, dict[str, Any]]:
    """Open what :func:`save_model` wrote: the model in evaluation mode on the CPU, and its card.

    Args:
        folder: The folder of a run, or another that holds both files.
        trust: Modules that may be imported to make a model which is not the package's own; their submodules
            too. Importing runs their code. None allows all.

    Raises:
        NotFoundError: A file is missing.
        DamagedFileError: A file is damaged, or weights and card do not fit.
        InputError: The card names a model that is not known here.
        UntrustedError: The card names a function in a module that is not trusted.
    """
    card_path, weights_path = folder / "model.json", folder / "model.safetensors"
    card = read_json(card_path, otherwise="train first, or resume the run; one of predictions alone has none")
    if problem := _card_problem(card):
        raise DamagedFileError(f"{card_path} is not a model's card: {problem}; train again or resume the run")
    try:
        function = find_model(card["name"], trust=trust)
    except InputError as error:
        raise InputError(f"{card_path}: {error}, or install the package that adds it") from None
    count, options = len(card["class_names"]), card["options"]
    try:
        if is_backbone(card["name"]):
            model: nn.Module = make_backbone(card["name"], count, options=options, card=card["backbone"])
        else:  # nothing is downloaded for weights that the file has
            known = {"pretrained": False} if takes(function, "pretrained") else {}
            model = _build(function, count, Normalize(), options | known)
    except MissingExtraError as error:
        raise MissingExtraError(f"{card_path} needs a package: {error}") from None
    except SightlineError as error:
        raise DamagedFileError(f"{card_path} names a model that cannot be made: {error}") from None
    try:
        check_regular(weights_path)
        weights = safetensors.torch.load_file(weights_path)
    except FileNotFoundError:
        raise NotFoundError(f"{weights_path} is missing; train first, or resume the run") from None
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise DamagedFileError(
            f"{weights_path} does not hold the weights of its model.json ({error}); resume the run"
        ) from None
    if problem := state_problem(weights, model.state_dict()):
        raise DamagedFileError(f"{weights_path} does not hold the weights of its model.json: {problem}")
    model.load_state_dict(weights)
    return model.eval(), card


def _card_problem(card: Mapping[str, Any]) -> str | None:
    """What is wrong with a model's card, in words; None if nothing is."""
    name, names, size = card.get("name"), card.get("class_names"), card.get("image_size")
    if not isinstance(name, str):
        return f"name is {name!r}, no text"
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        return f"class_names is {names!r}, no list of names"
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(n) is int and 0 < n < 2**15 for n in size)
    ):
        return f"image_size is {size!r}, not height and width in pixels"
    if not isinstance(card.get("options"), dict):
        return f"options is {card.get('options')!r}, no table"
    if type(card.get("epoch")) is not int:
        return f"epoch is {card.get('epoch')!r}, no number"
    return card_problem(card.get("backbone")) if is_backbone(name) else None


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
    return re.sub(
        r"Units\.([A-Z])[A-Z]*", r"\1", str(summary)
    )  # a slip of torchinfo: "Units.MEGABYTES" for M
