"""The moving picture of the first screen: a page, opened and used in a headless browser.

    python docs/tour.py runs/latest/report.html docs/_static/tour.webp

Needs playwright and a Chromium (`CHROMIUM` names its program, /usr/bin/chromium otherwise).
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

SIZE = (1120, 700)
SHOWN = (896, 560)


class Film:
    """Screenshots of a page, each with how long it is shown."""

    def __init__(self, page: Page):
        self.page = page
        self.frames: list[Image.Image] = []
        self.milliseconds: list[int] = []

    def shot(self, milliseconds: int) -> None:
        """Take one picture of the page as it is now."""
        self.page.wait_for_timeout(120)
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self.frames.append(picture.resize(SHOWN, Image.Resampling.LANCZOS))
        self.milliseconds.append(milliseconds)

    def scroll_to(self, selector: str, steps: int = 4) -> None:
        """Move there in a few pictures, so that the eye can follow."""
        start = self.page.evaluate("window.scrollY")
        top = "e => e.getBoundingClientRect().top + window.scrollY - 70"
        end = self.page.eval_on_selector(selector, top)
        for step in range(1, steps + 1):
            self.page.evaluate(f"window.scrollTo(0, {start + (end - start) * step / steps})")
            self.shot(90 if step < steps else 1800)

    def save(self, path: Path) -> None:
        first, *rest = self.frames
        path.parent.mkdir(parents=True, exist_ok=True)
        first.save(
            path, save_all=True, append_images=rest, duration=self.milliseconds, loop=0, quality=60, method=6
        )


def main() -> None:
    source, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with sync_playwright() as browsers:
        program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = browsers.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        page.goto(source.as_uri())
        page.wait_for_timeout(1200)
        film = Film(page)
        film.shot(2600)
        film.scroll_to("#mistakes-with-maps")
        page.click("#mistakes-with-maps a[href^='#img']")
        film.shot(2600)
        page.keyboard.press("Escape")
        film.scroll_to("#confusion-matrix")
        film.scroll_to("#label-issues")
        page.click("#label-issues a[href^='#']")
        film.shot(1600)
        page.keyboard.press("1")
        film.shot(2000)
        film.save(target)
        browser.close()
    print(f"{target}: {len(film.frames)} pictures, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
