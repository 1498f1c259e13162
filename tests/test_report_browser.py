"""The report in a real browser: quiet, offline, and as wide as its window."""

from __future__ import annotations

import pytest
from report_fixture import predictions_of, write_run

from sightline.report import write_report

pytestmark = pytest.mark.browser

NAMES = (
    "<script>alert(1)</script>",
    '$x$ & "quotes"',
    "שלום",
    "x" * 10_000,
    *(f"class {c}" for c in range(10)),
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "demo", predictions=predictions_of(NAMES))
    return write_report(folder).as_uri()


@pytest.fixture
def visit(browser, address):
    """Open the report in a window of a width; return the page with what it asked for and complained about."""
    contexts = []

    def open_at(width: int, scheme: str):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        return page, [url for url in asked if not url.startswith("data:")], said

    yield open_at
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("width", "scheme"), [(360, "light"), (768, "dark"), (1280, "light"), (1280, "dark")]
)
def test_no_request_no_complaint_no_sideways_scrolling(visit, address, width, scheme):
    page, asked, said = visit(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert asked == [address]
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert page.evaluate(broken) == 0


def test_the_first_tab_stop_skips_to_the_summary(visit):
    page, _, _ = visit(1280, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#summary"


def test_text_stands_out_in_light_and_dark(visit):
    for scheme in ("light", "dark"):
        page, _, _ = visit(1280, scheme)
        for selector in ("h1", ".lead", ".findings a", "nav a", "figcaption"):
            colors = page.evaluate(
                "s => [document.body, document.querySelector(s)].map((e, i) =>"
                " getComputedStyle(e)[i ? 'color' : 'backgroundColor'].match(/[0-9]+/g).map(Number))",
                selector,
            )
            assert _contrast(*colors) >= 4.5, (scheme, selector)


def _contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio of two sRGB colours, WCAG 2.2."""

    def luminance(color: list[int]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
