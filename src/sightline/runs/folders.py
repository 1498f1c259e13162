"""Where runs live, and which of their images two of them share; no torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.audit import read_decisions
from sightline.audit.model_comparison import match_images
from sightline.errors import DamagedFileError, NotFoundError
from sightline.files import check_regular
from sightline.predictions import Predictions
from sightline.runs.artifacts import RECIPE

RUNS = Path("runs")


def existing_folder(path: Path) -> Path:
    """Return the folder of a run that is there.

    Raises SightlineError if there is none, naming the runs beside it.
    """
    folder = path.resolve() if path.is_symlink() else path
    if (folder / RECIPE).is_file():
        return folder
    beside = sorted(p.parent.name for p in path.parent.glob(f"*/{RECIPE}") if not p.parent.is_symlink())
    known = f"runs there: {', '.join(beside)}" if beside else "'sightline run' makes one"
    raise NotFoundError(f"{path} is not the folder of a run; {known}")


def list_runs(runs: Path = RUNS) -> list[Path]:
    """Return the folders of the runs in `runs`, oldest first."""
    found = [p.parent for p in runs.glob(f"*/{RECIPE}") if p.is_file() and not p.parent.is_symlink()]
    return sorted(found, key=lambda folder: (folder / RECIPE).stat().st_mtime)


def shared_images(
    folder_a: Path, a: Predictions, folder_b: Path, b: Predictions
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows, (M,) each, of the test images that two runs have in common, in the order of run A.

    Images are known by the hash of their content, or by their path where no hash is known. Runs that kept
    neither, of older versions, share their places if their splits are as large and labelled alike but for
    what decisions changed; else nothing.
    """
    if a.files is not None and b.files is not None:
        return match_images(a.files, b.files)
    one, other = _tested(folder_a, len(a)), _tested(folder_b, len(b))
    _, rows_a, rows_b = np.intersect1d(one.places, other.places, return_indices=True)
    decided = np.isin(one.places[rows_a], [*one.relabelled, *other.relabelled])
    same = one.size == other.size and (a.labels[rows_a] == b.labels[rows_b])[~decided].all()
    none = np.zeros(0, np.int64)
    return (rows_a, rows_b) if same else (none, none)


@dataclass(frozen=True, eq=False)
class _Tested:
    """A run's test images by their places in the whole split of `size`, before decisions dropped some.

    relabelled: the places whose label was decided anew.
    """

    places: np.ndarray
    size: int
    relabelled: list[int]


def _tested(folder: Path, images: int) -> _Tested:
    fixes = decisions_file(folder)
    if not fixes:
        return _Tested(np.arange(images), images, [])
    decisions = read_decisions(Path(fixes))
    dropped = [decision.index for decision in decisions.of("test", "drop")]
    size = decisions.data["test"]
    relabelled = [decision.index for decision in decisions.of("test", "relabel")]
    return _Tested(np.delete(np.arange(size), dropped), size, relabelled)


def decisions_file(folder: Path) -> str:
    """Return the path of the decisions that a run's data was changed by, or ""."""
    data = read_recipe(folder).get("data")
    fixes = data.get("fixes") if isinstance(data, dict) else None
    return fixes if isinstance(fixes, str) else ""


def read_recipe(folder: Path) -> dict[str, object]:
    """Return a run's recipe as the table that it is, unchecked: enough to look something up."""
    path = folder / RECIPE
    try:
        check_regular(path)
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedFileError(f"{path} is no recipe ({reason}); copy it back") from None
