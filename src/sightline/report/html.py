"""The report: one file that opens from disk, asks no network and runs no script.

write_report("runs/shapes-quick-1")
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from sightline.errors import SightlineError
from sightline.files import write_text
from sightline.report import belief, explained, inputs, learning, mistakes, overview
from sightline.report.figures import write_figures
from sightline.report.load import ReportData, load_report_data
from sightline.report.sections import Section
from sightline.report.wording import short_name

# What went wrong comes before how it was trained: this is the order in which one reads.
SECTIONS = (
    overview.summary_section,
    overview.planted_section,
    mistakes.class_section,
    mistakes.confusion_section,
    mistakes.pairs_section,
    mistakes.costly_section,
    explained.mistakes_section,
    explained.correct_section,
    belief.belief_section,
    learning.curves_section,
    learning.learning_rate_section,
    learning.range_test_section,
    inputs.samples_section,
    inputs.augmented_section,
    inputs.data_section,
    inputs.model_section,
    overview.provenance_section,
)


def write_report(run_folder: str | Path, path: str | Path | None = None) -> Path:
    """Draw a run's `figures/*.png` and write its report; return the report's path.

    path: the HTML file, RUN/report.html by default. The same folder gives the same bytes: nothing but
    the run's files is read, no model is run, and torch is not imported.

    Raises SightlineError if a file of the run is missing or damaged, or the report cannot be written.
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
    """Return the page as HTML."""
    sections = [section for make in SECTIONS if (section := make(data)) is not None]
    templates = resources.files("sightline.report") / "templates"
    style = (templates / "report.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        title=short_name(data.name, most=80),
        sections=sections,
        groups=_groups(sections),
        style=Markup(style),
        style_source=f"sha256-{digest}",
    )


def _groups(sections: list[Section]) -> dict[str, list[Section]]:
    groups: dict[str, list[Section]] = {}
    for section in sections:
        groups.setdefault(section.group, []).append(section)
    return groups
