"""How the training went: curves, learning rate, range test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sightline.report import pictures
from sightline.report.blocks import Chart, Column, Picture, Section, SideBySide, Table
from sightline.report.charts import svg
from sightline.report.figures import chart_drawings
from sightline.report.formatting import count, number, percent, plural
from sightline.report.run_data import ReportData
from sightline.report.svg import Diagram, plane

_GROUP = "Training"
_STYLES = {"train": "muted", "validation": "dashed", "test": "accent"}
_POINTS = 200  # of a curve: as many as can be told apart
_RULES = {
    "trials": "trials: half of the best rate of short trainings along the schedule",
    "steepest": "steepest: where the loss falls fastest",
    "valley": "valley: the middle of the longest fall",
    "slide": "slide: before the slope changes at the end",
    "minimum/10": "minimum/10: a tenth of the rate of the lowest loss",
}


def curves_section(data: ReportData) -> Section | None:
    if data.history is None:
        return None
    last = data.history.iloc[-1]
    gap = 100 * (last["train_accuracy"] - last["test_accuracy"])
    lead = (
        f"After {plural(len(data.history), 'epoch')}: {percent(last['train_accuracy'])} of the (augmented) "
        f"training images right and {percent(last['test_accuracy'])} of the test images, a gap "
        f"of {gap:.1f} points."
    )
    loss = _curves(data.history, "loss", "Loss: mean cross-entropy per image")
    accuracy = _curves(data.history, "accuracy", "Accuracy")
    return Section("Loss and accuracy", "curves", _GROUP, lead, (SideBySide((loss, accuracy)),))


def _curves(history: pd.DataFrame, quantity: str, caption: str) -> Diagram:
    splits = [split for split in _STYLES if f"{split}_{quantity}" in history]
    values = {split: history[f"{split}_{quantity}"].to_numpy(float) for split in splits}
    epochs, share = history["epoch"].to_numpy(float), quantity == "accuracy"
    finite = np.concatenate([line[np.isfinite(line)] for line in values.values()])
    low, high = float(finite.min(initial=1)), float(finite.max(initial=0))
    said = {split: [_said(value, share) for value in line] for split, line in values.items()}
    ends = ", ".join(f"{split} {texts[-1]}" for split, texts in said.items())
    flat = plane(
        caption,
        f"{quantity.capitalize()} per epoch; in the last one: {ends}.",
        x=(min(1.0, epochs[0]), epochs[-1]),
        y=(min(low, 0.0) if not share else low, high),
        labels=("epoch", ""),
        shares=(False, share),
        size=(460, 290),
    )
    lines = [
        flat.line(
            f"{split} {said[split][-1]}",
            _STYLES[split],
            epochs.tolist(),
            line.tolist(),
            [f"epoch {epoch:.0f}, {split} {text}" for epoch, text in zip(epochs, said[split], strict=True)],
            dots=len(line) <= 30,
        )
        for split, line in values.items()
    ]
    return flat.axes.with_parts(lines=lines)


def _said(value: float, share: bool) -> str:
    return percent(value) if share else number(value)


def learning_rate_section(data: ReportData) -> Section | None:
    if data.steps is None:
        return None
    rates, steps = data.steps["lr"].to_numpy(float), data.steps["step"].to_numpy(int)
    peak = rates.argmax()
    lead = (
        f"The rate of every one of {count(len(steps))} iterations: it peaks at {rates[peak]:.3g} in "
        f"iteration {count(steps[peak])} and ends at {rates[-1]:.3g}."
    )
    flat = plane(
        "",
        f"Learning rate per iteration: highest {rates[peak]:.3g}, at the end {rates[-1]:.3g}.",
        x=(float(steps[0]), float(steps[-1])),
        y=(0.0, float(rates[peak])),
        labels=("iteration", "learning rate"),
        size=(640, 270),
    )
    every = _thinned(steps, peak)
    texts = [
        f"iteration {count(step)}, rate {rate:.3g}"
        for step, rate in zip(steps[every], rates[every], strict=True)
    ]
    line = flat.line("", "accent", steps[every].tolist(), rates[every].tolist(), texts)
    return Section("Learning rate", "learning-rate", _GROUP, lead, (flat.axes.with_parts(lines=[line]),))


def _thinned(steps: np.ndarray, peak: np.intp) -> np.ndarray:
    """Return the places of at most about 200 of the steps, with the first, the last and the peak."""
    even = np.linspace(0, len(steps) - 1, min(len(steps), _POINTS)).astype(int)
    return np.union1d(even, [int(peak)])


def range_test_section(data: ReportData) -> Section | None:
    if data.range_test is None:
        return None
    card = data.range_card
    suggestions, chosen, sweeps = card.get("suggestions", {}), card.get("recommended"), _sweeps(card)
    lead = (
        "A copy of the model was trained while the learning rate grew from step to step: where the loss "
        "falls the rate serves, where it turns up the rate is too large."
    )
    if chosen in suggestions:
        lead += f" The recommended rate is {suggestions[chosen]:.3g}"
        if sweeps > 1:
            low, high = card["ranges"][chosen]
            lead += f", the median of {plural(sweeps, 'sweep')}, which range from {low:.3g} to {high:.3g}"
        lead += "."
    chart = _chart(data, "range_test", "Loss against learning rate in the range test")
    blocks = (chart, _readings(card)) if suggestions else (chart,)
    return Section("Learning-rate range test", "range-test", _GROUP, lead, blocks)


def _readings(card: dict[str, Any]) -> Table:
    columns = [Column("rule"), Column("rate", True)]
    rows = [[_RULES.get(name) or name, f"{rate:.3g}"] for name, rate in card["suggestions"].items()]
    if _sweeps(card) > 1:
        columns += [Column("lowest", True), Column("highest", True)]
        for row, name in zip(rows, card["suggestions"], strict=True):
            row += [f"{limit:.3g}" for limit in card["ranges"][name]]
    caption = f"What each rule reads off {plural(_sweeps(card), 'sweep')}"
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows))


def _sweeps(card: dict[str, Any]) -> int:
    return len(card.get("seeds", ())) if "ranges" in card else 1


def _chart(data: ReportData, name: str, alt: str, caption: str = "") -> Chart:
    return Chart(Picture(pictures.data_uri(svg(chart_drawings(data)[name]), "svg+xml"), alt), caption)
