"""Features: what the last linear layer reads, taken in the one pass that predicts anyway.

    predictions, features = predict_features(model, data.test, class_names=data.class_names)

Two images with alike features look alike to the model, whatever their pixels say.

`cached_features` keeps them on disk by weights and picture: what was seen once is not computed again.
`frozen_features` are those of a pretrained network that has not learned from the labels of the data.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from sightline import logs
from sightline.data import Dataset, ImageFiles, Split
from sightline.data.picture_cache import cache_folder
from sightline.errors import InputError
from sightline.files import write_atomic
from sightline.models import choose_device, create_model, device_of, evaluating, to_float
from sightline.models.backbones import LITE0
from sightline.models.layers import layer_name
from sightline.models.weights import state_hash
from sightline.predictions.inference import predict
from sightline.predictions.table import Predictions

log = logging.getLogger(__name__)

_SIDE = 128  # pixels that a smaller picture is enlarged to, for networks that learned from photographs
_BLOCK = 256  # pictures whose features are written at once: so much is lost at most when a run is stopped


def predict_features(
    model: nn.Module,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "float32",
) -> tuple[Predictions, np.ndarray]:
    """Return what `predict` returns, and the features of every image, (N, D) float32.

    The features are the input of the linear layer that runs last: it is found as the model runs, so its
    name, its depth and the order in which layers were declared do not matter. Arguments as of `predict`.

    Raises:
        InputError: As `predict` does, or the last linear layer is missing, does not read one vector per
            image, or does not put out one number per class.
    """
    with head_inputs(model) as batches:
        predictions = predict(
            model, split, class_names=class_names, batch_size=batch_size, precision=precision
        )
    for layer, features in batches:
        if layer.out_features != len(predictions.class_names) or features.ndim != 2:
            raise InputError(
                f"the last linear layer {layer_name(model, layer)!r} takes {tuple(features.shape)} and has "
                f"{layer.out_features} outputs; features need one that takes (B, D) and has "
                f"{len(predictions.class_names)}, one per class"
            )
    if sum(len(features) for _, features in batches) != len(split):
        raise InputError(
            f"no linear layer ran in {type(model).__name__}; features are the input of a last nn.Linear: "
            "end the model with one, and compile it only afterwards"
        )
    return predictions, np.concatenate([features.numpy() for _, features in batches])


@contextlib.contextmanager
def head_inputs(model: nn.Module) -> Iterator[list[tuple[nn.Linear, torch.Tensor]]]:
    """Yield a list to which each forward pass inside the context adds (layer, its input, (B, D) float32).

    The layer is the linear one that ran last in that pass. The hooks are gone afterwards, also by an
    exception.
    """
    found: list[tuple[nn.Linear, torch.Tensor]] = []
    latest: list[tuple[nn.Linear, torch.Tensor]] = []

    def note(layer: nn.Module, inputs: tuple) -> None:
        if isinstance(layer, nn.Linear):
            latest[:] = [(layer, inputs[0])]

    def keep(*_: object) -> None:
        # A copy: the input may be a view that would keep a whole map of activations alive.
        found.extend((layer, seen.detach().to("cpu", torch.float32, copy=True)) for layer, seen in latest)
        latest.clear()

    handles = []
    try:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                handles.append(module.register_forward_pre_hook(note))
        handles.append(model.register_forward_hook(keep))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def linear_head(model: nn.Module, split: Split) -> nn.Linear:
    """Return the linear layer that runs last; found by one image.

    Raises:
        InputError: There is none, or it does not read one vector per image.
    """
    first = to_float(split.images[:1]).to(device_of(model))
    with torch.inference_mode(), evaluating(model), head_inputs(model) as read:
        model(first)
    if not read or read[-1][1].ndim != 2:
        raise InputError(
            f"{type(model).__name__} does not end with a linear layer that reads one vector per image; "
            "a probe fits such a layer: end the model with one"
        )
    return read[-1][0]


class _Enlarged(nn.Module):
    """A network behind an enlargement of its images to `size`, (height, width)."""

    def __init__(self, net: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.size = net, size

    def extra_repr(self) -> str:
        return f"size={self.size}"  # the cache tells by it that features are of another size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(nn.functional.interpolate(images, self.size, mode="bilinear", align_corners=False))


def frozen_features(
    data: Dataset,
    *,
    backbone: str = LITE0,
    cache: str | Path | None = "auto",
    device: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the test images (N, D) and of the training images (N_train, D), float32.

    They are those of a pretrained network that has seen neither the images nor their labels: what they say of
    a label is a witness apart from the model. Small pictures are enlarged to a side of 128 pixels first.

    Args:
        data: With pictures.
        backbone: As `create_model` takes it.
        cache: As of `probe`.
        device: "auto", "cpu", "cuda" and so on.

    Raises:
        InputError: The data has no pictures, or the backbone's weights cannot be had.
        MissingExtraError: The backbone's package is not installed.
    """
    height, width = data.image_size
    if not height * width:
        raise InputError(f"data set {data.name!r} has no pictures, which features of {backbone} are taken of")
    model = create_model(backbone, data)
    if min(height, width) < _SIDE:
        scale = _SIDE / min(height, width)
        model = _Enlarged(model, (round(scale * height), round(scale * width)))
    model.to(choose_device(device))
    where = cache_folder("features") if cache == "auto" else None if cache is None else Path(cache)
    found = [
        cached_features(model, split, class_names=data.class_names, cache=where)
        if len(split)
        else np.zeros((0, 0), np.float32)
        for split in (data.test, data.train)
    ]
    return found[0], found[1].reshape(len(data.train), found[0].shape[1])


def cached_features(
    model: nn.Module,
    split: Split,
    *,
    class_names: Sequence[str],
    cache: Path | None,
    precision: str = "float32",
) -> np.ndarray:
    """Return what the last linear layer reads of every image, (N, D) float32; from the cache what it has.

    The rest is computed in blocks, and each is written as soon as it is there. The cache knows the model by
    its build and its weights, without the last layer; a picture by its pixels, or by its file where it is
    streamed. What is in the cache and cannot be read is computed again.

    Args:
        model: Ends with an `nn.Linear`.
        split: N images.
        class_names: C names.
        cache: A folder, made if it is not there; None for no cache.
        precision: As of `predict`.

    Raises:
        InputError: As `predict_features` does.
    """
    head = layer_name(model, linear_head(model, split))
    folder = None if cache is None else cache / f"{state_hash(model, without=head)[:32]}-{precision}"
    keys = _picture_keys(split)
    known = _kept(folder)
    missing = np.array([number for number, key in enumerate(keys) if key not in known], int)
    with logs.stage("features", total=len(missing)) as progress:
        for rows in (missing[start : start + _BLOCK] for start in range(0, len(missing), _BLOCK)):
            part = split.take(rows)
            _, found = predict_features(model, part, class_names=class_names, precision=precision)
            known.update(zip((keys[row] for row in rows), found, strict=True))
            folder = _keep(folder, [keys[row] for row in rows], found)
            progress.advance(len(rows))
    if len(missing) < len(keys):
        log.info("features of %d of %d images were in the cache", len(keys) - len(missing), len(keys))
    return np.stack([known[key] for key in keys])


def _picture_keys(split: Split) -> list[bytes]:
    images = split.images
    if isinstance(images, ImageFiles):
        return [hashlib.sha256(stamp.encode()).digest() for stamp in images.stamps()]
    shape = str(images.shape[1:]).encode()
    return [hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).digest() for image in images]


def _kept(folder: Path | None) -> dict[bytes, np.ndarray]:
    """Features by key, of all blocks in the folder."""
    found: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.npz")) if folder is not None else ():
        try:
            with np.load(path) as block:
                keys, features = block["keys"], block["features"]
            if features.dtype != np.float32 or features.ndim != 2 or keys.shape != (len(features), 32):
                raise ValueError("arrays of another shape")
        except Exception as error:  # a damaged archive can make numpy raise anything
            log.warning("%s cannot be read (%s); its features are computed again", path, error)
            continue
        found.update(zip((key.tobytes() for key in keys), features, strict=True))
    return found


def _keep(folder: Path | None, keys: list[bytes], features: np.ndarray) -> Path | None:
    """Write a block; return the folder, None if it cannot be written."""
    if folder is None:
        return None
    name = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
    arrays = {"keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), "features": features}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{name}.npz", lambda file: np.savez(file, **arrays))
    except OSError as error:
        log.warning("features are not kept: %s cannot be written (%s)", folder, error.strerror or error)
        return None
    return folder
