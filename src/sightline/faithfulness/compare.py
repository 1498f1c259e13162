"""Which method's maps can be believed on this model: methods by measures, beside controls, in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sightline.errors import SightlineError, nearest
from sightline.explain import METHODS, explain
from sightline.faithfulness.arguments import Classes, Maps, as_classes, check_images, name_of
from sightline.faithfulness.comparison import Comparison, Explained, control_table, method_table
from sightline.faithfulness.controls import CONTROLS, model_controls
from sightline.faithfulness.localization import energy_in_mask, pointing_game
from sightline.faithfulness.measurement import Measurement
from sightline.faithfulness.perturbation import average_drop, average_increase, infidelity
from sightline.faithfulness.removal import deletion, insertion, road, road_least_first, road_most_first
from sightline.faithfulness.scores import Score, class_probability, logits_of
from sightline.faithfulness.verdicts import difference, judge
from sightline.models.execution import device_of

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
