"""The written report: one file, whatever the run's folder holds and its classes are called."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from report_fixture import predictions_of, write_run

from sightline.errors import SightlineError
from sightline.predictions.table import Predictions
from sightline.report import write_report

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
OPTIONAL = (
    *("history.csv", "steps.csv", "range_test.csv", "range_test.json"),
    *("samples.npz", "explanations.npz", "explanations.json"),
)


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
        if not self.tags or self.tags[-1][0] != "style" or "{" not in data:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "demo-1")
    write_report(folder)
    return folder


def test_every_figure_is_a_png(run):
    files = {path.stem: path.read_bytes() for path in (run / "figures").iterdir()}
    assert set(files) == FIGURES
    assert all(content.startswith(b"\x89PNG") for content in files.values())


def test_the_same_folder_gives_the_same_bytes(run, tmp_path):
    again = write_report(run, tmp_path / "again.html")
    assert again.read_bytes() == (run / "report.html").read_bytes()


def test_the_page_is_sound(run):
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(link["href"].removeprefix("#") in ids for link in page.all("a"))
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"
    assert not page.all("script")
    assert not any("style" in attributes for _, attributes in page.tags)
    policy = page.all("meta")[1]["content"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_numbers_on_the_page_are_those_of_the_table(run):
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    predictions = predictions_of()
    wrong = int((~predictions.correct).sum())
    assert f"{100 * (200 - wrong) / 200:.2f}\u00a0% of 200 test images right" in page.text.replace(
        " %", "\u00a0%"
    )
    worst = np.sort(predictions.loss[~predictions.correct])[-1]
    assert f"loss {worst:.3f}" in page.text
    assert "no positive evidence" in page.text
    assert "not finite" in page.text
    assert "train/cat/broken.png: not an image" in page.text
    assert "the mark is used" in page.text
    assert "About the published figures: six views of each image" in page.text
    assert "sightline run shapes-quick" in page.text


def test_hostile_names_stay_text(tmp_path):
    folder = write_run(tmp_path / "<img src=x>", predictions=predictions_of(HOSTILE))
    (folder / "recipe.toml").write_text('name = "</pre><script>alert(2)</script>"\n', encoding="utf-8")
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert not page.all("script")
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert "<script>alert(1)</script>" in page.text
    assert "<script>alert(2)</script>" in page.text
    assert "$x$" in page.text
    assert "\u202e" not in html
    assert "\x00" not in html
    assert "x" * 400 not in html


@pytest.mark.parametrize("classes", [2, 100])
def test_two_and_a_hundred_classes(classes, tmp_path):
    names = tuple(f"class {c}" for c in range(classes))
    folder = write_run(tmp_path / "run", predictions=predictions_of(names, n=4 * classes, seed=2), mistakes=2)
    page = page_of(folder)
    matrices = [table for table in page.all("table") if table.get("class") == "matrix"]
    assert len(matrices) == (1 if classes == 2 else 0)
    assert all(name in page.text for name in names)


def test_a_section_goes_with_its_file(tmp_path):
    folder = write_run(tmp_path / "run")
    for name in OPTIONAL:
        (folder / name).unlink()
    page = page_of(folder)
    anchors = [attributes["id"] for attributes in page.all("section")]
    assert anchors == [
        *("summary", "planted-truth", "accuracy-per-class", "confusion-matrix", "confused-pairs"),
        *("most-costly-mistakes", "data", "model", "how-this-was-made"),
    ]
    assert "the run kept no pictures of them" in page.text
    predictions = predictions_of()
    worst = int(np.argmax(np.where(predictions.correct, -1, predictions.loss)))
    assert f"{worst} {predictions.class_names[predictions.labels[worst]]}" in page.text


def test_no_samples_asked_for_is_no_section(tmp_path):
    folder = write_run(tmp_path / "run")
    names = ("images", "labels", "augmented", "augmented_one")
    np.savez(folder / "samples.npz", **dict.fromkeys(names, np.zeros((0, 8, 8, 3), np.uint8)))
    assert "Sample images" not in page_of(folder).text


def test_a_model_without_mistakes(tmp_path):
    labels = np.arange(20) % 3
    perfect = Predictions(10 * np.eye(4, dtype=np.float32)[labels], labels, ("a", "b", "c", "never seen"))
    page = page_of(write_run(tmp_path / "run", predictions=perfect))
    assert "No test image was misclassified" in page.text
    assert "1 class without test images." in page.text


@pytest.mark.parametrize(
    "name",
    ["recipe.toml", "environment.json", "model.json", "data.json", "metrics.json", "predictions.parquet"],
)
def test_a_missing_file_is_named_in_one_line(name, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(
        SightlineError, match=rf"{name} is missing; name the folder of a finished run"
    ) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["model.json", "history.csv", "samples.npz", "explanations.npz", "recipe.toml"]
)
def test_a_torn_file_is_named_in_one_line(name, tmp_path):
    folder = write_run(tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:15])
    with pytest.raises(SightlineError, match=rf"{name} cannot be read \(.+\); delete it") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_files_of_different_runs_are_refused(tmp_path):
    folder = write_run(tmp_path / "run")
    write_run(tmp_path / "other", predictions=predictions_of(n=40))
    shutil.copy(tmp_path / "other" / "predictions.parquet", folder)
    with pytest.raises(SightlineError, match="the files are of different runs: analyze the run again"):
        write_report(folder)


def test_no_folder_and_no_room_are_said(tmp_path):
    with pytest.raises(SightlineError, match="is not a folder; name the folder of a finished run"):
        write_report(tmp_path / "nowhere")
    folder = write_run(tmp_path / "run")
    with pytest.raises(SightlineError, match=r"cannot be written to .*No such file"):
        write_report(folder, tmp_path / "missing" / "report.html")


def test_large_pictures_are_reduced(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (20, 300, 200, 3), dtype=np.uint8)
    folder = write_run(tmp_path / "run", predictions=predictions_of(n=20), test_images=pictures, mistakes=2)
    assert write_report(folder).stat().st_size < 3_000_000


def test_a_page_of_twenty_mistakes_stays_small(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    folder = write_run(tmp_path / "run", predictions=predictions_of(), test_images=pictures, mistakes=20)
    assert write_report(folder).stat().st_size < 3_000_000


def test_the_report_needs_no_torch(run):
    code = (
        "import sys; from sightline.report import write_report; write_report(sys.argv[1]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)
