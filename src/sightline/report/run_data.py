"""A run's folder as data: everything that the report shows, read and checked once.

Files of a run, read with one kind of message for what is missing or damaged.

The audit of a run as data: the files that a run with an audit has beside its predictions.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from sightline.errors import SightlineError
from sightline.predictions.table import Predictions, read_predictions

T = TypeVar("T")


def read_file(path: Path, read: Callable[[Path], T], *, required: bool = True) -> T | Any:
    """Return `read(path)`, or None for a missing file that is not required.

    Raises SightlineError, in one line, if the file is required and missing, or cannot be read.
    """
    if not path.is_file():
        if required:
            raise SightlineError(f"{path} is missing; name the folder of a finished run, or finish this one")
        return None
    try:
        return read(path)
    except SightlineError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise SightlineError(
            f"{path} cannot be read ({reason[:120]}); delete it and analyze the run again"
        ) from error


def read_json(path: Path, keys: tuple[str, ...], *, required: bool = True) -> dict[str, Any]:
    """Return the dict in a JSON file, which has to have `keys`; {} for a missing one that is not required.

    Raises SightlineError as `read_file` does.
    """

    def read(path: Path) -> dict[str, Any]:
        value = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in keys if not isinstance(value, dict) or key not in value]
        if missing or not isinstance(value, dict):
            raise ValueError(f"it lacks {', '.join(missing)}" if missing else "it holds no object")
        return value

    return read_file(path, read, required=required) or {}


_TEST = ("index", "label", "predicted", "loss", "confidence", "margin", "ambiguity", "suspicion", "suggested")
_TEST_MORE = ("cause", "slice", "twin", "set_size", "difficulty")
_TRAIN = ("index", "label", "suspicion", "suggested", "aum", "forgetting", "p_mean", "p_std", "twin")


@dataclass(frozen=True)
class AuditFiles:
    """What an audit left. test: a row per test image, in data order. train: the same of training images.

    facts: `audit.json`. arrays: `audit.npz`; `thumbnails` and `train_rows` are always there, maps and
    neighbours where the audit made them. probability: (E, N_train) of each epoch, NaN where unseen, or None.
    """

    test: pd.DataFrame
    train: pd.DataFrame
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    probability: np.ndarray | None


def read_audit(folder: Path, rows: int) -> AuditFiles | None:
    """Return the audit of a run's folder with `rows` predictions, or None if it has none.

    Raises SightlineError if a file of it is missing, damaged, or of another run.
    """
    if not (folder / "audit.json").is_file():
        return None
    audit = AuditFiles(
        test=read_file(folder / "audit_test.parquet", lambda path: _table(path, (*_TEST, *_TEST_MORE))),
        train=read_file(folder / "audit_train.parquet", lambda path: _table(path, _TRAIN)),
        facts=read_json(folder / "audit.json", ()),
        arrays=read_file(folder / "audit.npz", _arrays),
        probability=read_file(folder / "dynamics.npz", _probability, required=False),
    )
    _audit_files_check(audit, folder, rows)
    return audit


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.read_parquet(path, columns=list(columns))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("thumbnails", "train_rows", "train_thumbnails"):
        if name not in arrays:
            raise ValueError(f"it lacks {name}")
    return arrays


def _probability(path: Path) -> np.ndarray:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return file["probability"]


def _audit_files_check(audit: AuditFiles, folder: Path, rows: int) -> None:
    arrays, train = audit.arrays, len(audit.train)
    per_image = [name for name in ("thumbnails", "maps_predicted", "maps_true") if name in arrays]
    lengths = [("audit_test.parquet", len(audit.test))]
    lengths += [("audit.npz", len(arrays[name])) for name in per_image]
    for name, length in lengths:
        if length != rows:
            raise SightlineError(
                f"{folder / name} has {length} test images and predictions.parquet {rows}; the files are of "
                "different runs: audit the run again"
            )
    named = arrays["train_rows"]
    if len(named) and not 0 <= named.min() <= named.max() < train:
        raise SightlineError(
            f"{folder / 'audit.npz'} names training image {named.max()} and audit_train.parquet has {train} "
            "rows; the files are of different runs: audit the run again"
        )
    if audit.probability is not None and audit.probability.shape[1:] != (train,):
        raise SightlineError(
            f"{folder / 'dynamics.npz'} follows {audit.probability.shape[1]} training images and "
            f"audit_train.parquet has {train} rows; the files are of different runs: audit the run again"
        )


_HISTORY = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class Samples:
    """Training images as they are and as the model met them. All (K, H, W, 3) uint8.

    augmented: `images` after augmentation. augmented_one: one image, then the same one again and again.
    """

    images: np.ndarray
    labels: np.ndarray
    augmented: np.ndarray
    augmented_one: np.ndarray


@dataclass(frozen=True)
class Gallery:
    """Test images with what an explanation found in them, in descending order of loss.

    index: (M,) places in the test split. images: (M, H, W, 3) uint8.
    maps: for each layer the raw signed maps (M, h, w) for the class "predicted" and the true class "label".
    """

    index: np.ndarray
    images: np.ndarray
    maps: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class ReportData:
    """What a run left, by file. What an optional file would have held is None or empty.

    galleries: "mistakes" and "correct", where they hold an image. audit: None for a run without one.
    """

    name: str
    recipe: str
    environment: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, Any]
    predictions: Predictions
    history: pd.DataFrame | None
    steps: pd.DataFrame | None
    range_test: pd.DataFrame | None
    range_card: dict[str, Any]
    samples: Samples | None
    method: str
    method_name: str
    main_layer: str
    galleries: dict[str, Gallery]
    faithfulness: dict[str, Any]
    audit: AuditFiles | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.predictions.class_names)


def load_report_data(run_folder: str | Path) -> ReportData:
    """Read a run's folder.

    Raises SightlineError, in one line, if the folder or a required file (recipe.toml, environment.json,
    model.json, data.json, metrics.json, predictions.parquet) is missing, or if any file cannot be read.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise SightlineError(f"{folder} is not a folder; name the folder of a finished run")
    predictions = read_file(folder / "predictions.parquet", read_predictions)
    explained = read_json(folder / "explanations.json", ("method", "main_layer"), required=False)
    galleries = read_file(folder / "explanations.npz", _galleries, required=False) if explained else None
    data = ReportData(
        name=folder.resolve().name,
        recipe=read_file(folder / "recipe.toml", _toml),
        environment=read_json(folder / "environment.json", ()),
        model=read_json(folder / "model.json", ("name", "parameters", "summary")),
        data=read_json(
            folder / "data.json", ("name", "class_names", "train_counts", "test_counts", "mean", "std")
        ),
        metrics=read_json(folder / "metrics.json", ("accuracy", "loss", "images", "mistakes")),
        predictions=predictions,
        history=_csv(folder / "history.csv", _HISTORY),
        steps=_csv(folder / "steps.csv", ("step", "lr")),
        range_test=_csv(folder / "range_test.csv", ("lr", "loss", "smoothed")),
        range_card=read_json(folder / "range_test.json", (), required=False),
        samples=read_file(folder / "samples.npz", _samples, required=False),
        method=explained.get("method", ""),
        method_name=explained.get("name", ""),
        main_layer=explained.get("main_layer", ""),
        faithfulness=read_json(
            folder / "faithfulness.json", ("methods", "measures", "best", "layer"), required=False
        ),
        galleries=galleries or {},
        audit=read_audit(folder, len(predictions)),
    )
    _check(data, folder)
    ordered = {name: _by_loss(gallery, predictions.loss) for name, gallery in data.galleries.items()}
    return dataclasses.replace(data, galleries=ordered)


def _by_loss(gallery: Gallery, loss: np.ndarray) -> Gallery:
    order = np.argsort(-loss[gallery.index], kind="stable")
    maps = {layer: {target: raw[order] for target, raw in by.items()} for layer, by in gallery.maps.items()}
    return Gallery(gallery.index[order], gallery.images[order], maps)


def _check(data: ReportData, folder: Path) -> None:
    rows, names = len(data.predictions.labels), data.class_names
    for key in ("class_names", "train_counts", "test_counts"):
        if len(data.data[key]) != len(names):
            raise SightlineError(
                f"{folder / 'data.json'} has {len(data.data[key])} {key} and predictions.parquet "
                f"{len(names)} classes; the files are of different runs: analyze the run again"
            )
    for gallery in data.galleries.values():
        if not 0 <= gallery.index.min() <= gallery.index.max() < rows:
            raise SightlineError(
                f"{folder / 'explanations.npz'} names image {gallery.index.max()} and predictions.parquet "
                f"has {rows} rows; the files are of different runs: analyze the run again"
            )
        if data.main_layer not in gallery.maps:
            raise SightlineError(
                f"{folder / 'explanations.npz'} has no maps of layer {data.main_layer!r}, which "
                "explanations.json calls the main layer; analyze the run again"
            )


def _csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame | None:
    def read(path: Path) -> pd.DataFrame:
        table = pd.read_csv(path)
        missing = [column for column in columns if column not in table]
        if missing:
            raise ValueError(f"it lacks the column {', '.join(missing)}")
        return table

    table = read_file(path, read, required=False)
    return None if table is None or table.empty else table


def _toml(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    tomllib.loads(text)
    return text


def _samples(path: Path) -> Samples | None:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        samples = Samples(
            **{name: arrays[name] for name in ("images", "labels", "augmented", "augmented_one")}
        )
    return samples if len(samples.images) else None


def _galleries(path: Path) -> dict[str, Gallery]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    galleries = {}
    for gallery in sorted({name.split("/")[0] for name in arrays}):
        maps: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            if name.startswith(f"{gallery}/") and name.endswith(("/predicted", "/label")):
                layer, target = name.removeprefix(f"{gallery}/").rsplit("/", 1)
                maps.setdefault(layer, {})[target] = array
        if len(arrays[f"{gallery}/index"]):  # a model without mistakes has no maps of them
            galleries[gallery] = Gallery(arrays[f"{gallery}/index"], arrays[f"{gallery}/images"], maps)
    return galleries
