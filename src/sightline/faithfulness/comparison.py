"""Which method's maps are faithful to this model: methods by measures, next to baseline maps, in words.

    found = compare_methods(model, images)
    found.best, found.verdicts["grad_cam"]

What is known of a method are its differences to maps that know nothing, on the same images. Each has a paired
interval, and the verdict is a sentence about those that leave out 0.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from sightline import logs
from sightline.attribution import METHODS, explain
from sightline.attribution.layers import Grid as TokenGrid
from sightline.attribution.methods import find_method, function_name
from sightline.attribution.methods.gradients import (
    integrated_gradients,
    smooth_grad,
    smooth_grad_cam_plus_plus,
)
from sightline.attribution.methods.perturbation import rise
from sightline.attribution.validation import warn_of_normalised
from sightline.errors import InputError, InputTypeError, SightlineError
from sightline.extensions import resolve
from sightline.faithfulness.baselines import BASELINES, model_baselines
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
    OutputScore,
    Score,
    as_classes,
    check_images,
    class_probability,
    logits_of,
)
from sightline.faithfulness.verdict import compare_with_baselines, listed, paired_difference
from sightline.models.device import device_of

log = logging.getLogger(__name__)

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
"""What methods are compared by, by name."""
FAST_MEASURES: dict[str, Measure] = {
    "deletion": functools.partial(deletion, steps=16),
    "insertion": functools.partial(insertion, steps=16),
    "road": functools.partial(road, shares=(0.2, 0.5, 0.8)),
}
"""Coarser measures, for `budget="fast"`."""
FAST_METHODS: dict[str, functools.partial] = {
    "rise": functools.partial(rise, masks=200),
    "smooth_grad": functools.partial(smooth_grad, samples=10),
    "smooth_grad_cam_plus_plus": functools.partial(smooth_grad_cam_plus_plus, samples=8),
    "integrated_gradients": functools.partial(integrated_gradients, steps=16),
}
"""Methods of many passes with fewer of them, for `budget="fast"`."""
_SAME = 1e-4  # two heat maps in [0, 1] that differ by no more are one: float32 and resizing leave less


@dataclass(frozen=True, eq=False)
class MethodComparison:
    """Methods by measures on n images of one model.

    Attributes:
        table: A row per method, best first: mean, low and high of every measure (columns "deletion",
            "deletion_low", "deletion_high", ...), "ms_per_image" to explain, and "no_map", the share of
            images on which the method showed nothing.
        baselines: A row per method, measure and baseline: the baseline's mean, by how much the method is
            better ("difference", in the measure's units, above 0 is better), its paired interval ("low",
            "high"), and "word": better, tied or worse.
        verdicts: A sentence per method, on the measures that rank taken together.
        best: The method of the first row.
        tied: Those not separable from it.
        coincide: A method that was not measured, and the one whose maps are the same on this model.
        skipped: A method, and why it cannot serve this model.
        measurements: method -> measure -> what was measured, with curves.
        n: How many images.
    """

    table: pd.DataFrame
    baselines: pd.DataFrame
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
            *(f"{method}: skipped, {reason}" for method, reason in self.skipped.items()),
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


def compare_methods(
    model: nn.Module,
    images: torch.Tensor,
    targets: Classes | None = None,
    *,
    methods: Sequence[str | Callable] | None = None,
    measures: Sequence[str | Measure] = ("deletion", "insertion", "road"),
    layer: str | nn.Module | None = None,
    score: OutputScore | None = None,
    grid: TokenGrid | None = None,
    masks: Maps | None = None,
    budget: Literal["full", "fast"] = "full",
    seed: int = 0,
) -> MethodComparison:
    """Measure the heat maps of several methods on the same images, next to baseline maps of the same grain.

    The order is by the mean of all `measures`, each in units of its standard deviation over methods and
    images. What needs masks does not take part: a map on the object is not for that reason faithful to the
    model. Methods whose heat maps are equal on all images are measured once. A method that cannot
    serve this model is skipped with its reason. Before the measures begin, the log says what they cost.

    Args:
        model: A classifier; it stays as it is.
        images: Float (B, C, H, W), at least two; fifty or more give useful intervals.
        targets: None (the predicted class), one class for all, or one per image.
        methods: Names or functions, as `method` of `explain`; None for all in `METHODS`.
        measures: Names in `MEASURES`, of a plugin, or "package.module:function"; or functions
            `(score, images, maps) -> Measurement`, such as `functools.partial(deletion, fill=blur)`. The
            score is the probability of the target, or the number that `score` returns.
        layer, score, grid: As for `explain`.
        masks: bool (B, H, W), to add the pointing game and the energy in the mask.
        budget: "fast" takes the measures and methods that are named from `FAST_MEASURES` and `FAST_METHODS`:
            fewer steps, samples and masks, for a first look or a slow machine.
        seed: Of baseline maps, ties and intervals.

    Raises:
        InputError: An argument does not fit, or no method serves.
    """
    images = check_images(images).to(device_of(model))
    if len(images) < 2:
        raise InputError("there is 1 image; compare_methods needs 2 or more for intervals, better 50")
    if budget not in ("full", "fast"):
        raise InputError(f'budget is {budget!r}; use "full" or "fast"')
    chosen = {_label(method): method for method in METHODS} if methods is None else _by_label(methods)
    for method in chosen.values():
        find_method(method)  # a wrong name is an error, a method that does not serve is skipped
    ranking = {name: _find_measure(measure) for name, measure in _by_label(measures).items()}
    warn_of_normalised(images, "what the measures hide is not what it should be")
    if not chosen or not ranking:
        raise InputError("there is nothing to compare; pass at least one method and one measure")
    if budget == "fast":
        chosen = {name: FAST_METHODS.get(name, method) for name, method in chosen.items()}
        ranking = {name: FAST_MEASURES.get(name, measure) for name, measure in ranking.items()}
    if targets is None:
        targets = logits_of(model, images, score=score).argmax(1)
    setup = _Setup(model, images, as_classes(targets, len(images)), layer, score, grid, seed, ranking, masks)
    explained, skipped = _explain_each(setup, chosen)
    distinct, coincide = _merge_equal(explained)
    grids = {found.grid for found in distinct.values()}
    begin = time.perf_counter()
    each = setup.passes()
    seconds = time.perf_counter() - begin
    maps = 3 * len(distinct) + len(BASELINES) * len(grids)  # own, of another class, of an untrained network
    count = maps * len(images)
    log.info(
        "comparing %d methods by %d measures on %d images: about %d forward passes of an image, %.0f s",
        len(distinct), len(setup.measures), len(images), each * count, seconds * count,
    )  # fmt: skip
    with logs.stage("measuring maps", total=maps) as setup.progress:
        measured = {name: setup.measure(found.heatmaps, found.grid) for name, found in distinct.items()}
        baselines = _measure_baselines(setup, distinct)
    merits, baseline_merits = _merits(measured, baselines, list(ranking))
    order = sorted(merits, key=lambda name: -merits[name].mean)
    measured, best = {name: measured[name] for name in order}, merits[order[0]]
    return MethodComparison(
        table=_method_table(measured, distinct, seed=seed),
        baselines=_baseline_table(measured, baselines, seed=seed),
        verdicts={
            name: compare_with_baselines(merits[name], baseline_merits[name], seed=seed).sentence
            for name in order
        },
        best=order[0],
        tied=tuple(
            name for name in order[1:] if paired_difference(best, merits[name], seed=seed).word == "tied"
        ),
        coincide=coincide,
        skipped=skipped,
        measurements=measured,
        n=len(images),
    )


@dataclass(frozen=True, eq=False)
class _Explained:
    """One method's heat maps (B, H, W), the grid (h, w) of its raw maps, and what an image cost."""

    function: str | Callable
    heatmaps: np.ndarray
    grid: tuple[int, int]
    ms_per_image: float


def _method_table(
    measured: Mapping[str, Mapping[str, Measurement]], explained: Mapping[str, _Explained], *, seed: int
) -> pd.DataFrame:
    """Return the table of a comparison, a row for each of `measured` in its order."""
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


def _baseline_table(
    measured: Mapping[str, Mapping[str, Measurement]],
    baselines: Mapping[str, Mapping[str, Mapping[str, Measurement]]],
    *,
    seed: int,
) -> pd.DataFrame:
    """Return the table of baselines, from method -> baseline -> measure."""
    rows = []
    for method, found in measured.items():
        for measure, own in found.items():
            others = {name: values[measure] for name, values in baselines[method].items()}
            for name, gap in compare_with_baselines(own, others, seed=seed).differences.items():
                rows.append(
                    {
                        "method": method, "measure": measure, "baseline": name, "mean": others[name].mean,
                        "difference": gap.mean, "low": gap.low, "high": gap.high, "word": gap.word,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(eq=False)
class _Setup:
    """What is the same for every method: the model, the images and their classes, and the measures."""

    model: nn.Module
    images: torch.Tensor
    classes: torch.Tensor
    layer: str | nn.Module | None
    score: OutputScore | None
    tokens: TokenGrid | None
    seed: int
    measures: Mapping[str, Measure]
    masks: Maps | None
    progress: logs.Stage = field(default_factory=lambda: logs.Stage(""))

    def explain(self, method: str | Callable) -> _Explained:
        chosen: dict[str, Any] = {
            "method": method, "layer": self.layer, "score": self.score, "grid": self.tokens
        }  # fmt: skip
        explain(self.model, self.images[:1], self.classes[:1], **chosen)  # so that no first call is timed
        begin = time.perf_counter()
        found = explain(self.model, self.images, self.classes, **chosen)
        cost = (time.perf_counter() - begin) * 1000 / len(self.images)
        grid = (found.maps.shape[1], found.maps.shape[2])
        return _Explained(method, found.heatmaps(), grid, cost)

    def measure(self, maps: np.ndarray, grid: tuple[int, int]) -> Measured:
        """Measure heat maps (B, H, W) whose raw maps had that grid."""
        score = class_probability(self.model, self.classes, score=self.score)
        found = {name: measure(score, self.images, maps) for name, measure in self.measures.items()}
        if self.masks is not None:
            found["pointing_game"] = pointing_game(maps, self.masks, grid=grid)
            found["energy_in_mask"] = energy_in_mask(maps, self.masks)
        self.progress.advance()
        return found

    def passes(self) -> int:
        """Count the forward passes that all measures take for one map, by measuring one."""
        counted, own = 0, class_probability(self.model, self.classes[:1], score=self.score)

        def score(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            nonlocal counted
            counted += len(images)
            return own(images, rows)

        any_map = BASELINES["a random map"](self.images[:1], (4, 4), self.seed)
        for measure in self.measures.values():
            measure(score, self.images[:1], any_map)
        return counted


def _find_measure(measure: str | Measure) -> Measure:
    function = cast(Measure, resolve("measure", measure, MEASURES))
    if not callable(function):
        raise InputTypeError(f"a measure is {type(function).__name__}; pass names or functions")
    return function


def _by_label(functions: Sequence[str | Callable]) -> dict[str, str | Callable]:
    labels = [_label(function) for function in functions]
    for label, count in Counter(labels).items():
        if count > 1:
            raise InputError(
                f"{label!r} is listed {count} times; list it once, and name functions differently"
            )
    return dict(zip(labels, functions, strict=True))


def _label(function: str | Callable) -> str:
    """Return the name of a method or measure, with what `functools.partial` filled in: "rise (masks=200)"."""
    if isinstance(function, str):
        return function
    filled = getattr(function, "keywords", {})
    given = ", ".join(
        f"{key}={function_name(value) if callable(value) else value}" for key, value in filled.items()
    )
    return function_name(function) + (f" ({given})" if given else "")


def _explain_each(
    setup: _Setup, methods: Mapping[str, str | Callable]
) -> tuple[dict[str, _Explained], dict[str, str]]:
    """Return what was explained, and why the other methods were skipped, both by label."""
    explained, skipped = {}, {}
    for name, method in methods.items():
        try:
            explained[name] = setup.explain(method)
        except SightlineError as error:
            skipped[name] = str(error)
    if not explained:
        raise InputError(next(iter(skipped.values())))
    return explained, skipped


def _merge_equal(explained: Mapping[str, _Explained]) -> tuple[dict[str, _Explained], dict[str, str]]:
    """Keep the first of the methods whose heat maps are equal, and say which the others are equal to."""
    distinct: dict[str, _Explained] = {}
    coincide: dict[str, str] = {}
    for name, found in explained.items():
        equal = [
            one for one, kept in distinct.items() if np.abs(kept.heatmaps - found.heatmaps).max() <= _SAME
        ]
        if equal:
            coincide[name] = equal[0]
        else:
            distinct[name] = found
    return distinct, coincide


def _measure_baselines(setup: _Setup, distinct: Mapping[str, _Explained]) -> dict[str, dict[str, Measured]]:
    """Return method -> baseline -> measures. Methods of one grid share the baselines of the images alone."""
    by_grid = {}
    for grid in {found.grid for found in distinct.values()}:
        maps = {name: baseline(setup.images, grid, setup.seed) for name, baseline in BASELINES.items()}
        by_grid[grid] = {name: setup.measure(heat, grid) for name, heat in maps.items()}
    baselines = {}
    for method, found in distinct.items():
        maps = model_baselines(
            setup.model,
            setup.images,
            setup.classes,
            method=found.function,
            layer=setup.layer,
            score=setup.score,
            tokens=setup.tokens,
            seed=setup.seed,
        )
        own = {name: setup.measure(heat, found.grid) for name, heat in maps.items()}
        baselines[method] = by_grid[found.grid] | own
    return baselines


def _merits(
    measured: Mapping[str, Measured], baselines: Mapping[str, Mapping[str, Measured]], ranking: Sequence[str]
) -> tuple[Measured, dict[str, Measured]]:
    """Return the mean over the ranking measures, in standard deviations: of methods, and of baselines."""
    spreads = {name: np.std([found[name].values for found in measured.values()]) or 1.0 for name in ranking}

    def merit(found: Measured) -> Measurement:
        signed = [
            found[name].values * (1 if found[name].higher_is_better else -1) / spreads[name]
            for name in ranking
        ]
        return Measurement("merit", np.mean(signed, axis=0), True)

    methods = {name: merit(found) for name, found in measured.items()}
    return methods, {
        method: {name: merit(found) for name, found in others.items()} for method, others in baselines.items()
    }
