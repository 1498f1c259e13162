"""Which method's maps can be believed on this model: methods by measures, beside controls, in words.

What `compare_methods` returns: its tables, and how it reads as text.

From differences to words: is a map better than what knows nothing?
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from sightline.attribution import METHODS, explain
from sightline.errors import SightlineError, nearest
from sightline.faithfulness.baselines import CONTROLS, model_controls
from sightline.faithfulness.deletion_insertion import (
    deletion,
    insertion,
    road,
    road_least_first,
    road_most_first,
)
from sightline.faithfulness.localization import energy_in_mask, pointing_game
from sightline.faithfulness.masking import average_drop, average_increase, infidelity
from sightline.faithfulness.measurement import (
    Classes,
    Maps,
    Measurement,
    Score,
    as_classes,
    check_images,
    class_probability,
    logits_of,
    name_of,
)
from sightline.models.device import device_of
from sightline.stats import bootstrap_interval


@dataclass(frozen=True)
class Difference:
    """How much better than a control, in the measure's units: above 0 is better, whichever way it runs.

    mean: over images. low, high: its paired 95 % bootstrap interval.
    """

    mean: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """ "better" or "worse" where the interval leaves out 0, else "tied"."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "tied"


@dataclass(frozen=True)
class Judgement:
    """One measure of one method beside its controls: the verdict in words, and the differences by control."""

    verdict: str
    differences: dict[str, Difference]


def judge(measurement: Measurement, controls: Mapping[str, Measurement], *, seed: int = 0) -> Judgement:
    """Compare a measurement with the same measure of each control, on the same images.

    The verdict is one line: "better than every control", "better than random; no better than edges",
    "no better than random", "worse than edges"; a control is beaten, or wins, only where the paired 95 %
    interval leaves out 0.

    >>> import numpy as np
    >>> good, poor = Measurement("road", np.arange(9.0), True), Measurement("road", np.arange(9.0) - 1, True)
    >>> judge(good, {"random": poor, "edges": good}).verdict
    'better than random; no better than edges'

    Raises SightlineError if there is no control, or the images are not the same.
    """
    if not controls:
        raise SightlineError("there are no controls to judge by; pass at least one measurement by name")
    differences = {name: difference(measurement, control, seed=seed) for name, control in controls.items()}
    return Judgement(verdict_of(differences), differences)


def difference(a: Measurement, b: Measurement, *, seed: int = 0) -> Difference:
    """Return by how much `a` is better than `b`, with its paired interval over images."""
    if a.n != b.n or a.higher_is_better != b.higher_is_better:
        raise SightlineError(
            f"{a.measure} of {a.n} images does not pair with {b.measure} of {b.n}; "
            "take the same measure of the same images"
        )
    gain = (a.values - b.values) * (1 if a.higher_is_better else -1)
    low, high = bootstrap_interval(gain, seed=seed)
    return Difference(float(gain.mean()), float(low), float(high))


def verdict_of(differences: Mapping[str, Difference]) -> str:
    """Return the one line that the differences to the controls come to."""
    groups = {
        word: [name for name, found in differences.items() if found.word == word]
        for word in ("better", "tied", "worse")
    }
    if len(groups["better"]) == len(differences):
        return "better than every control"
    if not groups["better"] and not groups["tied"]:
        return "worse than every control"
    if len(groups["tied"]) == len(differences):
        return "no better than any control" if len(differences) > 1 else f"no better than {groups['tied'][0]}"
    phrases = {"better": "better than", "tied": "no better than", "worse": "worse than"}
    return "; ".join(f"{phrases[word]} {listed(names)}" for word, names in groups.items() if names)


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


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


# (score, images, heat maps) -> Measurement
Measure = Callable[[Score, torch.Tensor, np.ndarray], Measurement]
Measured = dict[str, Measurement]

MEASURES: dict[str, Measure] = {
    "deletion": deletion,
    "insertion": insertion,
    "road": road,
    "road_most_first": road_most_first,
    "road_least_first": road_least_first,
    "average_drop": average_drop,
    "average_increase": average_increase,
    "infidelity": infidelity,
}
SAME = 1e-4  # two heat maps in [0, 1] that differ by no more are one: float32 and resizing leave less


def compare_methods(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes | None = None,
    *,
    methods: Sequence[str | Callable] | None = None,
    measures: Sequence[str | Measure] = ("deletion", "insertion", "road"),
    layer: str | nn.Module | None = None,
    masks: Maps | None = None,
    seed: int = 0,
) -> Comparison:
    """Measure the heat maps of several methods on the same images, each beside controls of its own grain.

    images: float (B, C, H, W), at least two; fifty or more say something. targets: None (predicted),
    one class for all, or one per image. methods: names in `METHODS` or functions; None for all
    of them. measures: names in `MEASURES`, or functions `(score, images, maps) -> Measurement`, such
    as `functools.partial(deletion, fill=blur)`; the score is the target's probability. masks: bool
    (B, H, W), to add the pointing game and the energy in the mask.

    The order is by the mean of all `measures`, each in units of its standard deviation over methods and
    images. What needs masks does not take part: a map on the object is not for that reason true to the
    model. Methods whose heat maps are equal on all images are measured once. A method that cannot
    serve this model is left out with its reason.

    Raises SightlineError if an argument does not fit, or no method serves.
    """
    images = check_images(images).to(device_of(model))
    if len(images) < 2:
        raise SightlineError("there is 1 image; compare_methods needs 2 or more for intervals, better 50")
    chosen = list(METHODS) if methods is None else list(methods)
    ranking = {_label(measure): _find_measure(measure) for measure in measures}
    if not chosen or not ranking:
        raise SightlineError("there is nothing to compare; pass at least one method and one measure")
    classes = logits_of(model, images).argmax(1) if targets is None else as_classes(targets, len(images))
    subject = _Subject(model, images, classes, layer, seed, ranking | _mask_measures(masks))
    explained, skipped = _explain_each(subject, chosen)
    distinct, coincide = _merge_equal(explained)
    measured = {name: subject.measure(found.heatmaps) for name, found in distinct.items()}
    controls = _measure_controls(subject, distinct)
    merits, control_merits = _merits(measured, controls, list(ranking))
    order = sorted(merits, key=lambda name: -merits[name].mean)
    measured, best = {name: measured[name] for name in order}, merits[order[0]]
    return Comparison(
        table=method_table(measured, distinct, seed=seed),
        controls=control_table(measured, controls, seed=seed),
        verdicts={name: judge(merits[name], control_merits[name], seed=seed).verdict for name in order},
        best=order[0],
        tied=tuple(name for name in order[1:] if difference(best, merits[name], seed=seed).word == "tied"),
        coincide=coincide,
        skipped=skipped,
        measurements=measured,
        n=len(images),
    )


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is the same for every method: the model, the images and their classes, and the measures."""

    model: nn.Module
    images: torch.Tensor
    classes: torch.Tensor
    layer: str | nn.Module | None
    seed: int
    measures: Mapping[str, Measure]

    def explain(self, method: str | Callable) -> Explained:
        chosen = {"method": method, "layer": self.layer}
        explain(self.model, self.images[:1], self.classes[:1], **chosen)  # so that no first call is timed
        begin = time.perf_counter()
        found = explain(self.model, self.images, self.classes, **chosen)
        cost = (time.perf_counter() - begin) * 1000 / len(self.images)
        grid = (found.maps.shape[1], found.maps.shape[2])
        return Explained(method, found.heatmaps(), grid, cost)

    def measure(self, maps: np.ndarray) -> Measured:
        score = class_probability(self.model, self.classes)
        return {name: measure(score, self.images, maps) for name, measure in self.measures.items()}


def _find_measure(measure: str | Measure) -> Measure:
    if callable(measure):
        return measure
    if measure not in MEASURES:
        raise SightlineError(f"measure {measure!r} is not known; {nearest(measure, list(MEASURES))}")
    return MEASURES[measure]


def _label(measure: str | Measure) -> str:
    """Return the measure's name, with what `functools.partial` filled in: "deletion (fill=blur)"."""
    if isinstance(measure, str):
        return measure
    filled = getattr(measure, "keywords", {})
    given = ", ".join(
        f"{key}={name_of(value) if callable(value) else value}" for key, value in filled.items()
    )
    return name_of(measure) + (f" ({given})" if given else "")


def _mask_measures(masks: Maps | None) -> dict[str, Measure]:
    if masks is None:
        return {}
    return {
        "pointing_game": lambda score, images, maps: pointing_game(maps, masks),
        "energy_in_mask": lambda score, images, maps: energy_in_mask(maps, masks),
    }


def _explain_each(
    subject: _Subject, methods: Sequence[str | Callable]
) -> tuple[dict[str, Explained], dict[str, str]]:
    explained, skipped = {}, {}
    for method in methods:
        name = method if isinstance(method, str) else name_of(method)
        try:
            explained[name] = subject.explain(method)
        except SightlineError as error:
            skipped[name] = str(error)
    if not explained:
        raise SightlineError(next(iter(skipped.values())))
    return explained, skipped


def _merge_equal(explained: Mapping[str, Explained]) -> tuple[dict[str, Explained], dict[str, str]]:
    """Keep the first of the methods whose heat maps are equal, and say which the others are equal to."""
    distinct: dict[str, Explained] = {}
    coincide: dict[str, str] = {}
    for name, found in explained.items():
        equal = [
            one for one, kept in distinct.items() if np.abs(kept.heatmaps - found.heatmaps).max() <= SAME
        ]
        if equal:
            coincide[name] = equal[0]
        else:
            distinct[name] = found
    return distinct, coincide


def _measure_controls(subject: _Subject, distinct: Mapping[str, Explained]) -> dict[str, dict[str, Measured]]:
    """Return method -> control -> measures. Methods of one grid share the controls of the images alone."""
    by_grid = {}
    for grid in {found.grid for found in distinct.values()}:
        maps = {name: control(subject.images, grid, subject.seed) for name, control in CONTROLS.items()}
        by_grid[grid] = {name: subject.measure(heat) for name, heat in maps.items()}
    controls = {}
    for method, found in distinct.items():
        maps = model_controls(
            subject.model,
            subject.images,
            subject.classes,
            method=found.function,
            layer=subject.layer,
            seed=subject.seed,
        )
        controls[method] = by_grid[found.grid] | {name: subject.measure(heat) for name, heat in maps.items()}
    return controls


def _merits(
    measured: Mapping[str, Measured], controls: Mapping[str, Mapping[str, Measured]], ranking: Sequence[str]
) -> tuple[Measured, dict[str, Measured]]:
    """Return the mean over the ranking measures, each in standard deviations: of methods, and of controls."""
    spreads = {name: np.std([found[name].values for found in measured.values()]) or 1.0 for name in ranking}

    def merit(found: Measured) -> Measurement:
        signed = [
            found[name].values * (1 if found[name].higher_is_better else -1) / spreads[name]
            for name in ranking
        ]
        return Measurement("merit", np.mean(signed, axis=0), True)

    methods = {name: merit(found) for name, found in measured.items()}
    return methods, {
        method: {name: merit(found) for name, found in beside.items()} for method, beside in controls.items()
    }
