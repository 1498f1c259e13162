"""What the plots draw, compared with the numbers that went in."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sightline import SightlineError
from sightline.attribution import Explanation, colorize
from sightline.predictions import Predictions
from sightline.report import (
    Plot,
    plot_class_accuracy,
    plot_confusion,
    plot_curves,
    plot_explanations,
    plot_images,
    plot_learning_rate,
    plot_mistakes,
    plot_range_test,
    write_range_test,
    write_sample_sheet,
)

NAMES = ("cat", "dog", "ship")
EPOCHS = [
    {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.3, "test_loss": 1.9, "test_accuracy": 0.4},
    {"epoch": 2, "train_loss": 1.5, "train_accuracy": 0.5, "test_loss": 1.7, "test_accuracy": 0.45},
]
STEPS = [{"step": k, "epoch": 1, "lr": 0.1 * k, "loss": 2.0} for k in range(1, 5)]
HISTORY = SimpleNamespace(epochs=EPOCHS, steps=STEPS)
SWEEPS = pd.DataFrame(
    {
        "seed": [0] * 9 + [1] * 7,  # the second one stopped early
        "lr": [*np.geomspace(1e-4, 1, 9), *np.geomspace(1e-4, 1, 9)[:7]],
        "loss": np.linspace(2, 1, 16),
        "smoothed": np.linspace(2.1, 1.1, 16),
    }
)
RANGE_CARD = {
    "suggestions": {"steepest": 0.03, "minimum/10": 0.1},
    "ranges": {"steepest": (0.02, 0.05), "minimum/10": (0.1, 0.1)},
    "recommended": "steepest",
}
RANGE_TEST = SimpleNamespace(to_frame=lambda: SWEEPS, **RANGE_CARD)


def drawn(plot: Plot) -> Figure:
    figure = Figure()
    plot.drawing(figure)
    return figure


def texts(plot: Plot) -> list[str]:
    figure = drawn(plot)
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def pictures(plot: Plot) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in drawn(plot).axes[0].images]


def random_images(number: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), dtype=np.uint8)


def some_predictions(number: int = 60) -> Predictions:
    generator = np.random.default_rng(1)
    labels = np.arange(number) % 3
    logits = generator.normal(0, 2, (number, 3))
    logits[np.arange(number), labels] += 2
    return Predictions(logits, labels, NAMES)


def explanation(maps, *, targets=(0, 1), status=("ok", "ok"), layer="layer3") -> Explanation:
    return Explanation(
        maps=np.asarray(maps, np.float32),
        targets=np.array(targets),
        logits=np.log([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]]),
        status=status,
        method="grad_cam",
        layer=layer,
        image_size=(8, 8),
    )


# --- a plot shows itself and is saved -------------------------------------------------------------------


def test_a_plot_shows_itself_as_a_png_at_half_its_size_in_dots():
    picture, size = plot_images(random_images(3))._repr_png_()
    width, height = Image.open(io.BytesIO(picture)).size
    assert size == {"width": width // 2, "height": height // 2}


def test_a_plot_says_little_as_text():
    assert repr(plot_images(random_images(1))) == "Plot(inch=160)"


def test_a_plot_is_saved_as_png_or_svg(tmp_path):
    plot = plot_learning_rate(HISTORY)
    assert plot.save(tmp_path / "rate.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert plot.save(tmp_path / "rate.svg").read_bytes()[:4] == b"<svg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rate.png", "rate.svg"]


def test_a_plot_is_not_saved_under_another_ending_or_in_a_place_that_is_not_there(tmp_path):
    plot = plot_learning_rate(HISTORY)
    with pytest.raises(SightlineError, match=r"ends in '.pdf'; a plot is saved as .png or .svg"):
        plot.save(tmp_path / "rate.pdf")
    with pytest.raises(SightlineError, match=r"cannot be written \(No such file or directory\)"):
        plot.save(tmp_path / "missing" / "rate.png")


def test_plots_use_no_pyplot():
    code = (
        "import sys, numpy; from sightline import plot_images;"
        "plot_images(numpy.zeros((1, 4, 4, 3), 'uint8'))._repr_png_();"
        "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- pictures --------------------------------------------------------------------------------------------


def test_images_are_drawn_as_they_are_in_their_order_under_their_captions():
    images = random_images(7)
    plot = plot_images(images, np.array([f"number {k}" for k in range(7)]), limit=6)
    assert np.array_equal(pictures(plot), images[:6])
    assert texts(plot) == [f"number {k}" for k in range(6)]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), r"images are float32 \(2, 3, 8, 8\); a plot needs uint8"),
        (np.zeros((8, 8, 3), np.uint8), r"images are uint8 \(8, 8, 3\)"),
        ([[1, 2]], r"images are list \(\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "there are no images"),
    ],
)
def test_what_is_no_set_of_images_is_refused(images, message):
    with pytest.raises(SightlineError, match=message):
        plot_images(images)


def test_every_image_needs_its_caption():
    with pytest.raises(SightlineError, match="1 captions for 2 images"):
        plot_images(random_images(2), ["only one"])


# --- charts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [HISTORY, pd.DataFrame(EPOCHS)], ids=["history", "table"])
def test_curves_stand_side_by_side_and_hold_the_numbers_of_the_history(history):
    figure = drawn(plot_curves(history))
    loss, accuracy = figure.axes
    assert [axes.get_ylabel() for axes in (loss, accuracy)] == ["loss (mean per image)", "accuracy"]
    assert loss.get_position().x1 < accuracy.get_position().x0
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for line, split in zip(axes.lines, ("train", "test"), strict=True):
            assert line.get_xdata().tolist() == [1, 2]
            assert line.get_ydata().tolist() == [row[f"{split}_{quantity}"] for row in EPOCHS]


def test_a_validation_split_gets_a_curve_of_its_own():
    rows = [row | {"validation_loss": 1.8, "validation_accuracy": 0.42} for row in EPOCHS]
    assert [len(axes.lines) for axes in drawn(plot_curves(pd.DataFrame(rows))).axes] == [3, 3]


@pytest.mark.parametrize("history", [HISTORY, pd.DataFrame(STEPS)], ids=["history", "table"])
def test_the_learning_rate_is_drawn_for_every_iteration(history):
    (line,) = drawn(plot_learning_rate(history)).axes[0].lines
    assert line.get_xydata().tolist() == [[k, 0.1 * k] for k in range(1, 5)]


def test_a_history_without_what_is_drawn_is_refused():
    with pytest.raises(SightlineError, match=r"history has no step; .* or the table of steps.csv"):
        plot_learning_rate(pd.DataFrame({"epoch": [1], "lr": [0.1]}))
    with pytest.raises(SightlineError, match="history has no epoch, train_loss, train_accuracy"):
        plot_curves(SimpleNamespace(epochs=[], steps=[]))
    with pytest.raises(SightlineError, match="history is empty"):
        plot_learning_rate(pd.DataFrame(STEPS)[:0])


def test_a_range_test_shows_the_losses_of_every_sweep_and_every_suggestion():
    (axes,) = drawn(plot_range_test(RANGE_TEST)).axes
    lines, marks = axes.lines[:4], axes.lines[4:]
    for k, (raw, smoothed) in enumerate(zip(lines[:2], lines[2:], strict=True)):
        sweep = SWEEPS[SWEEPS["seed"] == k]
        assert raw.get_ydata().tolist() == sweep["loss"].tolist()
        assert smoothed.get_ydata().tolist() == sweep["smoothed"].tolist()
        assert smoothed.get_xdata().tolist() == sweep["lr"].tolist()
    assert {mark.get_xdata()[0] for mark in marks} == {0.03, 0.1}
    assert [text.get_text() for text in axes.texts] == ["minimum/10 0.1", "steepest 0.03, recommended"]
    (band,) = axes.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((0.02, 0.03))


def test_the_confusion_matrix_holds_the_counts_of_a_naive_loop():
    predictions = some_predictions()
    counts = [[0] * 3 for _ in range(3)]
    for row, label in zip(predictions.logits, predictions.labels, strict=True):
        counts[label][max(range(3), key=lambda c: row[c])] += 1
    axes = drawn(plot_confusion(predictions)).axes[0]
    assert [text.get_text() for text in axes.texts] == [str(n) for row in counts for n in row]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(NAMES)


def test_the_bars_are_the_accuracies_of_the_classes_from_the_weakest_on():
    predictions = some_predictions()
    shares = {
        name: np.mean(predictions.predicted[predictions.labels == c] == c) for c, name in enumerate(NAMES)
    }
    axes = drawn(plot_class_accuracy(predictions)).axes[0]
    bars = dict(
        zip(
            (label.get_text() for label in axes.get_yticklabels()),
            (bar.get_width() for bar in axes.patches),
            strict=True,
        )
    )
    assert bars == pytest.approx(shares)
    assert list(bars.values()) == sorted(bars.values())


# --- mistakes --------------------------------------------------------------------------------------------


def test_mistakes_are_shown_from_the_most_costly_on_with_what_was_said_and_what_is_true():
    probabilities = [[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.01, 0.09, 0.9]]
    predictions = Predictions(np.log(probabilities), np.array([0, 0, 0]), NAMES)
    images = random_images(3)
    plot = plot_mistakes(predictions, images)
    assert np.array_equal(pictures(plot), images[[2, 1]])
    assert texts(plot) == [
        "ship,\nnot cat\nloss 4.61, 90\u00a0%",  # -log(0.01) = 4.605
        "dog,\nnot cat\nloss 1.61, 70\u00a0%",  # -log(0.2) = 1.609
    ]


def test_only_so_many_mistakes_are_shown_as_asked_for():
    predictions = some_predictions()
    assert len(pictures(plot_mistakes(predictions, random_images(60), limit=3))) == 3


def test_a_model_without_mistakes_is_said_in_words():
    predictions = Predictions(np.eye(3), np.arange(3), NAMES)
    assert texts(plot_mistakes(predictions, random_images(3))) == ["No image is misclassified."]


def test_mistakes_need_all_images_that_were_predicted():
    with pytest.raises(SightlineError, match="there are 5 images for 60 predictions"):
        plot_mistakes(some_predictions(), random_images(5))


# --- explanations ----------------------------------------------------------------------------------------


def rows_of(plot: Plot, rows: int) -> list[list[np.ndarray]]:
    """Pictures by row; the sheet draws them column by column."""
    found = pictures(plot)
    return [found[row::rows] for row in range(rows)]


def test_a_picture_stands_above_its_map_and_the_map_laid_over_it():
    images, maps = random_images(2), np.array([[[0.0, 1.0], [2.0, 4.0]], [[-1.0, 3.0], [0.0, 0.0]]])
    found = explanation(maps)
    top, raw, laid_over = rows_of(plot_explanations(images, found, NAMES), 3)
    assert np.array_equal(top, images)
    assert np.array_equal(raw, colorize(np.maximum(maps, 0) / [[[4]], [[3]]]))
    assert np.array_equal(laid_over, found.overlay(images.transpose(0, 3, 1, 2) / 255))


def captions_of(plot: Plot) -> list[str]:
    return [text for text in texts(plot) if "%" in text]


def test_captions_say_what_the_model_said_and_no_more_where_the_maps_are_about_that():
    plot = plot_explanations(random_images(2), explanation(np.ones((2, 4, 4))), NAMES)
    assert captions_of(plot) == ["cat 70\u00a0%", "dog 50\u00a0%"]


def test_two_targets_are_two_pairs_of_rows_and_the_other_class_is_named():
    maps = np.ones((2, 4, 4))
    both = {"predicted": explanation(maps), "true": explanation(2 * maps, targets=(2, 0))}
    plot = plot_explanations(random_images(2), both, NAMES)
    assert captions_of(plot) == ["cat 70\u00a0%\ntrue: ship", "dog 50\u00a0%\ntrue: cat"]
    headings = [text for text in texts(plot) if "%" not in text]
    assert headings == [
        "picture", "predicted:\nmap", "predicted:\noverlay", "true:\nmap", "true:\noverlay",
    ]  # fmt: skip


def test_several_layers_name_their_common_target_once():
    layers = {
        "layer2": explanation(np.ones((2, 4, 4)), targets=(2, 2), layer="layer2"),
        "layer3": explanation(np.ones((2, 2, 2)), targets=(2, 2)),
    }
    plot = plot_explanations(random_images(2), layers, NAMES)
    assert captions_of(plot) == ["cat 70\u00a0%\nfor ship", "dog 50\u00a0%\nfor ship"]
    assert [row[0].shape for row in rows_of(plot, 5)] == [
        (8, 8, 3),
        (4, 4, 3),
        (8, 8, 3),
        (2, 2, 3),
        (8, 8, 3),
    ]


@pytest.mark.parametrize("status", ["no positive evidence", "zero gradient"])
def test_a_map_without_positive_evidence_is_said_in_words(status):
    maps = np.stack([np.ones((4, 4)), -np.ones((4, 4)) if status != "zero gradient" else np.zeros((4, 4))])
    plot = plot_explanations(random_images(2), explanation(maps, status=("ok", status)), NAMES)
    assert texts(plot).count(status.replace(" ", "\n")) == 2  # in the place of the map, and of the overlay
    assert [tile.shape for tile in rows_of(plot, 3)[1]] == [(4, 4, 3), (1, 1, 3)]


def test_a_map_is_drawn_where_it_can_be_whatever_the_gradient_was():
    found = explanation(np.ones((2, 4, 4)), status=("ok", "zero gradient"))  # a method that needs no gradient
    plot = plot_explanations(random_images(2), found, NAMES)
    assert [tile.shape for tile in rows_of(plot, 3)[1]] == [(4, 4, 3), (4, 4, 3)]


def test_explanations_have_to_fit_images_and_classes():
    found, images = explanation(np.ones((2, 4, 4))), random_images(2)
    with pytest.raises(SightlineError, match="there are 1 images for 2 maps"):
        plot_explanations(images[:1], found, NAMES)
    with pytest.raises(SightlineError, match="the model has 3 outputs and there are 2 names"):
        plot_explanations(images, found, NAMES[:2])
    with pytest.raises(SightlineError, match="there is no explanation"):
        plot_explanations(images, {}, NAMES)


# --- files for the command line --------------------------------------------------------------------------


def write_range_test_files(folder, suggestions) -> None:
    SWEEPS.to_csv(folder / "range_test.csv", index=False)
    (folder / "range_test.json").write_text(json.dumps(suggestions))


def test_the_range_test_of_a_folder_is_drawn_as_the_plot_draws_it(tmp_path):
    write_range_test_files(tmp_path, RANGE_CARD)
    path = write_range_test(tmp_path)
    assert path == tmp_path / "range_test.png"
    assert path.read_bytes() == plot_range_test(RANGE_TEST).save(tmp_path / "same.png").read_bytes()


@pytest.mark.parametrize("card", [{}, [], {"suggestions": [1]}, {"suggestions": {"steepest": None}}])
def test_a_damaged_range_test_is_refused_in_one_line(tmp_path, card):
    write_range_test_files(tmp_path, card)
    with pytest.raises(SightlineError, match=r"holds no whole range test .* run it again"):
        write_range_test(tmp_path)


def test_a_folder_without_range_test_is_refused(tmp_path):
    with pytest.raises(
        SightlineError, match=r"holds no range test \(range_test.csv is missing\); run it first"
    ):
        write_range_test(tmp_path)


def test_the_sample_sheet_has_a_row_for_each_class_and_white_where_it_has_no_more_images(
    tmp_path, monkeypatch
):
    images = random_images(30)
    labels = np.array([0] * 9 + [1] * 20 + [2])
    shown = keep_plots(monkeypatch)
    path = write_sample_sheet(images, labels, ("a", "b", "c", "none"), tmp_path / "sheet.png")
    assert path.is_file()
    first, second, third, none = rows_of(shown[0], 4)
    assert np.array_equal(first, images[[0, 1, 2, 3, 4, 5, 6, 8]])  # both ends, and even distances between
    assert np.array_equal(second[::7], images[[9, 28]])
    assert np.array_equal(third[0], images[29])
    assert all((tile == 255).all() for tile in [*third[1:], *none])
    assert [text for text in texts(shown[0]) if text] == ["a", "b", "c", "none"]


def test_the_sample_sheet_of_many_classes_has_one_picture_of_each(tmp_path, monkeypatch):
    images, names = random_images(42), [f"class {k}" for k in range(21)]
    shown = keep_plots(monkeypatch)
    write_sample_sheet(images, np.arange(42) % 21, names, tmp_path / "sheet.png")
    assert np.array_equal(pictures(shown[0]), images[:21])
    assert texts(shown[0]) == names


def keep_plots(monkeypatch) -> list[Plot]:
    kept = []
    save = Plot.save
    monkeypatch.setattr(Plot, "save", lambda plot, path: kept.append(plot) or save(plot, path))
    return kept


def test_a_sample_sheet_needs_a_label_for_each_image(tmp_path):
    with pytest.raises(SightlineError, match="there are 3 images for 2 labels"):
        write_sample_sheet(random_images(3), np.array([0, 1]), NAMES, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())
