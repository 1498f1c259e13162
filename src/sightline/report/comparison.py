"""What changed from one run to another, image by image: a page of its own.

write_comparison("runs/shapes-quick-1", "runs/shapes-quick-2", numbers, "comparison.html")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import SightlineError
from sightline.files import write_text
from sightline.report.blocks import Block, Column, Facts, Headline, Section, Table, Tool
from sightline.report.formatting import class_keys, count, number, page_name, percent, plural, short_name
from sightline.report.gallery import (
    COLORS,
    TEST_PIXELS,
    Columns,
    Payload,
    add_colors,
    add_maps,
    add_sprites,
    make_sprites,
    reduced_maps,
)
from sightline.report.page import render_shell
from sightline.report.run_data import ReportData, load_report_data

GROUPS = ("fixed", "broken", "churned")
_MOST_PER_GROUP = 3_000


def write_comparison(
    folder_a: str | Path, folder_b: str | Path, numbers: Mapping[str, Any], path: str | Path
) -> Path:
    """Write the page that compares run B with run A; return its path.

    numbers: what changed, as plain data. `fixed` (wrong in A, right in B), `broken` (the other way) and
    `churned` (wrong in both, differently): places in the test split. `accuracy`: a, b and difference, with
    the difference's interval, in [0, 1]. `mcnemar`: p. `per_class`: label (the
    name), count, a, b, difference (None for a class without images), interval_low, interval_high. `rows`:
    where images were dropped, the places "a" and "b" in the runs' own splits of the images compared.

    Raises SightlineError if a run has no audit, the runs have other test images, or the page cannot be
    written.
    """
    page = render_comparison(load_report_data(folder_a), load_report_data(folder_b), numbers)
    try:
        write_text(Path(path), page)
    except OSError as error:
        raise SightlineError(
            f"the comparison cannot be written to {path} ({error.strerror}); make room or choose another path"
        ) from error
    return Path(path)


def render_comparison(a: ReportData, b: ReportData, numbers: Mapping[str, Any]) -> str:
    """Return the page that compares run B with run A as HTML; see `write_comparison`."""
    for run in (a, b):
        if run.audit is None:
            raise SightlineError(f"the run {run.name} has no audit; audit it first: sightline audit RUN")
    if a.class_names != b.class_names or (
        "rows" not in numbers and not np.array_equal(a.predictions.labels, b.predictions.labels)
    ):
        raise SightlineError(
            f"the runs {a.name} and {b.name} were tested on other images or labels; compare runs on the "
            "same data"
        )
    sections = [_summary(a, b, numbers), _images(numbers), _classes(numbers)]
    title = f"{short_name(a.name, most=36)} → {short_name(b.name, most=36)}"
    return render_shell(title, sections, payload=_payload(a, b, numbers), entry="comparison")


def _summary(a: ReportData, b: ReportData, numbers: Mapping[str, Any]) -> Section:
    accuracy, test = numbers["accuracy"], numbers["mcnemar"]
    low, high = (100 * bound for bound in accuracy["interval"])
    change = 100 * accuracy["difference"]
    sure = test["p"] < 0.05
    word = "better" if change > 0 else "worse" if change < 0 else "no different"
    lead = (
        f"B is {word} than A by this test set."
        if sure and change
        else "On this test set the two cannot be told apart: as many images may have changed by chance."
    )
    headline = Headline(
        _signed(change, 2),
        f"points of accuracy, from {percent(accuracy['a'], digits=2)} to {percent(accuracy['b'], digits=2)}",
        f"95\u00a0% interval {_signed(low, 2)} to {_signed(high, 2)} points; McNemar p {number(test['p'])}",
    )
    facts = Facts(
        (
            ("A", page_name(a.name)),
            ("B", page_name(b.name)),
            ("Fixed: wrong in A, right in B", plural(len(numbers["fixed"]), "image")),
            ("Broken: right in A, wrong in B", plural(len(numbers["broken"]), "image")),
            ("Churned: wrong in both, differently", plural(len(numbers["churned"]), "image")),
        )
    )
    return Section("Summary", "summary", "Comparison", lead, (headline, facts))


def _images(numbers: Mapping[str, Any]) -> Section:
    lead = (
        "Each image with what A and B said and where each looked: does B look at the object more than A did, "
        "or did the answers change by chance?"
    )
    return Section("What changed", "changes", "Comparison", lead, (Tool("changes"),))


def _classes(numbers: Mapping[str, Any]) -> Section:
    tested = [row for row in numbers["per_class"] if row["count"]]
    rows = sorted(tested, key=lambda row: row["difference"])
    columns = (
        Column("Class"),
        Column("A", numeric=True),
        Column("B", numeric=True),
        Column("Change, points", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Images", numeric=True),
    )
    cells = tuple(
        (
            page_name(str(row["label"])),
            percent(row["a"]),
            percent(row["b"]),
            _signed(100 * row["difference"], 1),
            f"{_signed(100 * row['interval_low'], 1)} to {_signed(100 * row['interval_high'], 1)}",
            count(row["count"]),
        )
        for row in rows
    )
    lead = "Which classes gained and which paid for it; the largest loss comes first."
    block: Block = Table("Share of the class's test images that is right.", columns, cells)
    return Section("Per class", "per-class", "Comparison", lead, (block,))


def _signed(value: float, digits: int) -> str:
    """
    >>> _signed(-1.25, 1), _signed(0.5, 2)
    ('−1.2', '+0.50')
    """
    return f"{value:+.{digits}f}".replace("-", "−")


def _payload(a: ReportData, b: ReportData, numbers: Mapping[str, Any]) -> Payload:
    assert a.audit is not None
    assert b.audit is not None
    groups = {name: np.asarray(numbers[name], np.int64)[:_MOST_PER_GROUP] for name in GROUPS}
    rows = np.concatenate(list(groups.values()))
    own = {side: np.asarray(places)[rows] for side, places in numbers.get("rows", {}).items()}
    own = own or {"a": rows, "b": rows}
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
        arrays = run.audit.arrays if run.audit else {}
        if "maps_predicted" in arrays:
            maps = reduced_maps(arrays["maps_predicted"][own[side]], 2 * len(rows))
            add_maps(columns, side, maps)
            grids[side] = list(maps.shape[1:])
    sprites = make_sprites(a.audit.arrays["thumbnails"][own["a"]], most_pixels=TEST_PIXELS)
    manifest = {
        "names": [page_name(name) for name in a.class_names],
        "keys": class_keys(a.class_names),
        "groups": GROUPS,
        "totals": [len(numbers[name]) for name in GROUPS],
        "grids": grids,
        "sprites": {"test": add_sprites(blobs, "test", sprites)},
        "columns": columns.places,
        "enums": {"colors": COLORS},
    }
    return Payload(manifest, {"columns": columns.base64, **blobs})
