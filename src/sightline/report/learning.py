"""How the training went: curves, learning rate, range test."""

from __future__ import annotations

from sightline.report import pictures
from sightline.report.canvas import svg
from sightline.report.figures import chart_drawings
from sightline.report.load import ReportData
from sightline.report.sections import Chart, Picture, Section, SideBySide
from sightline.report.wording import count, percent, plural

_GROUP = "Training"


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
    loss = _chart(data, "loss", "Loss per epoch, training and test", "Loss: mean cross-entropy per image")
    accuracy = _chart(data, "accuracy", "Accuracy per epoch, training and test", "Accuracy")
    return Section("Loss and accuracy", "curves", _GROUP, lead, (SideBySide((loss, accuracy)),))


def learning_rate_section(data: ReportData) -> Section | None:
    if data.steps is None:
        return None
    rates, steps = data.steps["lr"].to_numpy(float), data.steps["step"].to_numpy(int)
    peak = rates.argmax()
    lead = (
        f"The rate of every one of {count(len(steps))} iterations: it peaks at {rates[peak]:.3g} in "
        f"iteration {count(steps[peak])} and ends at {rates[-1]:.3g}."
    )
    chart = _chart(data, "learning_rate", "Learning rate per iteration")
    return Section("Learning rate", "learning-rate", _GROUP, lead, (chart,))


def range_test_section(data: ReportData) -> Section | None:
    if data.range_test is None:
        return None
    lead = "A good peak rate lies where the loss falls fastest, well before it turns up."
    if data.suggestions:
        points = ", ".join(f"{name} {value:.3g}" for name, value in data.suggestions.items())
        lead = f"{lead} The rules of thumb say: {points}."
    chart = _chart(data, "range_test", "Loss against learning rate in the range test")
    return Section("Learning-rate range test", "range-test", _GROUP, lead, (chart,))


def _chart(data: ReportData, name: str, alt: str, caption: str = "") -> Chart:
    return Chart(Picture(pictures.data_uri(svg(chart_drawings(data)[name]), "svg+xml"), alt), caption)
