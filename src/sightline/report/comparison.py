"""What changed from one run to another, image by image: a page of its own.

write_comparison("runs/shapes-quick-1", "runs/shapes-quick-2", compare_predictions(a, b), "comparison.html")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.audit import Comparison
from sightline.errors import InputError
from sightline.files import write_text
from sightline.report.blocks import Block, Column, Facts, Heading, Headline, Note, Section, Table, Tool
from sightline.report.formatting import (
    class_keys,
    count,
    digits_of,
    metric_name,
    p_value,
    page_name,
    percent,
    plural,
    short_name,
)
from sightline.report.gallery import (
    COLORS,
    TEST_PIXELS,
    Columns,
    Payload,
    add_colors,
    add_maps,
    add_sprites,
    blank_sprites,
    make_sprites,
    reduced_maps,
)
from sightline.report.page import render_shell
from sightline.report.run_data import RunData, read_run

GROUPS = ("fixed", "broken", "churned")
_GROUP = "Comparison"
_SUMMARY = Heading("Summary", "summary", _GROUP, terms=("Churn", "McNemar's test", "Confidence interval"))
_CHANGES = Heading("What changed", "changes", _GROUP, terms=("Churn", "Heat map", "Confidence"))
_METRICS = Heading("Metrics", "metrics", _GROUP, terms=("Confidence interval",))
_CLASSES = Heading("Accuracy per class", "per-class", _GROUP, terms=("Confidence interval",))
_GROUP_LIMIT = 3_000  # images


@dataclass(frozen=True)
class Rows:
    """The images compared, by their indices in the test split of each run, (N,) each."""

    a: np.ndarray
    b: np.ndarray


def write_comparison(
    folder_a: str | Path,
    folder_b: str | Path,
    found: Comparison,
    path: str | Path,
    *,
    rows: Rows | None = None,
) -> Path:
    """Write the page that compares run B with run A.

    Args:
        folder_a: Of run A.
        folder_b: Of run B.
        found: What changed; its images are numbered among the images compared.
        path: Of the page.
        rows: The images compared; by default all, which then have to be the same.

    Returns:
        The path of the page.

    Raises:
        InputError: The runs have other classes or test images.
        NotFoundError: A folder or its predictions are missing.
        DamagedFileError: A file of a run cannot be read.
        WriteError: The page cannot be written.
    """
    page = render_comparison(read_run(folder_a), read_run(folder_b), found, rows=rows)
    write_text(Path(path), page)
    return Path(path)


def render_comparison(a: RunData, b: RunData, found: Comparison, *, rows: Rows | None = None) -> str:
    """Return the page that compares run B with run A as HTML; see `write_comparison`."""
    same = a.class_names == b.class_names
    if not same or (rows is None and not np.array_equal(a.predictions.labels, b.predictions.labels)):
        raise InputError(
            f"the runs {a.name} and {b.name} were tested on other images or labels; compare runs on the "
            "same data"
        )
    if rows is None:
        every = np.arange(len(a.predictions))
        rows = Rows(every, every)
    sections = [_summary(a, b, found), _changes(a), _metrics(found), _classes(found)]
    title = f"{short_name(a.name, limit=36)} → {short_name(b.name, limit=36)}"
    return render_shell(title, sections, payload=_payload(a, b, found, rows), entry="comparison")


def _summary(a: RunData, b: RunData, found: Comparison) -> Section:
    change, (low, high) = 100 * found.difference, (100 * bound for bound in found.interval)
    digits = digits_of((low, high), largest=2)
    word = "better" if change > 0 else "worse"
    lead = f"B is {word} than A on these test images."
    if found.p >= 0.05 or not change:
        lead = (
            "These test images do not tell which run is better: as many answers may have changed by chance."
        )
    headline = Headline(
        _signed(change, digits),
        f"points of accuracy, from {percent(found.accuracy_a, digits=digits)} to "
        f"{percent(found.accuracy_b, digits=digits)}",
        f"95\u00a0% interval {_signed(low, digits)} to {_signed(high, digits)} points; McNemar's test "
        f"{p_value(found.p)}",
    )
    facts = Facts(
        (
            ("A", page_name(a.name)),
            ("B", page_name(b.name)),
            ("Fixed: wrong in A, right in B", plural(len(found.fixed), "image")),
            ("Broken: right in A, wrong in B", plural(len(found.broken), "image")),
            ("Churned: wrong in both, in different ways", plural(len(found.churned), "image")),
        )
    )
    return Section(_SUMMARY, lead, (headline, facts))


def _changes(a: RunData) -> Section:
    lead = (
        "Each image with the answers of A and B and where each looked. Does B look at the object more than "
        "A, or did the answers change by chance?"
    )
    blocks: tuple[Block, ...] = (Tool("changes"),)
    if a.pictures is None:
        blocks = (Note(f"{page_name(a.name)} keeps no pictures. sightline audit RUN adds them."), *blocks)
    return Section(_CHANGES, lead, blocks)


def _metrics(found: Comparison) -> Section:
    columns = (
        Column("Metric"),
        *(Column(name, numeric=True) for name in ("A", "B", "Change", "95\u00a0% interval")),
    )
    cells = []
    for name, change in found.metrics.items():
        digits = 3
        if change.low is not None and change.high is not None:
            digits = digits_of((change.low, change.high), largest=4)
        a, b = ("–" if one is None else f"{one:.{digits}f}" for one in (change.a, change.b))
        if change.difference is None or change.low is None or change.high is None:
            cells.append((metric_name(name), a, b, "–", "–"))
            continue
        span = f"{_signed(change.low, digits)} to {_signed(change.high, digits)}"
        cells.append((metric_name(name), a, b, _signed(change.difference, digits), span))
    lead = "Do the other metrics say the same? Loss and Brier score are better where they are lower."
    caption = "Metrics of both runs on the same images. Intervals: paired, stratified bootstrap."
    return Section(_METRICS, lead, (Table(caption, columns, tuple(cells)),))


def _classes(found: Comparison) -> Section:
    table = found.per_class.query("count > 0").sort_values("difference", kind="stable")
    columns = (
        Column("Class"),
        Column("A", numeric=True),
        Column("B", numeric=True),
        Column("Change, points", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Images", numeric=True),
    )
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    digits = digits_of(*((100 * row["interval_low"], 100 * row["interval_high"]) for row in rows), largest=2)
    cells = tuple(
        (
            page_name(str(row["label"])),
            percent(row["a"], digits=digits),
            percent(row["b"], digits=digits),
            _signed(100 * row["difference"], digits),
            f"{_signed(100 * row['interval_low'], digits)} to {_signed(100 * row['interval_high'], digits)}",
            count(row["count"]),
        )
        for row in rows
    )
    lead = "Which classes gained, and which lost? The largest loss comes first."
    return Section(
        _CLASSES, lead, (Table("Share of the test images of the class that is right.", columns, cells),)
    )


def _signed(value: float, digits: int) -> str:
    """
    >>> _signed(-1.25, 1), _signed(0.5, 2), _signed(-0.001, 1)
    ('−1.2', '+0.50', '0.0')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def _payload(a: RunData, b: RunData, found: Comparison, rows: Rows) -> Payload:
    groups = {name: np.asarray(getattr(found, name), np.int64)[:_GROUP_LIMIT] for name in GROUPS}
    changed = np.concatenate(list(groups.values()))
    own = {"a": rows.a[changed], "b": rows.b[changed]}
    columns, blobs = Columns(), {}
    add_colors(columns)
    columns.add_integers("test.index", own["a"])
    columns.add_integers("test.label", b.predictions.labels[own["b"]])
    columns.add_integers(
        "test.group", np.repeat(np.arange(len(GROUPS)), [len(one) for one in groups.values()])
    )
    grids = {}
    for side, run in (("a", a), ("b", b)):
        columns.add_integers(f"test.{side}", run.predictions.predicted[own[side]])
        columns.add_floats(f"test.{side}_sure", run.predictions.confidence[own[side]])
        if run.pictures and run.pictures.maps_predicted is not None:
            maps = reduced_maps(run.pictures.maps_predicted[own[side]], 2 * len(changed))
            add_maps(columns, side, maps)
            grids[side] = list(maps.shape[1:])
    sprites = blank_sprites()
    if a.pictures:
        sprites = make_sprites(a.pictures.thumbnails[own["a"]], limit=TEST_PIXELS)
    manifest = {
        "names": [page_name(name) for name in a.class_names],
        "keys": class_keys(a.class_names),
        "groups": GROUPS,
        "totals": [len(getattr(found, name)) for name in GROUPS],
        "grids": grids,
        "sprites": {"test": add_sprites(blobs, "test", sprites)},
        "columns": columns.places,
        "enums": {"colors": COLORS},
    }
    return Payload(manifest, {"columns": columns.base64, **blobs}, pictures=a.pictures is not None)
