"""Two runs on the same test images: what the second gained, and the page that shows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline import logs
from sightline.audit import Comparison, compare_predictions, read_decisions
from sightline.errors import SightlineError
from sightline.predictions import Predictions
from sightline.report import Rows, write_comparison
from sightline.runs.run_folder import Run, load_run


@dataclass(frozen=True, eq=False)
class _Tested:
    """A run's test images by their places in the whole split of `size`, before decisions dropped some.

    relabelled: the places whose label was decided anew.
    """

    places: np.ndarray
    size: int
    relabelled: list[int]


@logs.stage("comparing the runs")
def compare_runs(a: Run | str | Path, b: Run | str | Path, page: str | Path) -> Comparison:
    """Compare run `b` with run `a` image by image and write the page that shows the images that changed.

    Runs that were trained with fixes may have test images dropped or relabelled: the images that both
    have are compared, by the labels of `b` if it has fixes, else by those of `a`. Indices in the result
    count the images compared. Raises SightlineError if the runs were tested on other images, or one of
    them was not audited.
    """
    first, second = (run if isinstance(run, Run) else load_run(run) for run in (a, b))
    one, other = _tested(first), _tested(second)
    _, rows_a, rows_b = np.intersect1d(one.places, other.places, return_indices=True)
    labels_a, labels_b = first.predictions.labels[rows_a], second.predictions.labels[rows_b]
    decided = np.isin(one.places[rows_a], [*one.relabelled, *other.relabelled])
    same = one.size == other.size and (labels_a == labels_b)[~decided].all()
    if not len(rows_a) or not same or first.predictions.class_names != second.predictions.class_names:
        raise SightlineError(
            f"{first.folder} and {second.folder} were tested on other images, labels or classes; "
            "compare runs on the same data"
        )
    labels = labels_b if second.recipe.data.fixes else labels_a
    found = compare_predictions(
        _part(first.predictions, rows_a, labels), _part(second.predictions, rows_b, labels)
    )
    write_comparison(first.folder, second.folder, found, page, rows=Rows(rows_a, rows_b))
    return found


def _tested(run: Run) -> _Tested:
    if not run.recipe.data.fixes:
        return _Tested(np.arange(len(run.predictions)), len(run.predictions), [])
    decisions = read_decisions(Path(run.recipe.data.fixes))
    dropped = [decision.index for decision in decisions.of("test", "drop")]
    size = decisions.data["test"]
    relabelled = [decision.index for decision in decisions.of("test", "relabel")]
    return _Tested(np.delete(np.arange(size), dropped), size, relabelled)


def _part(predictions: Predictions, rows: np.ndarray, labels: np.ndarray) -> Predictions:
    files = None if predictions.files is None else predictions.files.iloc[rows]
    return dataclasses.replace(predictions, logits=predictions.logits[rows], labels=labels, files=files)
