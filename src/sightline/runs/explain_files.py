"""A trained run looks at picture files: what it sees and where."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.attribution import explain, overlay
from sightline.data import read_image
from sightline.errors import SightlineError, nearest
from sightline.files import write_atomic
from sightline.models import choose_device, load_model, to_float
from sightline.predictions import Predictions
from sightline.runs.run_folder import existing_folder


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

    Pictures are brought to the model's size as image folders are. target: a class name, by default the
    predicted one. layer: by default the run's main one. method: a name of `explain.METHODS`, by default the
    run's; "auto" is the one that its analysis found most faithful. Returns for each picture a dict of image,
    predicted, top (five classes with probabilities), explained, status, heatmap (a path).
    trust: modules that may be imported to open the model.

    Raises SightlineError if a picture cannot be read, before anything is written, or for an unknown
    class or layer.
    """
    folder = existing_folder(run)
    model, card = load_model(folder, trust=trust)
    model.to(choose_device(device))
    names = tuple(card["class_names"])
    height, width = card["image_size"]
    if target is not None and target not in names:
        raise SightlineError(f"class {target!r} is not known; {nearest(target, list(names))}")
    pixels = np.stack([read_image(path, size=(height, width)) for path in pictures])  # (B, H, W, 3)
    found = explain(
        model,
        to_float(pixels),
        None if target is None else names.index(target),
        layer=layer or run_card(folder, "explanations.json").get("main_layer"),
        method=_method(folder, method),
    )
    predictions = Predictions(found.logits, found.targets, names)
    overlays = overlay(pixels, found.heatmaps())
    out = out or folder / "explained"
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (path, place) in enumerate(zip(pictures, _places(pictures, out), strict=True)):
        best = np.argsort(-predictions.probabilities[i], kind="stable")[:5]
        _write_pair(place, pixels[i], overlays[i])
        rows.append(
            {
                "image": str(path),
                "predicted": names[predictions.predicted[i]],
                "top": [
                    {"class": names[k], "probability": float(predictions.probabilities[i, k])} for k in best
                ],
                "explained": names[found.targets[i]],
                "method": found.method,
                "layer": found.layer,
                "status": found.status[i],
                "heatmap": str(place),
            }
        )
    return rows


def _method(folder: Path, asked: str | None) -> str:
    if asked == "auto":
        best = run_card(folder, "faithfulness.json").get("best")
        if best is None:
            raise SightlineError(
                f"{folder} has no comparison of methods, which method auto needs; set "
                "analysis.compare_images and analyze it again, or name a method"
            )
        return best
    return asked or run_card(folder, "explanations.json").get("name", "grad_cam")


def run_card(folder: Path, name: str) -> dict[str, Any]:
    """What the analysis of the run left in the file `name`; nothing before there was one."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _places(pictures: Sequence[Path], out: Path) -> list[Path]:
    """One path per picture; pictures of the same name in different folders get a number."""
    places: list[Path] = []
    for picture in pictures:
        place, number = out / f"{picture.stem}-heatmap.png", 2
        while place in places:
            place, number = out / f"{picture.stem}-{number}-heatmap.png", number + 1
        places.append(place)
    return places


def _write_pair(path: Path, picture: np.ndarray, overlay: np.ndarray) -> None:
    """Write the picture as the model saw it, and beside it the heat on it, enlarged to be seen."""
    pair = Image.fromarray(np.concatenate([picture, overlay], axis=1))
    factor = max(1, 256 // picture.shape[0])
    pair = pair.resize((pair.width * factor, pair.height * factor), Image.Resampling.NEAREST)
    write_atomic(path, lambda file: pair.save(file, format="PNG"))
