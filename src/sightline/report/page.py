"""The report: one file that opens from disk and asks no network.

write_report("runs/shapes-quick-1")

A run without an audit gives a page without script; with an audit, the page's own script draws the gallery.

From sections to a page: the one place that knows templates, the style, the script and the policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from sightline.errors import SightlineError
from sightline.files import write_text
from sightline.report.blocks import Section, Tool
from sightline.report.bundle import MODULES, bundle
from sightline.report.figures import write_figures
from sightline.report.formatting import plural, short_name
from sightline.report.gallery import Payload, gallery_payload
from sightline.report.run_data import ReportData, load_report_data
from sightline.report.sections import (
    causes,
    data,
    explanations,
    fixes,
    mistakes,
    reliability,
    summary,
    training,
)

MOST_BYTES = 12_000_000


def render_shell(
    name: str, sections: Sequence[Section], *, payload: Payload | None = None, entry: str = ""
) -> str:
    """Return a page of sections as HTML; `entry` names the script of `bundle.PAGES` that reads `payload`.

    The policy in the page allows its one style and its one script, by their hashes, and no request.

    Raises SightlineError if the page would be larger than 12 MB.
    """
    styles = ["report.css", *(["interactive.css"] if entry else [])]
    style = "\n".join(_asset(f"css/{sheet}") for sheet in styles)
    script = _script(entry) if entry else ""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda template: _asset(f"html/{template}")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        title=short_name(name, most=80),
        sections=sections,
        groups=_groups(sections),
        style=Markup(style),
        style_source=_digest(style),
        script=Markup(script),
        script_source=_digest(script) if script else "",
        gallery=entry == "report",
        manifest=Markup(payload.json) if payload else "",
        blobs={name: Markup(text) for name, text in payload.blobs.items()} if payload else {},
    )
    size = len(page.encode())
    if size > MOST_BYTES:
        raise SightlineError(
            f"the page would take {size / 1e6:.1f} MB and at most {MOST_BYTES / 1e6:.0f} MB open well; "
            "analyze fewer or smaller test images (recipe: data.limit, data.image_size)"
        )
    return page


def _script(entry: str) -> str:
    """Return the script of a page: a wheel carries it ready, a checkout has the modules it is made of."""
    ready = resources.files("sightline.report") / "assets" / f"{entry}.bundle.js"
    return ready.read_text(encoding="utf-8") if ready.is_file() else bundle(MODULES / f"{entry}.js")


def _asset(name: str) -> str:
    return (resources.files("sightline.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _groups(sections: Sequence[Section]) -> dict[str, list[Section]]:
    groups: dict[str, list[Section]] = {}
    for section in sections:
        groups.setdefault(section.group, []).append(section)
    return groups


_LAST = (
    explanations.belief_section,
    training.curves_section,
    training.learning_rate_section,
    training.range_test_section,
    data.samples_section,
    data.augmented_section,
    data.data_section,
    data.model_section,
    summary.provenance_section,
)
# What went wrong comes before how it was trained: this is the order in which one reads.
SECTIONS = (
    summary.planted_section,
    mistakes.class_section,
    mistakes.confusion_section,
    mistakes.pairs_section,
    mistakes.costly_section,
    explanations.mistakes_section,
    explanations.correct_section,
    *_LAST,
)


def gallery_section(data: ReportData) -> Section:
    """Return the section of the gallery; its script fills it, and without one it says so."""
    lead = (
        f"All {plural(len(data.predictions), 'test image')}, the costliest mistakes first: filter them, open "
        "one to see where the model looked, and decide what becomes of it."
    )
    return Section("Gallery", "gallery", "Mistakes", lead, (Tool("gallery"),))


# With an audit, the gallery takes the place of the fixed pictures of mistakes and their maps.
AUDITED = (
    fixes.fixes_section,
    fixes.budget_section,
    gallery_section,
    mistakes.confusion_section,
    causes.confusions_section,
    mistakes.class_section,
    causes.difficulty_section,
    causes.suspects_section,
    causes.duplicates_section,
    causes.slices_section,
    reliability.calibration_section,
    reliability.selective_section,
    reliability.robustness_section,
    summary.planted_section,
    *_LAST,
)


def write_report(run_folder: str | Path, path: str | Path | None = None) -> Path:
    """Draw a run's `figures/*.png` and write its report; return the report's path.

    path: the HTML file, RUN/report.html by default. The same folder gives the same bytes: nothing but
    the run's files is read, no model is run, and torch is not imported.

    Raises SightlineError if a file of the run is missing or damaged, or the report cannot be written or
    would be larger than 12 MB.
    """
    folder = Path(run_folder)
    data = load_report_data(folder)
    target = folder / "report.html" if path is None else Path(path)
    page = render_page(data)
    try:
        write_figures(data, folder / "figures")
        write_text(target, page)
    except OSError as error:
        raise SightlineError(
            f"the report cannot be written to {error.filename or target} ({error.strerror}); "
            "make room or choose another path"
        ) from error
    return target


def render_page(data: ReportData) -> str:
    """Return the page as HTML.

    Raises SightlineError if it would be larger than 12 MB.
    """
    rest = [section for make in (AUDITED if data.audit else SECTIONS) if (section := make(data)) is not None]
    first = summary.summary_section(data, frozenset(section.anchor for section in rest))
    if data.audit is None:
        return render_shell(data.name, [first, *rest])
    return render_shell(data.name, [first, *rest], payload=gallery_payload(data), entry="report")
