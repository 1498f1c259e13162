"""The report's figures one by one, for a notebook: functions of plain data, each of which returns a `Plot`.

plot_confusion(predictions)                        # as the last line of a cell, it shows itself
plot_confusion(predictions).save("confusion.png")
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sightline.errors import SightlineError
from sightline.predictions.metrics import confusion
from sightline.predictions.ranking import rank_mistakes
from sightline.predictions.table import Predictions
from sightline.report import charts, maps
from sightline.report.canvas import INK
from sightline.report.plot import Plot, check_images, plot_sheet
from sightline.report.sheets import Row
from sightline.report.wording import percent, short_name

if TYPE_CHECKING:
    from sightline.explain.explanation import Explanation

_NAME = 13  # letters of a class name that fit above a tile
_CAPTION = 17  # letters that fit there in all
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


def plot_images(images: np.ndarray, captions: Sequence[str] | None = None, *, most: int = 20) -> Plot:
    """Show the first `most` pictures, uint8 (N, H, W, 3), in lines of five, with a text above each.

    Raises SightlineError if the images are not such, or if there are not as many captions.
    """
    check_images(images)
    if captions is not None and len(captions) != len(images):
        raise SightlineError(
            f"there are {len(captions)} captions for {len(images)} images; pass one for each"
        )
    texts = [] if captions is None else [short_name(text, most=_CAPTION) for text in captions[:most]]
    return plot_sheet([Row("", images[:most])], texts)


def plot_curves(history: TrainingHistory | pd.DataFrame) -> Plot:
    """Show loss and accuracy per epoch side by side, for the splits that were measured.

    history: what `fit` returned, or the table of `history.csv`.

    Raises SightlineError if it holds no epoch.
    """
    table = _table(history, "epochs", ("epoch", "train_loss", "train_accuracy"), file="history.csv")
    return Plot(partial(_curves, table=table))


def plot_learning_rate(history: TrainingHistory | pd.DataFrame) -> Plot:
    """Show the learning rate of every iteration.

    history: what `fit` returned, or the table of `steps.csv`.

    Raises SightlineError if it holds no iteration.
    """
    table = _table(history, "steps", ("step", "lr"), file="steps.csv")
    return Plot(partial(charts.learning_rate, steps=table))


def plot_range_test(range_test: RangeTest) -> Plot:
    """Show the loss of every sweep against the learning rate as it grew, and where the rules point."""
    card = {name: getattr(range_test, name) for name in ("suggestions", "ranges", "recommended")}
    return Plot(partial(charts.range_test, table=range_test.to_frame(), card=card))


def write_range_test(folder: str | Path) -> Path:
    """Draw `range_test.csv` and `range_test.json` of a folder as `range_test.png`; return its path.

    Raises SightlineError if a file is missing or damaged, or the picture cannot be written.
    """
    folder = Path(folder)
    try:
        table = pd.read_csv(folder / "range_test.csv", dtype=float)
        card = json.loads((folder / "range_test.json").read_text(encoding="utf-8"))
        card["suggestions"] = {name: float(value) for name, value in card["suggestions"].items()}
        drawing = partial(charts.range_test, table=table.loc[:, _RANGE_TEST], card=card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        if isinstance(error, OSError):  # without its path, which stands in the message already
            reason = f"{Path(error.filename or '').name}: {error.strerror}"
        raise SightlineError(f"{folder} holds no whole range test ({reason}); run it again") from error
    return Plot(drawing).save(folder / "range_test.png")


def plot_confusion(predictions: Predictions) -> Plot:
    """Show how often each class (row) was taken for each class (column); only mistakes are coloured."""
    return Plot(partial(charts.confusion, **_counts(predictions)))


def plot_class_accuracy(predictions: Predictions) -> Plot:
    """Show the accuracy of each class with its 95 % Wilson interval, the weakest class on top."""
    return Plot(partial(charts.accuracy_per_class, **_counts(predictions)))


def plot_mistakes(predictions: Predictions, images: np.ndarray, *, most: int = 10) -> Plot:
    """Show the `most` misclassified images in descending order of loss.

    Above each: the predicted and the true class, the loss in nats, and the model's confidence.
    images: uint8 (N, H, W, 3), all that were predicted, in their order.

    Raises SightlineError if the images are not such, or not as many as the predictions.
    """
    check_images(images, len(predictions), "predictions")
    worst = rank_mistakes(predictions, most)
    if worst.empty:
        return Plot(partial(_words, text="No image is misclassified."))
    names = [short_name(name, most=_NAME) for name in predictions.class_names]
    captions = [
        f"{names[guess]},\nnot {names[label]}\nloss {loss:.2f}, {percent(confidence, digits=0)}"
        for guess, label, loss, confidence in zip(
            worst["predicted"], worst["label"], worst["loss"], worst["confidence"], strict=True
        )
    ]
    return plot_sheet([Row("", images[worst["index"].to_numpy(int)])], captions)


def plot_explanations(
    images: np.ndarray,
    explanations: Explanation | Mapping[str, Explanation],
    class_names: Sequence[str],
    *,
    most: int = 10,
) -> Plot:
    """Show the first `most` pictures above their maps: raw, cell by cell, and smoothed over the picture.

    images: uint8 (N, H, W, 3), those that were explained. explanations: one, or several by the heading
    of their rows: layers, as `explain_layers` returns them, or targets, such as
    `{"predicted": ..., "true": ...}`. Above each picture stands what the model said and how sure it was,
    then the classes of the maps where they are others. A map in which nothing speaks for its class is
    said in words.

    Raises SightlineError if images, explanations and class names do not fit together.
    """
    several = explanations if isinstance(explanations, Mapping) else {explanations.layer: explanations}
    if not several:
        raise SightlineError("there is no explanation; pass what explain or explain_layers returned")
    for found in several.values():
        check_images(images, len(found), "maps")
        if found.logits.shape[1] != len(class_names):
            raise SightlineError(
                f"the model has {found.logits.shape[1]} outputs and there are {len(class_names)} names; "
                "pass the class names of its data set"
            )
    rows = [Row("picture", images[:most])]
    for heading, found in several.items():
        rows += _map_rows(short_name(heading, most=_NAME), images[:most], found)
    return plot_sheet(rows, _about(several, class_names)[:most])


def _map_rows(heading: str, images: np.ndarray, found: Explanation) -> list[Row]:
    raw = found.maps[: len(images)]  # (M, h, w)
    words = [status if maps.message(one) else "" for one, status in zip(raw, found.status, strict=False)]
    return [
        Row(f"{heading}:\nmap", maps.alone(raw), words),
        Row(f"{heading}:\noverlay", maps.overlaid(images, raw), words),
    ]


def _about(explanations: Mapping[str, Explanation], class_names: Sequence[str]) -> list[str]:
    """Return for each image what the model said, and the classes of those maps that are about others."""
    first = next(iter(explanations.values()))
    names = [short_name(name, most=_NAME) for name in class_names]
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
        raise SightlineError(f"the history {lack}; pass what fit returned, or the table of {file}")
    return table
