"""The page of a small run, pinned byte by byte, and the glossary of the docs. To renew both:

    python tests/renew_gold.py

Left out are pictures, whose bytes follow the version of an encoder, packed numbers, whose last bit follows
the processor, and style and script, which have tests of their own and change for other reasons.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from report_audit_fixture import add_audit
from report_fixture import predictions_of, write_run

from sightline.report import read_run, render_page
from sightline.report.glossary import glossary_markdown

GOLD = Path(__file__).parent / "data" / "gold" / "report.html"
_DOCS = Path(__file__).parents[1] / "docs" / "glossary.md"


def gold_page(folder: Path) -> str:
    """Return the page of a run that is made in `folder`, without pictures, style and script."""
    run = add_audit(
        write_run(folder / "gold-1", predictions=predictions_of(n=60), mistakes=2), epochs=3, grid=3
    )
    page = render_page(read_run(run))
    page = re.sub(r"<style>.*?</style>", "<style></style>", page, flags=re.S)
    page = re.sub(r"<script>.*?</script>", "<script></script>", page, flags=re.S)
    page = re.sub(r"sha256-[\w+/=]+", "sha256-", page)
    page = re.sub(r"(data:image/\w+;base64,)[\w+/=]+", r"\1", page)
    return re.sub(r'(<script type="text/plain" id="[^"]+">)[\w+/=]+', r"\1", page)


if __name__ == "__main__":
    GOLD.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        GOLD.write_text(gold_page(Path(made)), encoding="utf-8")
    _DOCS.write_text(glossary_markdown(), encoding="utf-8")
