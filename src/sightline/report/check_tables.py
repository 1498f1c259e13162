"""A check of a run as people and machines read it: cells of a table, Markdown, JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from collections.abc import Sequence

from sightline.audit.rules import COUNTS, CheckedRule, CheckResult, Verdict
from sightline.report.formatting import count, digits_of, plural, short_name

HEADINGS = ("rule", "verdict", "value", "95 % interval", "images", "note")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKS = re.compile(r"([\\`*_{}\[\]<>|~#&@!])")


def check_cells(one: CheckedRule) -> tuple[str, ...]:
    """Return the cells of a rule's row, in the order of `HEADINGS`."""
    value = interval = "–"
    if one.value is not None:
        low, high = one.interval or (one.value, one.value)
        counted = one.rule.startswith(COUNTS)
        digits = 0 if counted else digits_of((low, high), largest=4)
        value = f"{one.value:.{digits}f}"
        interval = f"{low:.{digits}f} to {high:.{digits}f}" if one.interval else "–"
    images = count(one.images) if one.images else "–"
    return short_name(one.rule, limit=120), str(one.verdict), value, interval, images, check_note(one)


def check_note(one: CheckedRule) -> str:
    """Return how a rule was measured, and what would decide it."""
    decides = f"about {plural(one.needed, 'image')} would decide it at this value" if one.needed else ""
    return "; ".join(part for part in (decides, short_name(one.note, limit=200) if one.note else "") if part)


def check_lead(found: CheckResult) -> str:
    """Return the result in one sentence."""
    counts = {one: sum(rule.verdict is one for rule in found.rules) for one in Verdict}
    words = ", ".join(f"{number} {one}" for one, number in counts.items() if number)
    default = "; no rules were given, so these are the default ones" if found.default else ""
    return f"{found.verdict}: {words} of {plural(len(found.rules), 'rule')}{default}"


def check_markdown(found: CheckResult) -> str:
    """Return the result as a table in GitHub's Markdown; no name in it becomes markup."""
    base = f" against {_plain(found.base)}" if found.base else ""
    lines = [f"### {_plain(found.run)}{base}: {_plain(check_lead(found))}", ""]
    lines += [_row(HEADINGS), _row(["---"] * len(HEADINGS))]
    lines += [_row([_plain(cell) for cell in check_cells(one)]) for one in found.rules]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def check_junit(found: CheckResult) -> str:
    """Return the result as JUnit XML: a failed rule is a failure, an undecided one is skipped."""
    counts = {one: str(sum(rule.verdict is one for rule in found.rules)) for one in Verdict}
    numbers = {
        "tests": str(len(found.rules)),
        "failures": counts[Verdict.FAILED],
        "skipped": counts[Verdict.UNDECIDED],
        "errors": "0",
    }
    root = xml.Element("testsuites", {"name": "sightline check", **numbers})
    suite = xml.SubElement(root, "testsuite", {"name": _xml(found.run), **numbers})
    for one in found.rules:
        case = xml.SubElement(suite, "testcase", {"classname": "sightline.check", "name": _xml(one.rule)})
        _, _, value, interval, images, note = check_cells(one)
        said = _xml(f"{value} ({interval}) on {images} images" + (f"; {note}" if note else ""))
        if one.verdict is Verdict.PASSED:
            xml.SubElement(case, "system-out").text = said
        else:
            tag = "failure" if one.verdict is Verdict.FAILED else "skipped"
            xml.SubElement(case, tag, {"message": f"{one.verdict}: {said}"})
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Text without the characters that no XML file may hold."""
    return _NOT_XML.sub(" ", text)
