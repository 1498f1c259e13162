"""The written report: one file, whatever the run's folder holds and its classes are called."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from renew_gold import GOLD, gold_page
from report_audit_fixture import add_audit
from report_fixture import predictions_of, write_run
from test_report_run_data import OPTIONAL

from sightline.errors import InputError, NotFoundError, WriteError
from sightline.predictions.table import Predictions
from sightline.report import page, read_run, render_page, write_report
from sightline.report.glossary import TERMS, glossary_markdown

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'single' $x$",
    "שלום\u202eabc",
    "x" * 10_000,
    "猫",
    "#c2\x00",
)
FIGURES = {
    *("samples", "augmented", "augmented_one", "learning_rate", "range_test", "loss", "accuracy"),
    *("accuracy_per_class", "confusion", "mistakes", "mistakes_maps", "correct_maps"),
}


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if not self.tags or self.tags[-1][0] not in ("style", "script") or not data.strip():
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "bare-1")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = add_audit(write_run(tmp_path_factory.mktemp("runs") / "demo-1"))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(run):
    return (run / "report.html").read_text(encoding="utf-8")


def test_every_figure_is_a_png(run):
    files = {path.stem: path.read_bytes() for path in (run / "figures").iterdir()}
    assert set(files) == FIGURES
    assert all(content.startswith(b"\x89PNG") for content in files.values())


def test_the_same_folder_gives_the_same_bytes(run, tmp_path):
    again = write_report(run, tmp_path / "again.html")
    assert again.read_bytes() == (run / "report.html").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="line ends of files differ")
def test_the_page_is_the_gold_file(tmp_path):
    """To renew it: python tests/renew_gold.py"""
    assert gold_page(tmp_path) == GOLD.read_text(encoding="utf-8"), "renew with: python tests/renew_gold.py"


def test_the_page_is_sound(html):
    page = Page(html)
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    before_dialogs = html[: html.index("<dialog")]
    levels = [int(level) for level in re.findall(r"<h([1-6])", before_dialogs)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"


def test_one_style_and_one_script_are_allowed_by_their_hashes(html):
    page = Page(html)
    policy = page.all("meta")[1]["content"]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "img-src data: blob:" in policy
    assert "unsafe" not in policy
    assert len(script.encode()) < 90_000
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(|https?://(?!www\.w3\.org/2000/svg)",
        script,
    )
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any("style" in attributes for _, attributes in page.tags)


def test_every_link_leads_to_a_part_or_a_view(html):
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        target = (link.get("href") or "").removeprefix("#")
        assert target in ids or re.fullmatch(r"(\w+=[^&=]+&?)+", target), link


def test_sections_stand_in_the_order_in_which_one_reads(html):
    anchors = [attributes["id"] for attributes in Page(html).all("section")]
    assert anchors == [
        *("summary", "mistakes-with-maps", "fixes", "error-budget", "gallery", "map"),
        "confusion-matrix",
        *("confused-pairs", "accuracy-per-class", "difficulty", "label-issues", "near-duplicates", "slices"),
        *("metrics", "calibration", "selective", "robustness", "ground-truth", "correct-with-maps", "curves"),
        *("learning-rate", "range-test", "samples", "augmented", "data", "model", "how-this-was-made"),
    ]


def test_a_question_mark_shows_the_glossary_and_the_docs_have_it_too(html):
    used = set(re.findall(r"<dt>([^<]+)</dt><dd>", html)) & set(TERMS)
    assert len(TERMS) <= 40
    assert set(TERMS) - used <= {"Churn", "McNemar's test"} | {
        *("Baseline map", "Deletion, insertion", "Faithful map", "Grid pointing game", "ROAD", "AURC, AUGRC"),
    }
    assert list(TERMS) == sorted(TERMS, key=str.lower)
    docs = Path(__file__).parents[1] / "docs" / "glossary.md"
    assert docs.read_text(encoding="utf-8") == glossary_markdown(), "renew with: python tests/renew_gold.py"


def test_numbers_on_the_page_are_those_of_the_table(bare):
    page = page_of(bare)
    predictions = predictions_of()
    wrong = int((~predictions.correct).sum())
    share = f"{100 * (200 - wrong) / 200:.1f}\u00a0%"
    assert f"{share} of 200 test images right" in page.text.replace(" %", "\u00a0%")
    worst = np.sort(predictions.loss[~predictions.correct])[-1]
    assert f"loss {worst:.2f}" in page.text
    assert "no positive evidence" in page.text
    assert "not finite" in page.text
    assert "train/cat/broken.png: not an image" in page.text
    assert "the mark is used" in page.text
    assert "About the published figures: six views of each image" in page.text
    assert "sightline run shapes-quick" in page.text


def test_a_page_without_an_audit_has_the_audit_of_its_predictions_and_says_so(bare):
    page = page_of(bare)
    anchors = [attributes["id"] for attributes in page.all("section")]
    assert {"mistakes-with-maps", "error-budget", "gallery", "calibration", "selective"} <= set(anchors)
    assert not {"near-duplicates", "robustness"} & set(anchors)
    assert "No pictures here: this audit is of the predictions alone." in page.text


def test_predictions_alone_make_a_page(tmp_path):
    folder = write_run(tmp_path / "run")
    for name in OPTIONAL:
        (folder / name).unlink()
    anchors = [attributes["id"] for attributes in page_of(folder).all("section")]
    gone = {"mistakes-with-maps", "curves", "range-test", "samples", "data", "model", "how-this-was-made"}
    assert not gone & set(anchors)
    assert {"summary", "gallery", "confusion-matrix", "calibration"} <= set(anchors)


def test_hostile_names_stay_text(tmp_path):
    folder = write_run(tmp_path / "<img src=x>", predictions=predictions_of(HOSTILE))
    (folder / "recipe.toml").write_text('name = "</pre><script>alert(2)</script>"\n', encoding="utf-8")
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    for word in ("alert(1)", "alert(2)"):
        assert f"<script>{word}" not in html
        assert f"<script>{word}</script>" in page.text
    assert "$x$" in page.text
    assert "\u202e" not in html
    assert "\x00" not in html
    assert "x" * 400 not in html


@pytest.mark.parametrize("classes", [2, 100, 120])
def test_two_a_hundred_and_more_classes(classes, tmp_path):
    names = tuple(f"class {c}" for c in range(classes))
    folder = write_run(tmp_path / "run", predictions=predictions_of(names, n=4 * classes, seed=2), mistakes=2)
    page = page_of(folder)
    kinds = [
        table.get("class") for table in page.all("table") if (table.get("class") or "").startswith("matrix")
    ]
    drawn = [figure for figure in page.all("figure") if figure.get("class") == "matrix-map"]
    assert kinds == {2: ["matrix"], 100: ["matrix dense"], 120: []}[classes]
    assert len(drawn) == (classes > 100)
    assert all(name in page.text for name in names)


DEGENERATE = {
    "one test image": Predictions(np.array([[2.0, 1.0]], np.float32), np.array([1]), ("a", "b")),
    "one right test image": Predictions(np.array([[1.0, 2.0]], np.float32), np.array([1]), ("a", "b")),
    "two test images": Predictions(np.array([[1.0, 2.0], [3, 1]], np.float32), np.array([1, 1]), ("a", "b")),
    "one class": Predictions(np.zeros((5, 1), np.float32), np.zeros(5, int), ("only",)),
    "one class tested": Predictions(
        np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32), np.ones(9, int), ("a", "b", "c")
    ),
    "no mistakes": Predictions(
        10 * np.eye(4, dtype=np.float32)[np.arange(20) % 3], np.arange(20) % 3, ("a", "b", "c", "never seen")
    ),
    "all mistakes": Predictions(
        10 * np.eye(3, dtype=np.float32)[np.arange(21) % 3], (np.arange(21) + 1) % 3, tuple("abc")
    ),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_runs_get_their_page(name, tmp_path):
    predictions = DEGENERATE[name]
    page = page_of(write_run(tmp_path / "run", predictions=predictions, mistakes=2))
    wrong = int((~predictions.correct).sum())
    assert f"{wrong} mistake{'s' if wrong != 1 else ''} in {len(predictions)} test image" in page.text
    assert "nan" not in page.text.lower().split()
    assert ("No test image is misclassified" in page.text) == (wrong == 0)
    if name == "no mistakes":
        assert "1 class has no test image." in page.text
    if name == "one class tested":
        assert "All test images are of one class, b." in page.text


def test_no_samples_asked_for_is_no_section(tmp_path):
    folder = write_run(tmp_path / "run")
    names = ("images", "labels", "augmented", "augmented_one")
    arrays = dict.fromkeys(names, np.zeros((0, 8, 8, 3), np.uint8)) | {"labels": np.zeros(0, np.int64)}
    np.savez(folder / "samples.npz", **arrays)
    assert "Sample images" not in page_of(folder).text


def test_nothing_is_written_when_a_file_cannot_be_read(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "samples.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"samples\.npz cannot be read"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_no_folder_and_no_room_are_said(tmp_path):
    with pytest.raises(NotFoundError, match="is not a folder; name the folder of a finished run"):
        write_report(tmp_path / "nowhere")
    folder = write_run(tmp_path / "run")
    with pytest.raises(WriteError, match=r"report.html cannot be written \(No such file"):
        write_report(folder, tmp_path / "missing" / "report.html")


def test_a_page_that_would_be_too_large_is_refused(run, monkeypatch):
    monkeypatch.setattr(page, "BYTES_LIMIT", 100_000)
    with pytest.raises(
        InputError, match=r"the page would take 0\.\d MB and at most 0 MB open well; show fewer"
    ):
        render_page(read_run(run))


def test_large_pictures_are_reduced(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (20, 300, 200, 3), dtype=np.uint8)
    folder = write_run(tmp_path / "run", predictions=predictions_of(n=20), test_images=pictures, mistakes=2)
    assert write_report(folder).stat().st_size < 3_000_000


def test_a_page_of_twenty_mistakes_stays_small(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    folder = write_run(tmp_path / "run", predictions=predictions_of(), test_images=pictures, mistakes=20)
    assert write_report(folder).stat().st_size < 3_000_000


def test_the_page_needs_neither_torch_nor_matplotlib_to_be_imported(run):
    code = (
        "import sys; import sightline.report.page; assert not {'torch', 'matplotlib'} & set(sys.modules); "
        "from sightline.report import write_report; write_report(sys.argv[1]); assert 'torch' not in "
        "sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)
