"""A run's folder as data: everything that the report shows, read and checked once.

    run = read_run("runs/latest")
    run.audit.calibration.ece

Only predictions.parquet has to be there. What another file would have held is None or empty, and the page
then lacks its section. A run without an audit gets one of its predictions alone, which costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from sightline import files
from sightline.audit import Audit, Evidence, make_audit, read_audit
from sightline.errors import DamagedFileError, NotFoundError, SightlineError
from sightline.faithfulness.result import FILE as FAITHFULNESS_FILE
from sightline.faithfulness.result import FaithfulnessResult, read_faithfulness
from sightline.predictions.scores import Scores, score_predictions
from sightline.predictions.table import Predictions, read_predictions

T = TypeVar("T")
_AGAIN = "delete it and analyze the run again"
_CARD: ConfigDict = {"extra": "ignore"}


@checked(frozen=True, config=_CARD)
class ModelCard:
    """What the report shows of model.json."""

    name: str
    parameters: int
    summary: str


@checked(frozen=True, config=_CARD)
class DataCard:
    """What the report shows of data.json. Counts are of each class; fingerprint: what decisions hold for."""

    name: str
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str | None = None
    image_size: tuple[int, int] | None = None
    resize: str | None = None
    interpolation: str | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    planted: dict[str, Any] | None = None
    fingerprint: dict[str, Any] | None = None


@checked(frozen=True, config=_CARD)
class PlantedFinding:
    """A row of the ground truth: what was measured, what came, what to compare it with, what it means."""

    what: str
    value: str | float
    expected: str
    meaning: str


@checked(frozen=True, config=_CARD)
class MetricsCard:
    """What the report shows of metrics.json and the predictions do not say.

    seconds: by stage. metrics: the recipe's own. scores: None where an older version wrote the file.
    """

    selection: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    planted: tuple[PlantedFinding, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    scores: Scores | None = None


@checked(frozen=True, config=_CARD)
class ExplanationCard:
    """explanations.json. method: to be read; name: to be typed; layer_reason: how the layer was found."""

    method: str
    main_layer: str
    name: str = ""
    layer_reason: str = ""


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
class ExplainedImages:
    """Test images with their heat maps, in descending order of loss.

    index: (M,) indices in the test split. images: (M, H, W, 3) uint8.
    maps: for each layer the raw signed maps (M, h, w) for the class "predicted" and the true class "label".
    """

    index: np.ndarray
    images: np.ndarray
    maps: dict[str, dict[str, np.ndarray]]

    def take(self, rows: np.ndarray | slice) -> ExplainedImages:
        """Return some of the images, in the order of `rows`."""
        maps = {layer: {target: raw[rows] for target, raw in by.items()} for layer, by in self.maps.items()}
        return ExplainedImages(self.index[rows], self.images[rows], maps)

    def first(self, limit: int) -> ExplainedImages:
        """Return the first `limit` images at most."""
        return self.take(slice(limit))


@dataclass(frozen=True)
class Pictures:
    """gallery.npz: small pictures and maps for the gallery.

    thumbnails: (N, h, w, 3) uint8, of every test image. train_rows: (R,) indices of the training images that
    have one in train_thumbnails (R, h, w, 3). maps_predicted, maps_true: (N, h, w) raw maps of the test
    images for the predicted and the true class, or None.
    """

    thumbnails: np.ndarray
    train_rows: np.ndarray
    train_thumbnails: np.ndarray
    maps_predicted: np.ndarray | None = None
    maps_true: np.ndarray | None = None


@dataclass(frozen=True)
class RunData:
    """What a run left. What a missing file would have held is None or empty.

    Attributes:
        name: Of the folder.
        recipe: recipe.toml as text.
        environment: environment.json as it is.
        model, data, metrics: What the page shows of their files.
        predictions: Of the test split.
        audit: The run's own, or one of the predictions alone.
        pictures: For the gallery; None for an audit of the predictions alone.
        history, steps: Tables of training, a row for each epoch or step.
        range_test, range_card: The learning-rate range test and what its rules suggest.
        samples: Training images.
        method, method_name, main_layer, layer_reason: Of the heat maps: to be read, to be typed, where they
            are from, and how that layer was found.
        explained: "mistakes" and "correct", where they hold an image.
        faithfulness: faithfulness.json; None without it.
        probability: (E, N_train) of the label in each epoch, NaN where unseen.
    """

    name: str
    recipe: str
    environment: dict[str, Any]
    model: ModelCard | None
    data: DataCard | None
    metrics: MetricsCard
    predictions: Predictions
    audit: Audit
    pictures: Pictures | None
    history: pd.DataFrame | None
    steps: pd.DataFrame | None
    range_test: pd.DataFrame | None
    range_card: dict[str, Any]
    samples: Samples | None
    method: str
    method_name: str
    main_layer: str
    layer_reason: str
    explained: dict[str, ExplainedImages]
    faithfulness: FaithfulnessResult | None
    probability: np.ndarray | None

    @functools.cached_property
    def scores(self) -> Scores:
        """All metrics of the test split, read or, of an older run, measured."""
        return self.metrics.scores or score_predictions(self.predictions)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.predictions.class_names)


_HISTORY = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def read_run(run_folder: str | Path) -> RunData:
    """Read a run's folder.

    Raises:
        NotFoundError: It is no folder, or has no predictions.parquet.
        DamagedFileError: A file cannot be read, or is of another run.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder; name the folder of a finished run")
    if not (folder / "predictions.parquet").is_file():
        raise NotFoundError(
            f"{folder / 'predictions.parquet'} is missing; name the folder of a finished run, or finish "
            "this one"
        )
    predictions = _read(folder / "predictions.parquet", read_predictions)
    explained = _card(folder / "explanations.json", ExplanationCard) or ExplanationCard("", "")
    audited = (folder / "audit.json").is_file()
    run = RunData(
        name=folder.resolve().name,
        recipe=_read(folder / "recipe.toml", _toml) or "",
        environment=_json(folder / "environment.json"),
        model=_card(folder / "model.json", ModelCard),
        data=_card(folder / "data.json", DataCard),
        metrics=_card(folder / "metrics.json", MetricsCard) or MetricsCard(),
        predictions=predictions,
        audit=read_audit(folder) if audited else make_audit(Evidence(None, predictions)),
        pictures=_read(folder / "gallery.npz", _pictures) if audited else None,
        history=_csv(folder / "history.csv", _HISTORY),
        steps=_csv(folder / "steps.csv", ("step", "lr")),
        range_test=_csv(folder / "range_test.csv", ("lr", "loss", "smoothed")),
        range_card=_json(folder / "range_test.json"),
        samples=_read(folder / "samples.npz", _samples),
        method=explained.method,
        method_name=explained.name,
        main_layer=explained.main_layer,
        layer_reason=explained.layer_reason,
        explained=(_read(folder / "explanations.npz", _explained) or {}) if explained.method else {},
        faithfulness=_read(folder / FAITHFULNESS_FILE, lambda path: read_faithfulness(path.parent)),
        probability=_read(folder / "dynamics.npz", _probability) if audited else None,
    )
    _check(run, folder)
    explained_by_loss = {
        name: shown.take(np.argsort(-predictions.loss[shown.index], kind="stable"))
        for name, shown in run.explained.items()
    }
    return dataclasses.replace(run, explained=explained_by_loss)


def _read(path: Path, read: Callable[[Path], T]) -> T | Any:
    """Return `read(path)`, or None if there is no such file; what goes wrong is one kind of error."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except SightlineError:
        raise
    except (
        *(OSError, ValueError, TypeError, LookupError, EOFError, MemoryError, RecursionError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        reason = " ".join(str(error).split())
    raise DamagedFileError(f"{path} cannot be read ({reason[:120]}); {_AGAIN}")


def _json(path: Path, *keys: str) -> dict[str, Any]:
    """Return the object in a JSON file, which has to have `keys`; {} if there is no file."""

    def read(path: Path) -> dict[str, Any]:
        value = files.read_json(path, otherwise=_AGAIN)
        if missing := [key for key in keys if key not in value]:
            raise ValueError(f"it has no {', '.join(missing)}")
        return value

    return _read(path, read) or {}


def _card(path: Path, kind: type[T]) -> T | None:
    return _read(
        path, lambda path: TypeAdapter(kind).validate_python(files.read_json(path, otherwise=_AGAIN))
    )


def _csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame | None:
    def read(path: Path) -> pd.DataFrame:
        table = pd.read_csv(path)
        if missing := [column for column in columns if column not in table]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        for column in columns:
            if table[column].dtype.kind not in "iuf":
                raise ValueError(f"its column {column} holds something else than numbers")
        if not np.isfinite(table[columns[0]]).all():
            raise ValueError(f"its column {columns[0]} has a gap")
        return table

    table = _read(path, read)
    return None if table is None or table.empty else table


def _toml(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    tomllib.loads(text)
    return text


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _samples(path: Path) -> Samples | None:
    arrays = _arrays(path)
    samples = Samples(
        images=_pixels(arrays, "images"), labels=_numbers(arrays, "labels"),
        augmented=_pixels(arrays, "augmented"), augmented_one=_pixels(arrays, "augmented_one"),
    )  # fmt: skip
    return samples if len(samples.images) else None


def _pictures(path: Path) -> Pictures:
    arrays = _arrays(path)
    return Pictures(
        _pixels(arrays, "thumbnails"), _numbers(arrays, "train_rows"), _pixels(arrays, "train_thumbnails"),
        *(_maps(arrays, name) if name in arrays else None for name in ("maps_predicted", "maps_true")),
    )  # fmt: skip


def _probability(path: Path) -> np.ndarray:
    return _of(_arrays(path), "probability", "f", 2, "(epochs, images) of floats")


def _of(arrays: Mapping[str, np.ndarray], name: str, kinds: str, dimensions: int, wanted: str) -> np.ndarray:
    """Return an array of the file, or raise ValueError if it is of another kind."""
    array = arrays[name]
    if array.dtype.kind not in kinds or array.ndim != dimensions:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {wanted}")
    return array


def _pixels(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    array = _of(arrays, name, "u", 4, "(N, h, w, 3) of bytes")
    if array.dtype != np.uint8 or array.shape[3] != 3:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not (N, h, w, 3) of bytes")
    return array


def _numbers(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return _of(arrays, name, "iu", 1, "(N,) of integers")


def _maps(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return _of(arrays, name, "f", 3, "(N, h, w) of floats")


def _explained(path: Path) -> dict[str, ExplainedImages]:
    arrays = _arrays(path)
    found = {}
    for name in sorted({key.split("/")[0] for key in arrays}):
        maps: dict[str, dict[str, np.ndarray]] = {}
        for key in arrays:
            if key.startswith(f"{name}/") and key.endswith(("/predicted", "/label")):
                layer, target = key.removeprefix(f"{name}/").rsplit("/", 1)
                maps.setdefault(layer, {})[target] = _maps(arrays, key)
        index, images = _numbers(arrays, f"{name}/index"), _pixels(arrays, f"{name}/images")
        shown = [images, *(raw for by_target in maps.values() for raw in by_target.values())]
        if any(len(array) != len(index) for array in shown):
            raise ValueError(f"the arrays of {name} are of different lengths")
        if len(index):  # a model without mistakes has no maps of them
            found[name] = ExplainedImages(index, images, maps)
    return found


def _check(run: RunData, folder: Path) -> None:
    """Raise if the files are not about the same images and classes."""
    rows, train = len(run.predictions), len(run.audit.train)
    if run.data:
        for name in ("class_names", "train_counts", "test_counts"):
            _same(folder, "data.json", len(getattr(run.data, name)), name, len(run.class_names), "classes")
    for shown in run.explained.values():
        _below(folder, "explanations.npz", shown.index, rows)
        if run.main_layer not in shown.maps:
            raise DamagedFileError(
                f"{folder / 'explanations.npz'} has no maps of layer {run.main_layer!r}, which "
                "explanations.json calls the main layer; analyze the run again"
            )
    again = "audit the run again"
    _same(folder, "audit.json", run.audit.accuracy.n, "test images", rows, "rows", again)
    if pictures := run.pictures:
        _below(folder, "gallery.npz", pictures.train_rows, train, again)
        for name in ("thumbnails", "maps_predicted", "maps_true"):
            if (array := getattr(pictures, name)) is not None:
                _same(folder, "gallery.npz", len(array), name, rows, "rows", again)
    if run.probability is not None and run.probability.shape[1:] != (train,):
        raise DamagedFileError(
            f"{folder / 'dynamics.npz'} is about {run.probability.shape[-1]} training images and "
            f"audit_train.parquet has {train}; the files are of different runs: {again}"
        )


def _same(
    folder: Path, file: str, came: int, what: str, fits: int, of: str, again: str = "analyze the run again"
) -> None:
    if came != fits:
        raise DamagedFileError(
            f"{folder / file} has {came} {what} and predictions.parquet {fits} {of}; the files are of "
            f"different runs: {again}"
        )


def _below(
    folder: Path, file: str, index: np.ndarray, size: int, again: str = "analyze the run again"
) -> None:
    if len(index) and not 0 <= index.min() <= index.max() < size:
        raise DamagedFileError(
            f"{folder / file} names image {index.max()} of {size}; the files are of different runs: {again}"
        )
