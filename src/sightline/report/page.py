"""The report: one file that opens from disk and asks no network.

    write_report("runs/shapes-quick-1")

From a run's data to sections, and from sections to HTML: the one place that knows templates, styles, scripts
and the policy of the page.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from sightline.errors import DamagedFileError, InputError, InputTypeError, SightlineError
from sightline.extensions import resolve
from sightline.files import hold, write_text
from sightline.report.blocks import Section
from sightline.report.bundle import MODULES, bundle
from sightline.report.formatting import short_name
from sightline.report.gallery import Payload, gallery_payload
from sightline.report.glossary import TERMS
from sightline.report.run_data import RunData, read_run
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

BYTES_LIMIT = 12_000_000

SectionMaker = Callable[[RunData], Section | None]

# What went wrong comes before how it was trained: this is the order in which one reads. The summary is put
# first; sections of the user and the record of how the run was made come last.
SECTIONS: tuple[SectionMaker, ...] = (
    explanations.mistakes_section,
    fixes.fixes_section,
    fixes.budget_section,
    mistakes.gallery_section,
    mistakes.map_section,
    mistakes.confusion_section,
    mistakes.pairs_section,
    mistakes.class_section,
    mistakes.difficulty_section,
    causes.label_issues_section,
    causes.duplicates_section,
    causes.slices_section,
    reliability.metrics_section,
    reliability.calibration_section,
    reliability.selective_section,
    reliability.robustness_section,
    summary.ground_truth_section,
    explanations.faithfulness_section,
    explanations.correct_section,
    training.curves_section,
    training.learning_rate_section,
    training.range_test_section,
    data.samples_section,
    data.augmented_section,
    data.data_section,
    data.model_section,
)


def write_report(
    run_folder: str | Path,
    path: str | Path | None = None,
    *,
    sections: Sequence[SectionMaker | str] = (),
    images: int | None = None,
) -> Path:
    """Draw a run's `figures/*.png` and write its report.

    The same folder gives the same bytes: nothing but the run's files is read, no model is run, and torch is
    not imported. A run without an audit gets one of its predictions alone.

    Args:
        run_folder: With predictions.parquet at least.
        path: The HTML file, RUN/report.html by default.
        sections: Further sections: functions from the run's data to a `Section`, or to None for no section;
            or their names, of plugins or as "package.module:function".
        images: How many images of each split the page has at most, for a smaller file: mistakes and what a
            finding names come first, then a sample of the rest. None for 20,000. Numbers are always of all.

    Returns:
        The path of the report.

    Raises:
        NotFoundError: The folder or its predictions are missing.
        BusyError: Another process writes into the folder.
        DamagedFileError: A file of the run cannot be read.
        InputError: The report would be larger than 12 MB, or a section of `sections` cannot be made.
        WriteError: The report cannot be written.
    """
    from sightline.report.figures import write_figures  # matplotlib, which the page does not need

    folder = Path(run_folder)
    target = folder / "report.html" if path is None else Path(path)
    if images is not None and images < 1:
        raise InputError(f"images is {images}; a page needs at least 1 test image")
    makers = [resolve("section", one, {}) for one in sections]
    with hold(folder):
        try:
            run = read_run(folder)
            page = render_page(run, sections=makers, images=images)
        except SightlineError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            # Each file can be read and says something of another shape than it has to.
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            raise DamagedFileError(
                f"the files of {folder} do not fit together ({reason}); analyze and audit the run again"
            ) from error
        write_figures(run, folder / "figures")
        write_text(target, page)
    return target


# What shows its all at once. The other sections say one sentence each, and the rest opens on demand.
_OPEN = frozenset({
    *("mistakes-with-maps", "fixes", "gallery", "map", "confusion-matrix"),
    *("label-issues", "near-duplicates", "slices"),
})  # fmt: skip


def _folded(section: Section) -> Section:
    return section if section.heading.anchor in _OPEN else dataclasses.replace(section, folded=True)


def render_page(run: RunData, *, sections: Sequence[SectionMaker] = (), images: int | None = None) -> str:
    """Return the page of a run as HTML; `sections` make further ones, before the record of how it was made.

    Raises:
        InputError: It would be larger than 12 MB, or one of `sections` cannot be made.
    """
    own = [functools.partial(_made, one) for one in sections]
    rest = [_folded(section) for make in SECTIONS if (section := make(run)) is not None]
    rest += [section for make in own if (section := make(run)) is not None]
    rest += [_folded(section) for section in [summary.provenance_section(run)] if section is not None]
    first = summary.summary_section(run, frozenset(section.heading.anchor for section in rest))
    return render_shell(run.name, [first, *rest], payload=gallery_payload(run, most=images), entry="report")


def _made(make: SectionMaker, run: RunData) -> Section | None:
    """A user's section, or one line that says whose function failed."""
    name = getattr(make, "__qualname__", repr(make))
    try:
        section = make(run)
    except SightlineError:
        raise
    except Exception as error:
        raise InputError(
            f"section {name!r} failed ({type(error).__name__}: {error}); mend its function, or leave it out"
        ) from error
    if section is not None and not isinstance(section, Section):
        raise InputTypeError(
            f"section {name!r} returned a {type(section).__name__}; it has to return a Section or None"
        )
    return section


def render_shell(name: str, sections: Sequence[Section], *, payload: Payload, entry: str) -> str:
    """Return a page of sections as HTML; `entry` names the script of `bundle.PAGES` that reads `payload`.

    The policy in the page allows its one style and its one script, by their hashes, and no request.

    Raises:
        InputError: The page would be larger than 12 MB.
    """
    style = "\n".join(_asset(f"css/{sheet}.css") for sheet in ("report", "interactive"))
    script = _script(entry)
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=short_name(name, limit=80),
            sections=sections,
            groups=_groups(sections),
            terms=TERMS,
            style=Markup(style),
            style_source=_digest(style),
            script=Markup(script),
            script_source=_digest(script),
            gallery=entry == "report",
            pictures=payload.pictures,
            manifest=Markup(payload.json),
            blobs={name: Markup(text) for name, text in payload.blobs.items()},
        )
    )
    size = len(page.encode())
    if size > BYTES_LIMIT:
        raise InputError(
            f"the page would take {size / 1e6:.1f} MB and at most {BYTES_LIMIT / 1e6:.0f} MB open well; "
            "show fewer test images: sightline report RUN --images 5000"
        )
    return page


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda template: _asset(f"html/{template}")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
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
        groups.setdefault(section.heading.group, []).append(section)
    return groups
