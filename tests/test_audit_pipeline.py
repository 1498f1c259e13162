"""The whole audit: its parts agree with each other, and what cannot be computed is None, never an error."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sightline.audit import Evidence, cross_fit_temperature, make_audit, read_audit, write_audit
from sightline.audit.ambiguity import measure_ambiguity
from sightline.audit.conformal import WANTED_COVERAGES
from sightline.audit.record import TRAIN_COLUMNS
from sightline.audit.result import Cause, IssueMethod, WarningKind
from sightline.data import Dataset, Split, load_data
from sightline.errors import InputError
from sightline.predictions import Dynamics, Predictions


@pytest.fixture(scope="module")
def data():
    return load_data("shapes", limit=300)


def guess(labels: np.ndarray, names, *, seed: int = 0, gain: float = 2.0) -> Predictions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), len(names))).astype(np.float32)
    logits[np.arange(len(labels)), labels] += gain
    return Predictions(logits, labels, names)


@pytest.fixture(scope="module")
def evidence(data):
    rng = np.random.default_rng(1)
    margin = rng.normal(3, 1, (4, len(data.train)))
    margin[:, data.truth.wrong_labels] -= 6
    return Evidence(
        data,
        guess(data.test.labels, data.class_names),
        train=guess(data.train.labels, data.class_names),
        dynamics=Dynamics(margin, 1 / (1 + np.exp(-margin))),
        features=rng.normal(size=(len(data.test), 8)),
        train_features=rng.normal(size=(len(data.train), 8)),
    )


def test_the_causes_of_the_table_are_those_of_the_budget(evidence):
    audit, wrong = make_audit(evidence), ~evidence.predictions.correct
    assert audit.error_budget.mistakes == wrong.sum() == sum(one.count for one in audit.error_budget.causes)
    counted = audit.test["cause"].value_counts()
    for one in audit.error_budget.causes:
        assert one.count == counted.get(one.cause, 0)
    assert (audit.test["cause"] != "").tolist() == wrong.tolist()
    flagged = {one.cause: one.flagged for one in audit.error_budget.causes}
    leaked = audit.test["near_duplicate"] >= 0
    assert flagged[Cause.NEAR_DUPLICATE] == (leaked & wrong).sum()
    assert flagged[Cause.UNEXPLAINED] == counted.get(Cause.UNEXPLAINED, 0)


def test_the_tables_and_the_lists_are_of_the_same_images(evidence):
    audit = make_audit(evidence)
    rows = audit.label_issues.train.rows
    assert audit.label_issues.train.method == IssueMethod.MARGIN
    assert {row.index for row in rows if row.flagged} == set(audit.train.index[audit.train["flagged"]])
    assert [row.label_quality for row in rows] == audit.train["label_quality"][
        [r.index for r in rows]
    ].tolist()
    np.testing.assert_allclose(audit.train["aum"], evidence.dynamics.margin.mean(0))
    ranked = audit.table("train_label_issues")
    assert ranked["label_quality"].is_monotonic_increasing
    np.testing.assert_array_equal(audit.neighbors.rows, np.flatnonzero(~evidence.predictions.correct))
    assert audit.neighbors.indices.shape == (len(audit.neighbors.rows), 5)
    fixes = audit.table("fixes")
    assert fixes["title"].tolist() == [fix.title for fix in audit.fixes]
    assert audit.table("duplicates")["similarity"].tolist() == [p.similarity for p in audit.duplicates.pairs]


def test_the_leaks_are_found_and_warned_of_by_kind(evidence, data):
    audit = make_audit(evidence)
    truth = dict(data.truth.leaks.tolist())
    leaked = audit.test["near_duplicate"][audit.test["near_duplicate"] >= 0]
    assert audit.duplicates.leaked == len(leaked) >= 0.8 * len(truth)
    assert all(truth[test] == train for test, train in leaked.items())
    warning = next(one for one in audit.warnings if one.kind is WarningKind.LEAK)
    assert warning.text.startswith(f"{len(leaked)} test image")
    kept = evidence.predictions.correct[audit.test["near_duplicate"] < 0]
    assert (audit.duplicates.accuracy_without.value, audit.duplicates.accuracy_without.n) == (
        kept.mean(), len(kept),
    )  # fmt: skip
    scores = {one.what: one.value for one in audit.ground_truth}
    assert scores["Test images with a near-duplicate in training"].startswith(
        f"{len(leaked)} of {len(truth)} planted found"
    )


def test_other_models_show_what_is_ambiguous(evidence):
    p = evidence.predictions
    opposite = 1 - p.probabilities
    opposite = (opposite / opposite.sum(1, keepdims=True))[None]
    audit = make_audit(Evidence(None, p, others=opposite))
    expected = measure_ambiguity(np.concatenate([p.probabilities[None], opposite]))
    np.testing.assert_array_equal(audit.test["ambiguity"], expected["ambiguity"])
    assert audit.accuracy.tta is None
    tta = np.stack([p.probabilities, opposite[0], opposite[0]])
    found = make_audit(Evidence(None, p, tta=tta)).accuracy.tta
    assert (found.passes, found.value) == (3, (tta.mean(0).argmax(1) == p.labels).mean())


def test_predictions_alone_are_enough(evidence):
    p = evidence.predictions
    audit = make_audit(Evidence(None, p))
    whole = make_audit(evidence)
    assert audit.duplicates is audit.label_issues.train is audit.robustness is audit.neighbors is None
    assert (len(audit.train), tuple(audit.train.columns)) == (0, TRAIN_COLUMNS)
    assert (audit.accuracy, audit.calibration, audit.selective, audit.conformal) == (
        whole.accuracy, whole.calibration, whole.selective, whole.conformal,
    )  # fmt: skip
    assert WarningKind.NOT_AVAILABLE in [one.kind for one in audit.warnings]
    assert audit.table("robustness").empty
    assert audit.table("duplicates").empty


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def odd_data(case: str) -> tuple[Dataset, Predictions]:
    train, labels = pictures(60), np.arange(60) % 3
    names = ("a",) if case.startswith("one class") else ("a", "b", "c")
    number = {"one image": 1, "one copy": 1, "one class, one image": 1}.get(case, 20)
    test = train[:number].copy() if "copies" in case or "copy" in case else pictures(number)
    labels = np.zeros(60, int) if len(names) == 1 else labels
    logits = np.random.default_rng(0).normal(size=(number, len(names)))
    if case == "no mistake":
        logits = 9 * np.eye(3)[labels[:number]]
    data = Dataset("odd", names, Split(train, labels), Split(test, labels[:number]))
    return data, Predictions(logits, labels[:number], names)


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize(
    "case", ["copies", "one image", "one copy", "one class", "one class, one image", "no mistake"]
)
def test_odd_data_have_an_audit_without_the_parts_that_cannot_be(case, images, tmp_path):
    data, p = odd_data(case)
    rng = np.random.default_rng(0)
    more = {"features": rng.normal(size=(len(p), 4)), "train_features": rng.normal(size=(60, 4))}
    audit = make_audit(Evidence(data, p, **more) if images else Evidence(None, p))
    assert audit.accuracy.value == p.correct.mean()
    few = len(p) < 2
    above = sum(wanted > audit.accuracy.value for wanted in WANTED_COVERAGES)  # others have empty sets
    assert len(audit.conformal) == (0 if few else above)
    assert (audit.selective.thresholds == ()) >= few
    if few or len(p.class_names) == 1 or case == "no mistake":
        assert audit.calibration.temperature is audit.calibration.ece_after is None
    else:
        fitted = cross_fit_temperature(p.logits, p.labels)
        assert audit.calibration.temperature == (fitted.temperature if fitted.fitted else None)
    if images:
        copied = case in ("copies", "one copy")
        assert audit.duplicates.leaked == (len(p) if copied else 0)
        assert (audit.duplicates.accuracy_without is None) == copied
    write_audit(tmp_path, audit)
    assert read_audit(tmp_path).result == audit.result
    assert f"{100 * p.correct.mean():.2f} %" in audit._repr_html_()


def test_evidence_about_other_data_is_refused(data):
    p = guess(data.test.labels, data.class_names)
    with pytest.raises(InputError, match="features has 3 rows and the data's split"):
        Evidence(data, p, features=np.zeros((3, 4)))
    other = dataclasses.replace(p, labels=(p.labels + 1) % 10)
    with pytest.raises(InputError, match="predict this very data set"):
        Evidence(data, other)
    with pytest.raises(InputError, match="out_of_fold is about training images and there is no data"):
        Evidence(None, p, out_of_fold=np.zeros((3, 10)))
    with pytest.raises(InputError, match="an audit needs at least one test image"):
        Evidence(None, Predictions(np.zeros((0, 3)), np.zeros(0, int), ("a", "b", "c")))
