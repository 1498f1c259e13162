"""How far the model's answers can be trusted: calibration, answering when confident, corrupted images."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.audit.result import ConformalSets, ReliabilityBin, RiskCurve, Robustness, Threshold
from sightline.predictions.scores import Score
from sightline.report.blocks import Block, Column, Details, Facts, Heading, Note, Section, Table, Tool
from sightline.report.formatting import (
    count,
    digits_of,
    interval_text,
    metric_name,
    number,
    page_name,
    percent,
    percent_digits,
    percent_range,
    plural,
)
from sightline.report.run_data import RunData
from sightline.report.svg import Box, Diagram, plane

_GROUP = "Trust"
CALIBRATION = Heading(
    *("Calibration", "calibration", _GROUP),
    terms=("Confidence", "Calibration error", "Reliability diagram", "Temperature", "Expected by chance"),
)
_SELECTIVE = Heading(
    *("Answer only when confident", "selective", _GROUP),
    terms=("Coverage", "Risk", "AURC, AUGRC", "Conformal set", "Held-out half"),
)
_ROBUSTNESS = Heading("Robustness", "robustness", _GROUP, terms=("Corruption", "Confidence interval"))


_FEWEST_OF_CLASS = 10  # images of which a coverage says anything
_METRICS = Heading("Metrics", "metrics", _GROUP, terms=("Confidence interval",))


def metrics_section(run: RunData) -> Section:
    found = run.scores
    columns = (
        Column("Metric"),
        Column("Value", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Interval"),
    )
    rows = [(metric_name(name), *_score_cells(one)) for name, one in found.overall.items()]
    own = "of the recipe, without an interval"
    rows += [(page_name(name), number(value), "–", own) for name, value in run.metrics.metrics.items()]
    missing = [
        f"{metric_name(name)}: {one.reason}." for name, one in found.overall.items() if one.value is None
    ]
    names = ("precision", "recall", "f1", "roc_auc", "average_precision")
    titles = ("Precision", "Recall", "F1", "ROC AUC", "Average precision")
    each = (
        Column("Class"),
        Column("Images", numeric=True),
        *(Column(title, numeric=True) for title in titles),
    )
    cells = tuple(
        (page_name(one.name), count(one.images), *(_short_score(one.scores[name]) for name in names))
        for one in found.classes
    )
    lead = f"{found.why} " if found.why else "Do all metrics tell the same story? "
    lead += "A class without test images does not count in a mean over classes."
    caption = "Each class against the rest, with 95\u00a0% intervals; – is not defined."
    blocks: list[Block] = [
        Table("Metrics of the test split. Shares of images have Wilson intervals.", columns, tuple(rows)),
        *([Note(" ".join(missing))] if missing else []),
        Details("Metrics of each class", (Table(caption, each, cells),)),
    ]
    return Section(_METRICS, lead, tuple(blocks))


def _score_cells(score: Score) -> tuple[str, str, str]:
    if score.value is None:
        return "–", "–", score.reason
    if score.low is None or score.high is None:
        return number(score.value), "–", score.reason
    digits = digits_of((score.low, score.high))
    return (
        f"{score.value:.{digits}f}",
        f"{score.low:.{digits}f} to {score.high:.{digits}f}".replace("-", "−"),
        score.interval,
    )


def _short_score(score: Score) -> str:
    if score.value is None:
        return "–"
    if score.low is None or score.high is None:
        return number(score.value)
    return interval_text(score.value, score.low, score.high)


def calibration_section(run: RunData) -> Section:
    found = run.audit.calibration
    bins = [one for one in found.reliability if one.count]
    gap = run.predictions.confidence.mean() - run.predictions.correct.mean()
    verdict = "It is more confident than it is right" if gap > 0 else "It is less confident than it is right"
    if found.ece <= found.noise_high:
        verdict = "As far as this many images can tell, yes"
    lead = (
        f"When the model says 80\u00a0%, is it right in 80\u00a0% of the cases? {verdict}: the calibration "
        f"error is {percent(found.ece)}. A perfectly calibrated model would show "
        f"{percent(found.noise_mean)} by chance."
    )
    rows = [
        ("Calibration error, bins of equal width", percent(found.ece)),
        ("Calibration error, bins of equal count", percent(found.ece_equal_mass)),
        ("Expected by chance", f"{percent(found.noise_mean)}, at most {percent(found.noise_high)}"),
        ("Mean cross-entropy", number(found.nll)),
    ]
    if found.temperature is not None:
        rows.append(("Best temperature", number(found.temperature)))
    if found.ece_after is not None and found.nll_after is not None:
        rows.append(("Calibration error with a temperature", percent(found.ece_after)))
        rows.append(("Mean cross-entropy with a temperature", number(found.nll_after)))
    return Section(CALIBRATION, lead, (_reliability(bins), Facts(tuple(rows))))


def _reliability(bins: Sequence[ReliabilityBin]) -> Diagram:
    """Draw the bins, all of which hold images."""
    total = sum(one.count for one in bins)
    confidence = [one.confidence or 0.0 for one in bins]
    accuracy = [one.accuracy or 0.0 for one in bins]
    said = []
    for one, sure, right in zip(bins, confidence, accuracy, strict=True):
        digits = percent_digits(one.interval)
        said.append(
            f"confidence {percent(sure, digits=0)}, right {percent(right, digits=digits)} "
            f"({percent_range(*one.interval, digits=digits)}), {plural(one.count, 'image')}"
        )
    flat = plane(
        "On the dashed line the model is as right as it is confident; below it, too confident. "
        "Grey bars: share of images.",
        f"Reliability diagram of {plural(len(bins), 'bin')}: {'; '.join(said)}.",
        x=(0, 1),
        y=(0, 1),
        labels=("confidence", "share right"),
        shares=(True, True),
        size=(460, 380),
    )
    boxes = []
    for one, sure, text in zip(bins, confidence, said, strict=True):
        left, right, base = flat.x(one.low), flat.x(one.high), flat.y(0)
        high = flat.y(one.count / total)
        boxes.append(Box(left + 0.5, high, max(right - left - 1, 1), round(base - high, 2), text=text))
        low, high = (flat.y(bound) for bound in one.interval)
        boxes.append(Box(flat.x(sure) - 1, high, 2, round(low - high, 2), "interval"))
    lines = (
        flat.line("", "dashed", (0, 1), (0, 1)),
        flat.line("", "accent", confidence, accuracy, said, dots=True),
    )
    return flat.drawn(boxes=boxes, lines=lines)


def selective_section(run: RunData) -> Section:
    found = run.audit.selective
    lead = (
        "What if the model may say “I don't know”? Move the threshold to see how many images it leaves to "
        "people, and how many of its answers are still wrong."
    )
    blocks: list[Block] = [_risk_curve(found.curve), Tool("threshold")]
    if found.thresholds:
        blocks.append(_thresholds(found.thresholds))
    if run.audit.conformal:
        blocks.append(_sets(run.audit.conformal, run.class_names))
        blocks += _why_empty(run.audit.conformal)
    areas = (("AURC (area under the curve)", number(found.aurc)), ("AUGRC", number(found.augrc)))
    return Section(_SELECTIVE, lead, (*blocks, Facts(areas)))


def _risk_curve(curve: RiskCurve) -> Diagram:
    texts = [
        f"{percent(coverage, digits=0)} answered, {percent(risk)} of the answers wrong, from confidence "
        f"{number(threshold)}"
        for coverage, risk, threshold in zip(curve.coverage, curve.risk, curve.threshold, strict=True)
    ]
    half = len(curve.risk) // 2
    flat = plane(
        "The share of wrong answers, when the model answers only the images of which it is most confident.",
        f"Risk-coverage curve: {percent(curve.risk[-1])} wrong when all images are answered, "
        f"{percent(curve.risk[half])} when {percent(curve.coverage[half], digits=0)} are.",
        x=(0, 1),
        y=(0, max(*curve.risk, 0.01)),
        labels=("share of images answered", "share of answers wrong"),
        shares=(True, True),
    )
    return flat.drawn(lines=[flat.line("", "accent", curve.coverage, curve.risk, texts)], live="risk-curve")


def _thresholds(rows: Sequence[Threshold]) -> Table:
    columns = (
        Column("Wanted error"),
        Column("Answer from confidence", numeric=True),
        Column("Images answered", numeric=True),
        Column("Error on the held-out half", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Guaranteed"),
    )
    cells = []
    for one in rows:
        digits = percent_digits(one.interval)
        cells.append(
            (
                percent(one.wanted_error, digits=0),
                number(one.threshold),
                percent(one.coverage, digits=0),
                percent(one.error, digits=digits),
                percent_range(*one.interval, digits=digits),
                "yes" if one.guaranteed else f"no, up to {percent(one.bound, digits=digits)}",
            )
        )
    caption = "Thresholds that were chosen on one half of the test images and checked on the held-out half."
    return Table(caption, columns, tuple(cells))


def _sets(rows: Sequence[ConformalSets], class_names: Sequence[str]) -> Table:
    columns = (
        Column("Wanted: label in the set"),
        Column("Measured", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Classes per set", numeric=True),
        Column("One class", numeric=True),
        Column("No class", numeric=True),
        Column("Lowest of a class"),
    )
    digits = percent_digits(*(one.interval for one in rows))
    cells = tuple(
        (
            percent(one.coverage, digits=0),
            percent(one.realised, digits=digits),
            percent_range(*one.interval, digits=digits),
            f"{one.mean_size:.2f}",
            percent(one.single, digits=0),
            percent(one.empty, digits=0),
            _worst(one, class_names),
        )
        for one in rows
    )
    caption = (
        "Conformal sets: all classes of an image that are probable enough, checked on the held-out half. The "
        "promise is for the mean of all classes; the last column says what became of the worst."
    )
    return Table(caption, columns, cells)


def _why_empty(rows: Sequence[ConformalSets]) -> list[Note]:
    """What a set without a class means, where sets have fewer than one class on the average."""
    small = [one for one in rows if one.mean_size < 1]
    if not small:
        return []
    one = max(small, key=lambda row: row.empty)
    return [
        Note(
            f"{percent(one.empty, digits=0)} of the sets that should hold the label for "
            f"{percent(one.coverage, digits=0)} of the images have no class: not even the most "
            "probable class of such an image is probable enough. A model that is right more often than is "
            "asked for meets the promise without the images of which it is least sure. Read an empty set "
            "as “I don't know”."
        )
    ]


def _worst(sets: ConformalSets, class_names: Sequence[str]) -> str:
    """The class whose label is in its sets least often, of those with enough images to say so."""
    known = [
        (one.realised, one.label)
        for one in sets.per_class
        if one.realised is not None and one.count >= _FEWEST_OF_CLASS
    ]
    if not known:
        return "–"
    share, label = min(known)
    return f"{percent(share, digits=0)} ({page_name(class_names[label])})"


def robustness_section(run: RunData) -> Section | None:
    found = run.audit.robustness
    if found is None or not found.rows:
        return None
    names = list(dict.fromkeys(row.name for row in found.rows))
    worst = {name: max(row.error for row in found.rows if row.name == name) for name in names}
    names.sort(key=lambda name: -worst[name])
    digits = percent_digits(found.interval)
    lead = (
        f"On {plural(found.n, 'image')} the error is {percent(found.clean, digits=digits)} without "
        f"corruption and {percent(found.mean, digits=digits)} with it, on average. The worst is "
        f"{_spaced(names[0])}."
    )
    return Section(_ROBUSTNESS, lead, (_errors(found, names, worst),))


def _errors(found: Robustness, names: Sequence[str], worst: dict[str, float]) -> Diagram:
    """Draw a row of dots for each corruption, the worst on top."""
    flat = plane(
        "One row for each corruption, the worst first. Its dots are growing severities; dashed: without "
        "corruption.",
        f"Error by corruption; without corruption {percent(found.clean)}; "
        + ", ".join(f"{_spaced(name)} up to {percent(worst[name])}" for name in names)
        + ".",
        x=(0, min(1.0, 1.05 * max(*worst.values(), found.clean, 0.01))),
        y=(len(names) - 0.4, -0.6),
        labels=("share of images wrong", ""),
        shares=(True, False),
        size=(640, 66 + 26 * len(names)),
        names=[page_name(_spaced(name), limit=20) for name in names],
    )
    lines = [flat.line("", "dashed", (found.clean,) * 2, (-0.6, len(names) - 0.4))]
    for place, name in enumerate(names):
        rows = sorted((row for row in found.rows if row.name == name), key=lambda row: row.severity)
        texts = [
            f"{_spaced(name)}, severity {row.severity}: {percent(row.error)} wrong "
            f"({percent_range(*row.interval)})"
            for row in rows
        ]
        lines.append(
            flat.line("", "accent", [row.error for row in rows], [place] * len(rows), texts, dots=True)
        )
    return flat.drawn(lines=lines)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
