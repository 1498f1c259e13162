"""The report's figures one by one, for a notebook: functions of plain data, each of which returns a `Plot`.

    plot_confusion(predictions)                        # as the last line of a cell, it shows itself
    plot_confusion(predictions).save("confusion.png")

A notebook shows a bare matplotlib figure only after `%matplotlib inline`, and one made with pyplot sometimes
twice; a `Plot` is shown once, anywhere. Neither pyplot nor torch is imported.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sightline.errors import DamagedFileError, InputError, InputTypeError, NotFoundError
from sightline.files import write_atomic
from sightline.predictions.metrics import confusion, rank_mistakes
from sightline.predictions.table import Predictions
from sightline.report import charts
from sightline.report.charts import INK, Drawing, png, svg
from sightline.report.figures import TILE_NAME, Row, map_rows, sheet, tile_caption
from sightline.report.formatting import percent, short_name

if TYPE_CHECKING:
    from sightline.attribution.explanation import Explanation

_TILE_PIXELS = 160
_FORMATS: dict[str, Callable[[Drawing], bytes]] = {".png": png, ".svg": svg}


@dataclass(frozen=True, eq=False)
class Plot:
    """What every `plot_*` function returns: the last line of a cell shows it, `save` writes it.

    drawing: a function that draws into a `matplotlib.figure.Figure` that it is given. inch: how many
    pixels of a page an inch of it takes; each of them has four dots, for screens of high resolution.
    """

    drawing: Drawing = field(repr=False)
    inch: int = 96

    def save(self, path: str | Path) -> Path:
        """Write the drawing as PNG or SVG, by the ending of `path`, whole or not at all; return the path.

        Raises:
            InputError: The path has another ending.
            WriteError: The file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in _FORMATS:
            raise InputError(f"{path} ends in {path.suffix!r}; a plot is saved as .png or .svg")
        picture = _FORMATS[path.suffix.lower()](self.drawing)
        write_atomic(path, lambda file: file.write(picture))
        return path

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        picture = png(self.drawing, dpi=2 * self.inch)
        width, height = struct.unpack(">II", picture[16:24])  # a PNG begins with its size
        return picture, {"width": width // 2, "height": height // 2}


def plot_sheet(rows: Sequence[Row], captions: Sequence[str] = (), *, per_line: int = 5) -> Plot:
    """Return rows of tiles, large enough to be looked at in a notebook; see `sheet`."""
    return Plot(partial(sheet, rows=rows, captions=captions, per_line=per_line), inch=_TILE_PIXELS)


def check_images(images: np.ndarray, number: int | None = None, of: str = "") -> None:
    """Accept uint8 (N, H, W, 3) with at least one image, and `number` of them, one for each `of` these."""
    # By its looks, not its type: a data set's images can stay in their files until they are taken.
    if getattr(images, "dtype", None) != np.uint8 or images.shape[3:] != (3,):
        came = f"{getattr(images, 'dtype', type(images).__name__)} {tuple(getattr(images, 'shape', ()))}"
        raise InputTypeError(f"images are {came}; a plot needs uint8 (N, H, W, 3), as a data set holds them")
    if not len(images):
        raise InputError("there are no images; pass at least one")
    if number is not None and number != len(images):
        raise InputError(f"there are {len(images)} images for {number} {of}; pass one for each")


_PER_CLASS = 8
_CLASSES_IN_ROWS = 20
_CLASS_LIMIT = 1000  # a sheet of more would be higher than a picture file can be


def write_sample_sheet(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path: str | Path
) -> Path:
    """Write a sheet of some images of every class.

    Up to 20 classes have a row of eight each; of more classes, each has one picture, and those after the
    first 1,000 none. Images are taken at even distances, for neighbours in a folder are often alike.

    Args:
        images: uint8 (N, H, W, 3).
        labels: (N,) integers.
        class_names: Of the classes, by label.
        path: Of the sheet, PNG or SVG by its ending.

    Returns:
        The path.

    Raises:
        InputTypeError: The images are not uint8 (N, H, W, 3).
        InputError: There is no label for each image, or the path has another ending.
        WriteError: The sheet cannot be written.
    """
    check_images(images, len(labels), "labels")
    names = [short_name(name, limit=TILE_NAME) for name in class_names[:_CLASS_LIMIT]]
    in_rows = len(names) <= _CLASSES_IN_ROWS
    each = [_spread(images, labels == c, _PER_CLASS if in_rows else 1) for c in range(len(names))]
    if in_rows:
        rows = [Row(name, some) for name, some in zip(names, each, strict=True)]
        return plot_sheet(rows, per_line=_PER_CLASS).save(path)
    return plot_sheet([Row("", [some[0] for some in each])], names, per_line=10).save(path)


def _spread(images: np.ndarray, chosen: np.ndarray, number: int) -> list[np.ndarray]:
    """Return `number` images (H, W, 3) at even distances among the chosen, filled up with white."""
    members = np.flatnonzero(chosen)
    places = np.linspace(0, len(members) - 1, min(number, len(members))).astype(int)
    white = np.full((1, 1, 3), 255, np.uint8)
    return [*images[members[places]], *[white] * (number - len(places))]


_CAPTION = 17  # letters that fit above a tile in all
_RANGE_TEST = ["seed", "lr", "loss", "smoothed"]  # columns of range_test.csv


class TrainingHistory(Protocol):
    """What `fit` returns."""

    @property
    def epochs(self) -> Sequence[Mapping[str, float]]: ...
    @property
    def steps(self) -> Sequence[Mapping[str, float]]: ...


class RangeTest(Protocol):
    """What `find_learning_rate` returns."""

    @property
    def suggestions(self) -> Mapping[str, float]: ...
    @property
    def ranges(self) -> Mapping[str, Sequence[float]]: ...
    @property
    def recommended(self) -> str: ...
    def to_frame(self) -> pd.DataFrame: ...


def plot_images(
    images: np.ndarray, captions: Sequence[str] | None = None, *, limit: int = 20, per_line: int = 5
) -> Plot:
    """Show pictures in lines, with a text above each.

    Args:
        images: uint8 (N, H, W, 3).
        captions: N texts, or none.
        limit: How many pictures at most, from the first on.
        per_line: How many pictures of them stand side by side.

    Raises:
        InputTypeError: The images are not uint8 (N, H, W, 3).
        InputError: There is no image, or there are not as many captions.
    """
    check_images(images)
    if captions is not None and len(captions) != len(images):
        raise InputError(f"there are {len(captions)} captions for {len(images)} images; pass one for each")
    texts = [] if captions is None else [short_name(text, limit=_CAPTION) for text in captions[:limit]]
    return plot_sheet([Row("", images[:limit])], texts, per_line=per_line)


def plot_curves(history: TrainingHistory | pd.DataFrame) -> Plot:
    """Show loss and accuracy per epoch side by side, for the splits that were measured.

    Args:
        history: What the training returned, or the table of `history.csv`.

    Raises:
        InputError: It holds no epoch.
    """
    table = _table(history, "epochs", ("epoch", "train_loss", "train_accuracy"), file="history.csv")
    return Plot(partial(_curves, table=table))


def plot_learning_rate(history: TrainingHistory | pd.DataFrame) -> Plot:
    """Show the learning rate of every step.

    Args:
        history: What the training returned, or the table of `steps.csv`.

    Raises:
        InputError: It holds no step.
    """
    table = _table(history, "steps", ("step", "lr"), file="steps.csv")
    return Plot(partial(charts.learning_rate, steps=table))


def plot_range_test(range_test: RangeTest) -> Plot:
    """Show the loss of every sweep against the learning rate as it grew, and where the rules point."""
    card = {name: getattr(range_test, name) for name in ("suggestions", "ranges", "recommended")}
    return Plot(partial(charts.range_test, table=range_test.to_frame(), card=card))


def write_range_test(folder: str | Path) -> Path:
    """Draw `range_test.csv` and `range_test.json` of a folder as `range_test.png`; return its path.

    Raises:
        NotFoundError: A file is missing.
        DamagedFileError: A file cannot be read.
        WriteError: The picture cannot be written.
    """
    folder = Path(folder)
    try:
        table = pd.read_csv(folder / "range_test.csv", dtype=float)
        card = json.loads((folder / "range_test.json").read_text(encoding="utf-8"))
        card["suggestions"] = {name: float(value) for name, value in card["suggestions"].items()}
        drawing = partial(charts.range_test, table=table.loc[:, _RANGE_TEST], card=card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            missing = Path(error.filename or "").name
            raise NotFoundError(
                f"{folder} holds no range test ({missing} is missing); run it first"
            ) from None
        reason = " ".join(str(error).split())[:120]
        raise DamagedFileError(f"{folder} holds no whole range test ({reason}); run it again") from error
    return Plot(drawing).save(folder / "range_test.png")


def plot_confusion(predictions: Predictions) -> Plot:
    """Show how often each class (row) was taken for each class (column); only mistakes are coloured."""
    return Plot(partial(charts.confusion, **_counts(predictions)))


def plot_class_accuracy(predictions: Predictions) -> Plot:
    """Show the accuracy of each class with its 95 % Wilson interval, the weakest class on top."""
    return Plot(partial(charts.accuracy_per_class, **_counts(predictions)))


def plot_mistakes(
    predictions: Predictions, images: np.ndarray, *, limit: int = 10, per_line: int = 5
) -> Plot:
    """Show misclassified images in descending order of loss.

    Above each: the predicted and the true class, the loss in nats, and the model's confidence.

    Args:
        predictions: Of N images.
        images: uint8 (N, H, W, 3), all that were predicted, in their order.
        limit: How many mistakes at most.
        per_line: How many of them stand side by side.

    Raises:
        InputTypeError: The images are not uint8 (N, H, W, 3).
        InputError: There are not as many images as predictions.
    """
    check_images(images, len(predictions), "predictions")
    worst = rank_mistakes(predictions, limit=limit)
    if worst.empty:
        return Plot(partial(_words, text="No image is misclassified."))
    columns = [worst[name] for name in ("label", "predicted", "loss", "confidence")]
    captions = [tile_caption(predictions.class_names, *row) for row in zip(*columns, strict=True)]
    return plot_sheet([Row("", images[worst["index"].to_numpy(int)])], captions, per_line=per_line)


def plot_explanations(
    images: np.ndarray,
    explanations: Explanation | Mapping[str, Explanation],
    class_names: Sequence[str],
    *,
    limit: int = 10,
    per_line: int = 5,
) -> Plot:
    """Show pictures above their maps: raw, cell by cell, and smoothed over the picture.

    Above each picture stands what the model said and how sure it was, then the classes of the maps where
    they are others. Where nothing in a map speaks for its class, this is said in words.

    Args:
        images: uint8 (N, H, W, 3), those that were explained.
        explanations: One, or several by the heading of their rows: layers, as `explain_layers` returns them,
            or targets, such as `{"predicted": ..., "true": ...}`.
        class_names: Of all classes, by label.
        limit: How many pictures at most, from the first on.
        per_line: How many of them stand side by side.

    Raises:
        InputTypeError: The images are not uint8 (N, H, W, 3).
        InputError: Images, explanations and class names do not fit together.
    """
    several = explanations if isinstance(explanations, Mapping) else {explanations.layer: explanations}
    if not several:
        raise InputError("there is no explanation; pass what explain or explain_layers returned")
    for found in several.values():
        check_images(images, len(found), "maps")
        if found.logits.shape[1] != len(class_names):
            raise InputError(
                f"the model has {found.logits.shape[1]} outputs and there are {len(class_names)} names; "
                "pass the class names of its data set"
            )
    rows = [Row("picture", images[:limit])]
    for heading, found in several.items():
        some = found.maps[:limit], found.status[:limit]
        rows += map_rows(short_name(heading, limit=TILE_NAME), images[:limit], *some)
    return plot_sheet(rows, _about(several, class_names)[:limit], per_line=per_line)


def _about(explanations: Mapping[str, Explanation], class_names: Sequence[str]) -> list[str]:
    """Return for each image what the model said, and the classes of those maps that are about others."""
    first = next(iter(explanations.values()))
    names = [short_name(name, limit=TILE_NAME) for name in class_names]
    said = Predictions(first.logits, first.targets, tuple(names))
    targets = {f"{heading}: ": found.targets for heading, found in explanations.items()}
    if all(np.array_equal(classes, first.targets) for classes in targets.values()):
        targets = {"for ": first.targets}  # layers, each for the same classes
    others = {word: c for word, c in targets.items() if not np.array_equal(c, said.predicted)}
    captions = []
    for i, (guess, confidence) in enumerate(zip(said.predicted, said.confidence, strict=True)):
        lines = [f"{word}{names[classes[i]]}" for word, classes in others.items()]
        captions.append("\n".join([f"{names[guess]} {percent(confidence, digits=0)}", *lines]))
    return captions


def _curves(figure: Figure, table: pd.DataFrame) -> None:
    for quantity in ("loss", "accuracy"):
        charts.curves(figure, table, quantity)
    width, height = figure.get_size_inches()
    figure.set_size_inches(2 * width, height)
    cells, labels = figure.add_gridspec(1, 2), ("loss (mean per image)", "accuracy")
    for k, axes in enumerate(figure.axes):
        axes.set_subplotspec(cells[k])
        axes.set_ylabel(labels[k])


def _words(figure: Figure, text: str) -> None:
    figure.set_size_inches(6, 0.6)
    figure.text(0.02, 0.5, text, va="center", color=INK)


def _counts(predictions: Predictions) -> dict[str, Any]:
    names = predictions.class_names
    return {"matrix": confusion(predictions.labels, predictions.predicted, len(names)), "names": names}


def _table(
    history: TrainingHistory | pd.DataFrame, kind: str, columns: Sequence[str], *, file: str
) -> pd.DataFrame:
    table = history if isinstance(history, pd.DataFrame) else pd.DataFrame(getattr(history, kind))
    missing = [column for column in columns if column not in table]
    if missing or table.empty:
        lack = f"has no {', '.join(missing)}" if missing else "is empty"
        raise InputError(f"the history {lack}; pass what the training returned, or the table of {file}")
    return table
