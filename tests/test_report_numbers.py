"""The report's numbers against hand-computed values and slow loops."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_fixture import NAMES, predictions_of, write_run

from sightline.report import charts, load_report_data
from sightline.report.charts import png, svg
from sightline.report.formatting import page_name, short_name
from sightline.report.sections.explanations import maps_doubt
from sightline.report.sections.explanations import mistakes_section as maps_of_mistakes
from sightline.report.sections.mistakes import class_section, confusion_section, costly_section, pairs_section
from sightline.report.sections.summary import summary_section
from sightline.stats import wilson_interval


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_report_data(write_run(tmp_path_factory.mktemp("runs") / "run"))


def test_wilson_interval_equals_the_textbook_value():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_interval_solves_the_score_equation():
    z = 1.959963984540054
    for bound in wilson_interval(13, 40):
        assert abs(13 / 40 - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / 40), rel=1e-12)


def test_wilson_interval_of_nothing_is_everything():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_summary_counts_by_hand(data):
    wrong = sum(int(row.argmax() != label) for row, label in zip(*_arrays(data), strict=True))
    headline, facts, *_ = summary_section(data).blocks
    assert headline.value == f"{100 * (200 - wrong) / 200:.2f}\u00a0%"
    assert ("Mistakes", f"{wrong} of 200") in facts.rows
    loss = [
        math.log(sum(math.exp(z) for z in row)) - row[label]
        for row, label in zip(*_arrays(data), strict=True)
    ]
    assert ("Mean test loss", f"{sum(loss) / 200:.3f}") in facts.rows


@pytest.mark.parametrize(
    ("drawn", "verdict", "told"),
    [
        ("grad_cam", "better than random; no better than edges", True),
        ("hires_cam", "better than random; no better than edges", True),
        ("grad_cam", "better than every control", False),
        ("my_own", "no better than any control", False),
    ],
)
def test_maps_that_a_control_equals_are_warned_of(data, drawn, verdict, told):
    methods = [{"name": "grad_cam", "verdict": verdict}, {"name": "eigen_cam", "verdict": "worse than edges"}]
    found = {"methods": methods, "coincide": {"hires_cam": "grad_cam"}, "images": 64, "best": "eigen_cam"}
    sentence = maps_doubt(dataclasses.replace(data, faithfulness=found, method_name=drawn))
    assert (f"on 64 images Grad-CAM was {verdict}." in sentence) == told
    assert bool(sentence) == told
    assert "analysis.method" not in sentence
    methods[1]["verdict"] = "better than every control"
    sentence = maps_doubt(dataclasses.replace(data, faithfulness=found, method_name=drawn))
    assert ("--set analysis.method=eigen_cam draws with it." in sentence) == told


def test_summary_names_the_weakest_class(data):
    logits, labels = _arrays(data)
    shares = [float(np.mean(logits[labels == c].argmax(axis=1) == c)) for c in range(4)]
    findings = next(b for b in summary_section(data).blocks if b.kind == "findings")
    assert findings.rows[0][0].startswith(f"{NAMES[int(np.argmin(shares))]} is the weakest class")


def test_classes_stand_from_weakest_to_best_with_their_interval(data):
    logits, labels = _arrays(data)
    rows = class_section(data).blocks[0].rows
    shares = [row[1].share for row in rows]
    assert shares == sorted(shares)
    for name, bar, *_ in rows:
        mine = labels == NAMES.index(name)
        right = int((logits[mine].argmax(axis=1) == labels[mine]).sum())
        assert bar.share == right / mine.sum()
        assert (bar.low, bar.high) == wilson_interval(right, int(mine.sum()))


def test_confusion_cells_count_and_only_mistakes_are_shaded(data):
    logits, labels = _arrays(data)
    matrix = confusion_section(data).blocks[0]
    for i, row in enumerate(matrix.rows):
        for j, cell in enumerate(row):
            counted = sum(1 for z, y in zip(logits, labels, strict=True) if y == i and z.argmax() == j)
            assert cell.text == str(counted)
            assert (cell.shade > 0) == (counted > 0 and i != j)
    assert max(cell.shade for row in matrix.rows for cell in row) == 10


def test_confused_pairs_equal_a_loop(data):
    logits, labels = _arrays(data)
    true, guess, number, _, median = pairs_section(data).blocks[0].rows[0]
    losses = [
        math.log(np.exp(z.astype(float)).sum()) - z[y]
        for z, y in zip(logits, labels, strict=True)
        if NAMES[y] == true and NAMES[z.argmax()] == guess
    ]
    assert number == str(len(losses))
    assert median == f"{np.median(losses):.3f}"


def test_mistakes_stand_in_descending_loss_whatever_their_order_in_the_file(data, tmp_path):
    folder = write_run(tmp_path / "run")
    with np.load(folder / "explanations.npz") as file:
        arrays = {name: file[name][::-1] for name in file.files}
    np.savez(folder / "explanations.npz", **arrays)
    turned = load_report_data(folder)
    expected = np.sort(data.predictions.loss[~data.predictions.correct])[::-1][:4]
    for loaded in (data, turned):
        gallery = loaded.galleries["mistakes"]
        assert loaded.predictions.loss[gallery.index].tolist() == expected.tolist()
        tiles = costly_section(loaded).blocks[0].tiles
        assert [tile.lines[0] for tile in tiles] == [f"loss {loss:.3f}" for loss in expected]
    np.testing.assert_array_equal(data.galleries["mistakes"].images, turned.galleries["mistakes"].images)
    for layer, maps in data.galleries["mistakes"].maps.items():
        np.testing.assert_array_equal(maps["label"], turned.galleries["mistakes"].maps[layer]["label"])


def test_a_map_without_evidence_is_words_and_not_a_picture(data):
    first, second, third, _ = maps_of_mistakes(data).blocks[0].cards
    assert [c.alone.message for c in first.columns] == ["no positive evidence", ""]
    assert [c.overlay.message for c in second.columns] == ["not finite", ""]
    assert first.columns[0].alone.uri == ""
    assert all(c.alone.uri.startswith("data:image/png") and not c.alone.message for c in third.columns)


def test_further_layers_wait_in_details(data):
    cards, details = maps_of_mistakes(data).blocks
    assert details.title == "The same at layer2 (8 × 8 cells)"
    assert len(details.blocks[0].cards) == len(cards.cards) == 4


def test_names_are_cut_cleaned_and_isolated():
    assert len(short_name("x" * 10_000)) == 48
    assert short_name("a\u202eb\n\x00c") == "ab c"
    assert short_name("\u200f ") == "(no name)"
    assert page_name("שלום") == "\u2068שלום\u2069"
    assert page_name("cat") == "cat"


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    png(lambda figure: charts.confusion(figure, np.eye(2, dtype=int), ["a", "b"]), dpi=40)
    assert dict(mpl.rcParams) == before


def test_a_drawing_follows_the_theme_and_keeps_names_as_text():
    def draw(figure: Figure) -> None:
        charts.accuracy_per_class(figure, np.diag([3, 4]), ["$x$", "<b>"])

    text = svg(draw).decode()
    assert "$x$" in text
    assert "&lt;b&gt;" in text
    assert "prefers-color-scheme:dark" in text
    assert "fill: var(--" in text
    assert "#b9460f" not in text.split("</style>", 1)[1]


@pytest.mark.parametrize("n", [0, 7])
def test_the_chart_of_a_perfect_or_empty_matrix_draws(n):
    def draw(figure: Figure) -> None:
        charts.confusion(figure, n * np.eye(3, dtype=int), ["a", "b", "c"])
        charts.accuracy_per_class(Figure(), n * np.eye(3, dtype=int), ["a", "b", "c"])

    assert png(draw, dpi=40).startswith(b"\x89PNG")


def test_the_fixture_is_a_mixed_bag():
    predictions = predictions_of()
    assert 4 < (~predictions.correct).sum() < 150


def _arrays(data) -> tuple[np.ndarray, np.ndarray]:
    return data.predictions.logits, data.predictions.labels
