"""How the training went: curves, learning rate, learning-rate range test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sightline.report.blocks import Block, Column, Heading, Section, SideBySide, Table
from sightline.report.formatting import count, learning_rate, number, percent, plural
from sightline.report.run_data import RunData
from sightline.report.svg import Box, Diagram, limits_of_losses, plane

_GROUP = "Training"
_CURVES = Heading("Loss and accuracy", "curves", _GROUP, terms=("Loss",))
_LEARNING_RATE = Heading("Learning rate", "learning-rate", _GROUP)
_RANGE_TEST = Heading("Learning-rate range test", "range-test", _GROUP, terms=("Learning-rate range test",))
_STYLES = {"train": "muted", "validation": "dashed", "test": "accent"}
_NAMES = {"train": "training", "validation": "validation", "test": "test"}
_POINTS = 200  # of a curve: as many as can be told apart
_RULES = {  # "trials" is in the files of earlier versions
    "trials": "half of the best learning rate of short trainings along the schedule",
    "steepest": "where the loss falls fastest",
    "valley": "the middle of the longest fall",
    "slide": "before the slope changes at the end",
    "minimum/10": "a tenth of the learning rate at the lowest loss",
}


def curves_section(run: RunData) -> Section | None:
    if run.history is None:
        return None
    last = run.history.iloc[-1]
    gap = 100 * abs(last["train_accuracy"] - last["test_accuracy"])
    lead = (
        f"After {plural(len(run.history), 'epoch')} the model is right on {percent(last['train_accuracy'])} "
        f"of the (augmented) training images and on {percent(last['test_accuracy'])} of the test images. "
        f"The difference is {gap:.1f} points."
    )
    loss = _curves(run.history, "loss", "Loss: mean cross-entropy per image")
    accuracy = _curves(run.history, "accuracy", "Accuracy")
    return Section(_CURVES, lead, (SideBySide((loss, accuracy)),))


def _curves(history: pd.DataFrame, quantity: str, caption: str) -> Diagram:
    splits = [split for split in _STYLES if f"{split}_{quantity}" in history]
    values = {split: history[f"{split}_{quantity}"].to_numpy(float) for split in splits}
    epochs, share = history["epoch"].to_numpy(float), quantity == "accuracy"
    finite = np.concatenate([line[np.isfinite(line)] for line in values.values()])
    low, high = float(finite.min(initial=1)), float(finite.max(initial=0))
    said = {split: [_said(value, share) for value in line] for split, line in values.items()}
    ends = ", ".join(f"{_NAMES[split]} {texts[-1]}" for split, texts in said.items())
    flat = plane(
        caption,
        f"{quantity.capitalize()} per epoch. In the last epoch: {ends}.",
        x=(min(1.0, epochs[0]), epochs[-1]),
        y=(min(low, 0.0) if not share else low, high),
        labels=("epoch", ""),
        whole=True,
        shares=(False, share),
        size=(460, 290),
    )
    lines = [
        flat.line(
            f"{_NAMES[split]} {said[split][-1]}",
            _STYLES[split],
            epochs.tolist(),
            line.tolist(),
            [
                f"epoch {epoch:.0f}, {_NAMES[split]} {text}"
                for epoch, text in zip(epochs, said[split], strict=True)
            ],
            dots=len(line) <= 30,
        )
        for split, line in values.items()
    ]
    return flat.drawn(lines=lines)


def _said(value: float, share: bool) -> str:
    return percent(value) if share else number(value)


def learning_rate_section(run: RunData) -> Section | None:
    if run.steps is None:
        return None
    rates, steps = run.steps["lr"].to_numpy(float), run.steps["step"].to_numpy(int)
    peak = rates.argmax()
    lead = (
        f"The learning rate peaks at {learning_rate(rates[peak])} in step {count(steps[peak])} of "
        f"{count(len(steps))} and ends at {learning_rate(rates[-1])}."
    )
    flat = plane(
        "",
        f"Learning rate per step: highest {learning_rate(rates[peak])}, at the end "
        f"{learning_rate(rates[-1])}.",
        x=(float(steps[0]), float(steps[-1])),
        y=(0.0, float(rates[peak])),
        labels=("step", "learning rate"),
        whole=True,
        size=(640, 270),
    )
    every = _thinned(steps, peak)
    texts = [
        f"step {count(step)}, learning rate {learning_rate(rate)}"
        for step, rate in zip(steps[every], rates[every], strict=True)
    ]
    line = flat.line("", "accent", steps[every].tolist(), rates[every].tolist(), texts)
    return Section(_LEARNING_RATE, lead, (flat.drawn(lines=[line]),))


def _thinned(steps: np.ndarray, peak: np.intp) -> np.ndarray:
    """Return the indices of at most about 200 of the steps, with the first, the last and the peak."""
    even = np.linspace(0, len(steps) - 1, min(len(steps), _POINTS)).astype(int)
    return np.union1d(even, [int(peak)])


_FAR = 3.0  # times apart: two learning rates of which the page says why


def range_test_section(run: RunData) -> Section | None:
    card = run.range_card
    suggestions, chosen, sweeps = card.get("suggestions", {}), card.get("recommended"), _sweeps(card)
    lead = [] if run.range_test is None else [
        "A copy of the model was trained while the learning rate grew from step to step. Where the loss "
        "falls, the learning rate is useful; where the loss turns up, it is too large."
    ]  # fmt: skip
    if chosen in suggestions:
        said = f"The suggested learning rate is {learning_rate(suggestions[chosen])}"
        if chosen in card.get("ranges", {}):
            low, high = (learning_rate(limit) for limit in card["ranges"][chosen])
            over = f", the median of {plural(sweeps, 'sweep')}" if chosen in _RULES else ""
            said += f"{over}, in a range from {low} to {high}"
        lead.append(f"{said}: {card['reason']}." if card.get("reason") else f"{said}.")
        if used := card.get("used"):
            lead.append(_used(float(used), float(suggestions[chosen])))
    if not lead:
        return None
    diagram = None if run.range_test is None else _range_test(run.range_test, card)
    blocks: list[Block] = [] if diagram is None else [diagram]
    if len(suggestions) > 1:
        blocks.append(_suggested(card))
    return Section(_RANGE_TEST, " ".join(lead), tuple(blocks))


def _used(used: float, suggested: float) -> str:
    """Say which of the two the training took, and why they may differ where they are far apart."""
    if used == suggested:
        return "The training used it."
    said = f"The training used the recipe's own learning rate, {learning_rate(used)}."
    times = max(used / suggested, suggested / used)
    if times <= _FAR:
        return said
    return (
        f"{said} The two differ {times:.1f} times. The suggestion knows the network, the optimizer and the "
        "batch size, and sees the first steps alone; what else a learning rate depends on, such as the "
        "number of epochs, its rise and decay, weight decay, augmentation and weight averaging, is in the "
        "recipe's own. Which one is better only two trainings can say."
    )


def _range_test(table: pd.DataFrame, card: dict[str, Any]) -> Diagram | None:
    """Draw the loss of every sweep, and the learning rates that the rules suggest; None without a loss."""
    sweeps = [part for _, part in table.groupby("seed", sort=False)] if "seed" in table else [table]
    start = max(float(sweep["smoothed"].iloc[0]) for sweep in sweeps)
    limits = limits_of_losses(table["loss"].to_numpy(float), table["smoothed"].to_numpy(float), start=start)
    rates = table["lr"].to_numpy(float)
    if limits is None or not rates.min() > 0:
        return None
    low, high = limits
    suggestions, chosen = card.get("suggestions", {}), card.get("recommended", "")
    flat = plane(
        "Thin: the loss of each batch. Thick: the same, smoothed. Vertical: "
        f"{'what each rule suggests' if len(suggestions) > 1 else 'the suggestion'}.",
        "Loss against learning rate in the range test. Suggested: "
        + ", ".join(f"{name} {learning_rate(rate)}" for name, rate in suggestions.items())
        + ".",
        x=(float(rates.min()), float(rates.max())),
        y=(low, high + 0.5 * (high - low) + 1e-3),  # room for the labels of the rules
        labels=("learning rate (log scale)", "loss"),
        log=True,
        size=(640, 360),
    )
    lines = [flat.line("", "thin", _values(sweep, "lr"), _values(sweep, "loss")) for sweep in sweeps]
    for sweep in sweeps:
        xs, ys = _values(sweep, "lr"), _values(sweep, "smoothed")
        texts = [
            f"learning rate {learning_rate(x)}, smoothed loss {number(y)}"
            for x, y in zip(xs, ys, strict=True)
        ]
        lines.append(flat.line("", "accent", xs, ys, texts))
    labels = {
        name: f"{name} {learning_rate(rate)}{', recommended' if name == chosen else ''}"
        for name, rate in suggestions.items()
    }
    marks = flat.marks(
        [(labels[name], rate) for name, rate in suggestions.items()], strong=labels.get(chosen, "")
    )
    return flat.drawn(boxes=_band(flat.x, card, flat.axes), lines=lines, marks=marks)


def _band(x: Any, card: dict[str, Any], axes: Diagram) -> tuple[Box, ...]:
    """The range of the recommended learning rate over several sweeps."""
    low, high = card.get("ranges", {}).get(card.get("recommended", ""), (0, 0))
    if not 0 < low < high:
        return ()
    left, right = max(x(low), axes.left), min(x(high), axes.right)
    return (Box(left, axes.top, round(max(right - left, 1), 2), axes.bottom - axes.top, "band"),)


def _values(table: pd.DataFrame, column: str) -> Sequence[float]:
    return table[column].to_numpy(float).tolist()


def _suggested(card: dict[str, Any]) -> Table:
    columns = [Column("Rule"), Column("Learning rate", True), Column("What it looks for")]
    rows = [[name, learning_rate(rate), _RULES.get(name, "")] for name, rate in card["suggestions"].items()]
    if _sweeps(card) > 1:
        columns[2:2] = [Column("Lowest", True), Column("Highest", True)]
        for row, name in zip(rows, card["suggestions"], strict=True):
            row[2:2] = [learning_rate(limit) for limit in card["ranges"][name]]
    caption = f"The learning rate that each rule suggests from {plural(_sweeps(card), 'sweep')}."
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows))


def _sweeps(card: dict[str, Any]) -> int:
    return len(card.get("seeds", ())) if "ranges" in card else 1
