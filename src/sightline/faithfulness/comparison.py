"""What `compare_methods` returns: its tables, and how it reads as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sightline.faithfulness.measurement import Measurement
from sightline.faithfulness.verdicts import judge, listed


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods by measures on n images of one model.

    table: a row per method, best first: mean, low and high of every measure (columns "deletion",
    "deletion_low", "deletion_high", ...), "ms_per_image" to explain, and "no_map", the share of images on
    which the method showed nothing. controls: a row per method, measure and control: the control's
    mean, by how much the method is better ("difference", in the measure's units, above 0 is better), and
    its paired interval. verdicts: a line per method, on the measures that rank taken together.
    best: the method of the first row; tied: those not separable from it. coincide: a method that
    was not measured -> the one whose maps are the same on this model. skipped: a method -> why it cannot
    serve this model. measurements: method -> measure -> what was measured, with curves.
    """

    table: pd.DataFrame
    controls: pd.DataFrame
    verdicts: dict[str, str]
    best: str
    tied: tuple[str, ...]
    coincide: dict[str, str]
    skipped: dict[str, str]
    measurements: dict[str, dict[str, Measurement]]
    n: int

    def __str__(self) -> str:
        measured = self.measurements[self.best]
        fills = ", ".join(f"{measure} {found.fill}" for measure, found in measured.items() if found.fill)
        ties = f"; not separable from it: {listed(self.tied)}" if self.tied else ""
        lines = [
            self._grid().to_string(),
            f"best first; n {self.n}; mean and 95 % interval; filled with: {fills or 'nothing'}",
            f"best: {self.best}{ties}",
            *(f"{method}: {verdict}" for method, verdict in self.verdicts.items()),
            *(f"{method}: the same maps as {other} on this model" for method, other in self.coincide.items()),
            *(f"{method}: left out, {reason}" for method, reason in self.skipped.items()),
        ]
        return "\n".join(lines)

    def _grid(self) -> pd.DataFrame:
        """Return the table with each mean and interval spelled out in one cell."""
        shown = {}
        for measure, found in self.measurements[self.best].items():
            ends = zip(*(self.table[measure + end] for end in ("", "_low", "_high")), strict=True)
            header = f"{measure} ({'higher' if found.higher_is_better else 'lower'})"
            shown[header] = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in ends]
        shown["ms per image"] = [f"{cost:.2f}" for cost in self.table["ms_per_image"]]
        shown["no map"] = [f"{share:.0%}" for share in self.table["no_map"]]
        return pd.DataFrame(shown, index=self.table.index.rename(None))


@dataclass(frozen=True, eq=False)
class Explained:
    """One method's heat maps (B, H, W), the grid (h, w) of its raw maps, and what an image cost."""

    function: str | Callable
    heatmaps: np.ndarray
    grid: tuple[int, int]
    ms_per_image: float


def method_table(
    measured: Mapping[str, Mapping[str, Measurement]], explained: Mapping[str, Explained], *, seed: int
) -> pd.DataFrame:
    """Return the table of a `Comparison`, a row for each of `measured` in its order."""
    rows = []
    for method, found in measured.items():
        row: dict[str, object] = {"method": method}
        for measure, values in found.items():
            low, high = values.interval(seed=seed)
            row |= {measure: values.mean, f"{measure}_low": low, f"{measure}_high": high}
        shown = (explained[method].heatmaps > 0).any(axis=(1, 2))
        row |= {"ms_per_image": explained[method].ms_per_image, "no_map": 1 - float(shown.mean())}
        rows.append(row)
    return pd.DataFrame(rows).set_index("method")


def control_table(
    measured: Mapping[str, Mapping[str, Measurement]],
    controls: Mapping[str, Mapping[str, Mapping[str, Measurement]]],
    *,
    seed: int,
) -> pd.DataFrame:
    """Return the control table of a `Comparison`: method -> control -> measure, as rows."""
    rows = []
    for method, found in measured.items():
        for measure, own in found.items():
            beside = {name: values[measure] for name, values in controls[method].items()}
            for name, gap in judge(own, beside, seed=seed).differences.items():
                rows.append(
                    {
                        "method": method, "measure": measure, "control": name, "mean": beside[name].mean,
                        "difference": gap.mean, "low": gap.low, "high": gap.high, "word": gap.word,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)
