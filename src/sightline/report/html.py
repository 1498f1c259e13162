"""The report: one file that opens from disk and asks no network.

write_report("runs/shapes-quick-1")

A run without an audit gives a page without script; with an audit, the page's own script draws the gallery.
"""

from __future__ import annotations

from pathlib import Path

from sightline.errors import SightlineError
from sightline.files import write_text
from sightline.report import belief, evidence, explained, inputs, learning, mistakes, overview, repair, trust
from sightline.report.audit_blocks import Tool
from sightline.report.figures import write_figures
from sightline.report.gallery_data import gallery_payload
from sightline.report.load import ReportData, load_report_data
from sightline.report.sections import Section
from sightline.report.shell import render_shell
from sightline.report.wording import plural

_SCRIPTS = (
    *("page.js", "payload.js", "heat.js", "pictures.js", "address.js", "decisions.js"),
    *("gallery.js", "details.js", "threshold.js", "report.js"),
)
_LAST = (
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
# What went wrong comes before how it was trained: this is the order in which one reads.
SECTIONS = (
    overview.planted_section,
    mistakes.class_section,
    mistakes.confusion_section,
    mistakes.pairs_section,
    mistakes.costly_section,
    explained.mistakes_section,
    explained.correct_section,
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
    repair.fixes_section,
    repair.budget_section,
    gallery_section,
    mistakes.confusion_section,
    evidence.confusions_section,
    mistakes.class_section,
    evidence.difficulty_section,
    evidence.suspects_section,
    evidence.duplicates_section,
    evidence.slices_section,
    trust.calibration_section,
    trust.selective_section,
    trust.robustness_section,
    overview.planted_section,
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
    summary = overview.summary_section(data, frozenset(section.anchor for section in rest))
    if data.audit is None:
        return render_shell(data.name, [summary, *rest])
    return render_shell(data.name, [summary, *rest], payload=gallery_payload(data), scripts=_SCRIPTS)
