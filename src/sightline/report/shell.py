"""From sections to a page: the one place that knows templates, the style, the script and the policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

import jinja2
from markupsafe import Markup

from sightline.errors import SightlineError
from sightline.report.payload import Payload
from sightline.report.sections import Section
from sightline.report.wording import short_name

MOST_BYTES = 12_000_000


def render_shell(
    name: str, sections: Sequence[Section], *, payload: Payload | None = None, scripts: Sequence[str] = ()
) -> str:
    """Return a page of sections as HTML; `scripts` are templates, run in this order on what `payload` holds.

    The policy in the page allows its one style and its one script, by their hashes, and no request.

    Raises SightlineError if the page would be larger than 12 MB.
    """
    styles = ["report.css", *(["interactive.css"] if scripts else [])]
    style = "\n".join(_template(sheet) for sheet in styles)
    script = _script(scripts) if scripts else ""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
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
        gallery="details.js" in scripts,
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


def _script(parts: Sequence[str]) -> str:
    """Return one script: its first part runs at once, the rest when the page is read and first painted."""
    first, *rest = (_template(part) for part in parts)
    later = "\n".join(rest)
    return f'"use strict";\n(() => {{\n{first}\nafterFirstPaint(() => {{\n{later}\n}});\n}})();\n'


def _template(name: str) -> str:
    return (resources.files("sightline.report") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _groups(sections: Sequence[Section]) -> dict[str, list[Section]]:
    groups: dict[str, list[Section]] = {}
    for section in sections:
        groups.setdefault(section.group, []).append(section)
    return groups
