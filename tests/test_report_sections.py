"""The sections' numbers against hand-computed values and slow loops, and their words."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from report_audit_fixture import add_audit
from report_fixture import NAMES, predictions_of, write_run

from sightline.audit.result import Cause, WarningKind
from sightline.faithfulness.result import FaithfulnessResult, MethodScore
from sightline.report import read_run
from sightline.report.blocks import Link
from sightline.report.run_data import MetricsCard
from sightline.report.sections import causes, fixes, reliability
from sightline.report.sections.explanations import maps_doubt, mistakes_section
from sightline.report.sections.mistakes import (
    class_section,
    confusion_section,
    gallery_section,
    pairs_section,
)
from sightline.report.sections.summary import summary_section
from sightline.stats import wilson_interval


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    return read_run(add_audit(write_run(tmp_path_factory.mktemp("runs") / "audited")))


def test_summary_counts_by_hand(run):
    wrong = sum(int(row.argmax() != label) for row, label in zip(*_arrays(run), strict=True))
    blocks = {block.kind: block for block in summary_section(run).blocks}
    about = [b for b in summary_section(run).blocks if b.kind == "details" and b.title == "About this run"]
    headline, facts = blocks["headline"], about[0].blocks[0]
    assert headline.value == f"{100 * (200 - wrong) / 200:.1f}\u00a0%"
    assert ("Mistakes", f"{wrong} of 200") in facts.rows
    loss = [
        math.log(sum(math.exp(z) for z in row)) - row[label] for row, label in zip(*_arrays(run), strict=True)
    ]
    assert ("Mean test loss", f"{sum(loss) / 200:.2f}") in facts.rows


def faithfulness_of(**verdicts: str) -> FaithfulnessResult:
    methods = [MethodScore(name, verdict, 1.0, 0.0, {}) for name, verdict in verdicts.items()]
    return FaithfulnessResult(
        *("layer3", 64, "eigen_cam", (), {"hires_cam": "grad_cam"}, {}, (), tuple(methods), (), None, ())
    )


@pytest.mark.parametrize(
    ("drawn", "verdict", "warned"),
    [
        ("grad_cam", "better than a random map; no better than an edge map", True),
        ("hires_cam", "better than a random map; no better than an edge map", True),
        ("grad_cam", "better than every baseline map", False),
        ("my_own", "no better than any baseline map", False),
    ],
)
def test_maps_that_a_baseline_equals_are_warned_of(run, drawn, verdict, warned):
    found = faithfulness_of(grad_cam=verdict, eigen_cam="worse than an edge map")
    sentence = maps_doubt(dataclasses.replace(run, faithfulness=found, method_name=drawn))
    assert (f"on 64 images Grad-CAM was {verdict}." in sentence) == warned
    assert bool(sentence) == warned
    assert "analysis.method" not in sentence
    found = faithfulness_of(grad_cam=verdict, eigen_cam="better than every baseline map")
    sentence = maps_doubt(dataclasses.replace(run, faithfulness=found, method_name=drawn))
    assert ("--set analysis.method=eigen_cam." in sentence) == warned


@pytest.mark.parametrize(
    ("verdict", "images", "words"),
    [
        ("no better than any baseline map", 8, "is not known: 8 images are too few to tell"),
        ("no better than any baseline map", 20, "Do not trust"),
        ("better than a random map; worse than an edge map", 8, "Do not trust"),
    ],
)
def test_a_tie_on_few_images_is_no_reason_to_distrust_a_map(run, verdict, images, words):
    found = dataclasses.replace(faithfulness_of(grad_cam=verdict), images=images, best="grad_cam")
    sentence = maps_doubt(dataclasses.replace(run, faithfulness=found, method_name="grad_cam"))
    assert words in sentence
    assert verdict in sentence


def test_classes_stand_from_weakest_to_best_with_their_interval(run):
    logits, labels = _arrays(run)
    rows = class_section(run).blocks[0].rows
    shares = [row[1].share for row in rows]
    assert shares == sorted(shares)
    for name, bar, *_ in rows:
        mine = labels == NAMES.index(name)
        right = int((logits[mine].argmax(axis=1) == labels[mine]).sum())
        assert bar.share == right / mine.sum()
        assert (bar.low, bar.high) == wilson_interval(right, int(mine.sum()))


def test_confusion_cells_count_and_only_mistakes_are_shaded(run):
    logits, labels = _arrays(run)
    matrix = confusion_section(run).blocks[0]
    for i, row in enumerate(matrix.rows):
        for j, cell in enumerate(row):
            counted = sum(1 for z, y in zip(logits, labels, strict=True) if y == i and z.argmax() == j)
            assert cell.text == str(counted)
            assert (cell.shade > 0) == (counted > 0 and i != j)
    assert max(cell.shade for row in matrix.rows for cell in row) == 10


def test_confused_pairs_equal_a_loop(run):
    logits, labels = _arrays(run)
    link, number, share, _, reverse, _, median = pairs_section(run).blocks[0].rows[0]
    true, guess = link.text.split(" → ")
    pairs = [(NAMES[y], NAMES[z.argmax()]) for z, y in zip(logits, labels, strict=True)]
    losses = [
        math.log(np.exp(z.astype(float)).sum()) - z[y]
        for z, y, pair in zip(logits, labels, pairs, strict=True)
        if pair == (true, guess)
    ]
    assert number == str(len(losses)) == str(max(pairs.count(p) for p in pairs if p[0] != p[1]))
    assert reverse == str(pairs.count((guess, true)))
    assert share == f"{100 * len(losses) / (labels == NAMES.index(true)).sum():.0f}\u00a0%"
    assert median == f"{np.median(losses):.2f}"
    assert link.href == f"true={true}&pred={guess}&sort=loss"


def test_mistakes_stand_in_descending_loss_whatever_their_order_in_the_file(run, tmp_path):
    folder = write_run(tmp_path / "run")
    with np.load(folder / "explanations.npz") as file:
        arrays = {name: file[name][::-1] for name in file.files}
    np.savez(folder / "explanations.npz", **arrays)
    turned = read_run(folder)
    expected = np.sort(run.predictions.loss[~run.predictions.correct])[::-1][:4]
    for loaded in (run, turned):
        gallery = loaded.explained["mistakes"]
        assert loaded.predictions.loss[gallery.index].tolist() == expected.tolist()
        cards = mistakes_section(loaded).blocks[0].cards
        assert [card.tile.lines[0] for card in cards] == [f"loss {loss:.2f}" for loss in expected]
    np.testing.assert_array_equal(run.explained["mistakes"].images, turned.explained["mistakes"].images)
    for layer, maps in run.explained["mistakes"].maps.items():
        np.testing.assert_array_equal(maps["label"], turned.explained["mistakes"].maps[layer]["label"])


def test_a_map_without_evidence_is_words_and_not_a_picture(run):
    first, second, third, _ = mistakes_section(run).blocks[0].cards
    assert [c.alone.message for c in first.columns] == ["no positive evidence", ""]
    assert [c.overlay.message for c in second.columns] == ["not finite", ""]
    assert first.columns[0].alone.uri == ""
    assert all(c.alone.uri.startswith("data:image/png") and not c.alone.message for c in third.columns)


def test_further_layers_wait_in_details(run):
    cards, details = mistakes_section(run).blocks
    assert details.title == "The same at layer layer2 (8 × 8 cells)"
    assert len(details.blocks[0].cards) == len(cards.cards) == 4


def test_a_warning_leads_where_its_kind_says_whatever_its_words(audited):
    anchors = frozenset({"near-duplicates", "calibration", "slices"})
    (found,) = (block for block in summary_section(audited, anchors).blocks if block.kind == "findings")
    assert dict(found.rows) == {
        "3 test images are also in the training set.": Link("Near-duplicates", "near-duplicates"),
        "Without duplicates and leaks it is overconfident.": Link("Calibration", "calibration"),
        "No label of the leaked images was checked.": None,
    }
    assert {warning.kind for warning in audited.audit.warnings} < set(WarningKind)


def test_every_cause_has_a_meaning_and_a_near_duplicate_says_nothing_of_its_label(audited):
    rows = fixes.budget_section(audited).blocks[0].rows
    meanings = {row[0].text: row[-1] for row in rows}
    assert set(meanings) == {str(cause) for cause in Cause}
    assert all(meanings.values())
    assert meanings[Cause.NEAR_DUPLICATE] == "A near-duplicate of the image is in the training set."
    assert not any("another label" in meaning for meaning in meanings.values())


def test_the_parts_of_the_budget_are_its_counts(audited):
    (budget,) = (block for block in summary_section(audited).blocks if block.kind == "budget")
    counts = audited.audit.test["cause"].value_counts()
    assert {part.name: int(part.count) for part in budget.parts} == counts.drop("").to_dict()
    assert budget.parts[-1].start + budget.parts[-1].share == pytest.approx(1)


@pytest.mark.parametrize(("mean_size", "said"), [(0.78, 1), (1.31, 0)])
def test_sets_without_a_class_are_explained_where_sets_average_less_than_one_class(audited, mean_size, said):
    sets = dataclasses.replace(audited.audit.conformal[0], mean_size=mean_size, empty=0.22)
    result = dataclasses.replace(audited.audit.result, conformal=(sets,))
    run = dataclasses.replace(audited, audit=dataclasses.replace(audited.audit, result=result))
    notes = [b.text for b in reliability.selective_section(run).blocks if b.kind == "note"]
    assert (
        len([text for text in notes if text.startswith("22\u00a0% of the sets") and "no class" in text])
        == said
    )


def test_gains_and_p_values_have_the_digits_that_they_support(audited):
    block = fixes.fixes_section(audited).blocks[0]
    assert [fix.gain for fix in block.fixes] == [
        "+0.26 points (0.00 to 0.50) of test accuracy",
        "",
        "+0.50 points (0.00 to 0.90) of test accuracy",
    ]
    cards = causes.slices_section(audited).blocks[0].cards
    assert [card.lines[1].split(", ")[1] for card in cards] == ["p < 0.001", "p = 0.021"]
    assert cards[0].lines[0].startswith("61\u00a0% wrong (40–75\u00a0%)")
    thresholds = next(b for b in reliability.selective_section(audited).blocks if b.kind == "table")
    assert thresholds.rows[0][1] == "0.71"


def test_pairs_between_the_splits_come_first_and_the_accuracy_without_them_is_said(audited):
    section = causes.duplicates_section(audited)
    assert section.lead.startswith("At least 3 test images have a near-duplicate in the training set")
    value = audited.audit.duplicates.accuracy_without.value
    assert f"Without them the accuracy is {100 * value:.1f}\u00a0%" in section.lead
    words = [card.title for card in section.blocks[0].cards]
    assert words == sorted(words, key=["labels differ", "same label"].index)
    assert words.count("same label") == 1


def test_when_every_test_image_was_copied_from_training_no_accuracy_is_left(audited):
    number = len(audited.predictions)
    found = dataclasses.replace(audited.audit.duplicates, leaked=number, accuracy_without=None)
    result = dataclasses.replace(audited.audit.result, duplicates=found)
    audit = dataclasses.replace(audited.audit, result=result)
    section = causes.duplicates_section(dataclasses.replace(audited, audit=audit))
    assert section.lead.startswith(f"At least {number} test images have a near-duplicate")
    assert section.lead.endswith("No test image is left without them.")


def test_without_pictures_the_gallery_says_so_and_lists_the_costliest_mistakes(run):
    note, tool, details = gallery_section(run).blocks
    assert note.text.startswith("No pictures here")
    assert tool.name == "gallery"
    worst = np.argsort(np.where(run.predictions.correct, 0, -run.predictions.loss))[0]
    first = details.blocks[0].rows[0]
    assert first[0] == Link(str(worst), f"img={worst}")
    assert first[-1] == f"{run.predictions.loss[worst]:.2f}"


def test_the_fixture_is_a_mixed_bag():
    predictions = predictions_of()
    assert 4 < (~predictions.correct).sum() < 150


def _arrays(run) -> tuple[np.ndarray, np.ndarray]:
    return run.predictions.logits, run.predictions.labels


def test_unequal_classes_have_balanced_accuracy_beside_accuracy_with_the_reason(run):
    from sightline.predictions import Predictions

    labels = np.repeat([0, 1], [40, 10])
    logits = np.eye(2)[np.r_[np.zeros(40, int), np.ones(4, int), np.zeros(6, int)]]  # recalls 1 and 0.4
    unequal = dataclasses.replace(
        run, predictions=Predictions(logits, labels, ("a", "b")), metrics=MetricsCard(metrics={"mine": 0.25})
    )
    texts = [str(block) for block in summary_section(unequal).blocks]
    assert "70" in texts[1]
    assert "balanced accuracy" in texts[1]
    assert "40 test images and the smallest 10" in texts[2]
    rows = {row[0]: row[1:] for row in reliability.metrics_section(unequal).blocks[0].rows}
    assert rows["Balanced accuracy"][0].startswith("0.7")
    assert rows["mine"][0] == "0.25"
    assert not any("balanced accuracy, each" in str(block) for block in summary_section(run).blocks)
