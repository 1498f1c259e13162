"""A trained run looks at picture files: what it sees and where."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline import logs
from sightline.attribution import explain, overlay
from sightline.attribution.methods import Method, find_method
from sightline.data import read_image
from sightline.data.image_files import file_hashes
from sightline.errors import InputError, NotFoundError, nearest
from sightline.faithfulness.result import read_faithfulness
from sightline.files import read_json, shown_name, write_atomic
from sightline.models import choose_device, load_model, to_float
from sightline.predictions import Predictions
from sightline.runs.artifacts import DATA_CARD, EXPLAINED, EXPLANATIONS_CARD
from sightline.runs.folders import existing_folder


@logs.stage("explaining pictures")
def explain_pictures(
    run: Path,
    pictures: Sequence[Path],
    *,
    out: Path | None = None,
    target: str | None = None,
    layer: str | None = None,
    method: str | None = None,
    trust: Collection[str] = (),
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Classify pictures with the model of a run and write `NAME-heatmap.png` for each into `out`.

    Pictures are brought to the model's size as those of the run were.

    Args:
        run: The folder of the run.
        pictures: Picture files.
        out: Folder for the heat maps; by default `explained` in the run's.
        target: A class name; by default the predicted one.
        layer: By default the run's main one.
        method: As for `explain`; by default the run's. "auto" is the one that its analysis found most
            faithful.
        trust: Modules that may be imported because a file of the run names a function in them.
        device: To run on.

    Returns:
        For each picture a dict of image, hash (of the file), predicted, top (five classes with
        probabilities), explained, method, layer, layer_reason (how it was found), status, heatmap (a path).

    Raises:
        InputError: An unknown class, layer or method, or a picture that cannot be read; nothing is written.
    """
    folder = existing_folder(run)
    for path in pictures:
        if not _is_text(path):
            raise InputError(f"the name {shown_name(path)} is not UTF-8 text; rename the file")
    model, card = load_model(folder, trust=trust)
    model.to(choose_device(device))
    names = tuple(card["class_names"])
    height, width = card["image_size"]
    if target is not None and target not in names:
        raise InputError(f"class {target!r} is not known; {nearest(target, list(names))}")
    how, hashes = _resizing(folder), file_hashes(pictures)
    pixels = np.stack([read_image(path, size=(height, width), **how) for path in pictures])  # (B, H, W, 3)
    explained = run_card(folder, EXPLANATIONS_CARD)
    found = explain(
        model,
        to_float(pixels),
        None if target is None else names.index(target),
        layer=layer or explained.get("main_layer"),
        method=_method(folder, method, trust),
    )
    reason = found.layer_reason
    if layer is None and found.layer == explained.get("main_layer"):  # how the run found it
        reason = explained.get("layer_reason", reason)
    predictions = Predictions(found.logits, found.targets, names)
    overlays = overlay(pixels, found.heatmaps())
    out = out or folder / EXPLAINED
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (path, place) in enumerate(zip(pictures, _places(pictures, out), strict=True)):
        best = np.argsort(-predictions.probabilities[i], kind="stable")[:5]
        _write_pair(place, pixels[i], overlays[i])
        rows.append(
            {
                "image": str(path),
                "hash": hashes[i],
                "predicted": names[predictions.predicted[i]],
                "top": [
                    {"class": names[k], "probability": float(predictions.probabilities[i, k])} for k in best
                ],
                "explained": names[found.targets[i]],
                "method": found.method,
                "layer": found.layer,
                "layer_reason": reason,
                "status": found.status[i],
                "heatmap": str(place),
            }
        )
    return rows


def _method(folder: Path, asked: str | None, trust: Collection[str]) -> Method:
    """Return the method that the caller named, or the one that a file of the run names, if it is trusted."""
    if asked not in (None, "auto"):
        return find_method(asked)
    if asked is None:
        return find_method(run_card(folder, EXPLANATIONS_CARD).get("name", "grad_cam"), trust=trust)
    try:
        return find_method(read_faithfulness(folder).best, trust=trust)
    except NotFoundError:
        raise NotFoundError(
            f"{folder} has no comparison of methods, which method auto needs; set "
            "analysis.compare_images and analyze it again, or name a method"
        ) from None


def _resizing(folder: Path) -> dict[str, Any]:
    """How the run's own pictures were brought to their size, as `read_image` takes it."""
    card = run_card(folder, DATA_CARD)
    return {key: card[key] for key in ("resize", "interpolation") if card.get(key)}


def run_card(folder: Path, name: str) -> dict[str, Any]:
    """What the analysis of the run left in the file `name`; nothing before there was one."""
    path = folder / name
    return read_json(path, otherwise=f"'sightline analyze {folder}' writes it") if path.exists() else {}


def _places(pictures: Sequence[Path], out: Path) -> list[Path]:
    """One path per picture; pictures of the same name in different folders get a number."""
    places: list[Path] = []
    for picture in pictures:
        place, number = _heatmap(out, picture.stem, ""), 2
        while place in places:
            place, number = _heatmap(out, picture.stem, f"-{number}"), number + 1
        places.append(place)
    return places


def _heatmap(out: Path, stem: str, number: str) -> Path:
    """The file of a heat map; of a long name the end is left out, as file systems take 255 bytes."""
    end = f"{number}-heatmap.png"
    return out / (stem.encode()[: 255 - len(end)].decode(errors="ignore") + end)


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_pair(path: Path, picture: np.ndarray, overlay: np.ndarray) -> None:
    """Write the picture as the model saw it, and beside it the heat on it, enlarged to be seen."""
    pair = Image.fromarray(np.concatenate([picture, overlay], axis=1))
    factor = max(1, 256 // picture.shape[0])
    pair = pair.resize((pair.width * factor, pair.height * factor), Image.Resampling.NEAREST)
    write_atomic(path, lambda file: pair.save(file, format="PNG"))
