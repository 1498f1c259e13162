"""The files of an audit: back as they were written, and every kind of damage is one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from sightline.audit import Audit, Evidence, make_audit, read_audit, write_audit
from sightline.audit.record import MAP_COLUMNS, TEST_COLUMNS, TRAIN_COLUMNS
from sightline.audit.result import ADAPTER, SCHEMA
from sightline.data import load_data
from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.predictions import Predictions


@pytest.fixture(scope="module")
def audit() -> Audit:
    data, rng = load_data("shapes", limit=200), np.random.default_rng(0)
    logits = rng.normal(size=(len(data.test), 10))
    logits[np.arange(len(data.test)), data.test.labels] += 2
    features = {"features": rng.normal(size=(len(data.test), 4)), "train_features": rng.normal(size=(200, 4))}
    return make_audit(Evidence(data, Predictions(logits, data.test.labels, data.class_names), **features))


@pytest.fixture(scope="module")
def written(audit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    write_audit(folder, audit)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def test_an_audit_comes_back_as_it_was_written(audit, written):
    again = read_audit(written)
    assert again.result == audit.result
    pd.testing.assert_frame_equal(again.test, audit.test)
    pd.testing.assert_frame_equal(again.train, audit.train)
    np.testing.assert_array_equal(again.neighbors.rows, audit.neighbors.rows)
    np.testing.assert_array_equal(again.neighbors.indices, audit.neighbors.indices)
    np.testing.assert_allclose(again.neighbors.similarity, audit.neighbors.similarity, atol=1e-3)
    assert tuple(again.test.columns) == (*TEST_COLUMNS, *MAP_COLUMNS, "path", "hash")
    assert tuple(again.train.columns) == (*TRAIN_COLUMNS, "path", "hash")
    bare = again.test.drop(columns=[*MAP_COLUMNS, "path", "hash"])  # as an earlier version wrote it
    bare.to_parquet(written / "audit_test.parquet", index=False)
    pd.testing.assert_frame_equal(read_audit(written).test, bare)


def test_the_file_is_plain_json_with_its_schema_first(audit, written):
    content = json.loads((written / "audit.json").read_text(encoding="utf-8"))
    assert next(iter(content.items())) == ("schema", SCHEMA)
    assert content == audit.result.to_dict()
    assert content["calibration"]["ece"] == audit.calibration.ece
    assert [row["cause"] for row in content["error_budget"]["causes"]][:2] == [
        "label issue", "near-duplicate in training",
    ]  # fmt: skip


def test_neighbors_of_an_audit_before_this_one_do_not_stay(audit, folder):
    write_audit(folder, Audit(audit.result, audit.test, audit.train, None))
    assert read_audit(folder).neighbors is None


def old(content: dict) -> bytes:
    return json.dumps({"accuracy": {"value": 0.9}, "suspects": {}, "budget": {}}).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (old, r"audit\.json was written by version 0\.1 of Sightline; 'sightline audit .*' writes it anew"),
        (lambda c: json.dumps(c | {"schema": 99}).encode(), "has schema 99, .* newer Sightline: update this"),
        (
            lambda c: json.dumps(c | {"schema": 1}).encode(),
            "has schema 1, .* older Sightline: 'sight",
        ),
        (lambda c: b"", r"is damaged \(Invalid JSON: EOF"),
        (lambda c: b"[]", r"is damaged \(Input should be an object"),
        (lambda c: b"7", r"is damaged \(Input should be an object"),
        (lambda c: b"\xff\xfe", r"is damaged \(Invalid JSON"),
        (lambda c: b"[" * 10_000, r"is damaged \(Invalid JSON: recursion limit"),
        (lambda c: b'{"schema": 2, "fixes": ' + b'{"a":' * 10_000, r"is damaged \(Invalid JSON: recursion"),
        (lambda c: b'{"schema": 2, "accuracy": "\\ud800"}', r"is damaged \(Invalid JSON"),
        (
            lambda c: json.dumps(c | {"schema": "2"}).encode(),
            r"is damaged \(schema: Input should be a val",
        ),
        (
            lambda c: json.dumps(c | {"slices": {}}).encode(),
            r"is damaged \(slices: Input should be a val",
        ),
        (lambda c: json.dumps(c | {"more": 1}).encode(), r"is damaged \(more: "),
        (lambda c: json.dumps(c | {"accuracy": None}).encode(), r"is damaged \(accuracy: "),
        (
            lambda c: json.dumps(c | {"warnings": [{"kind": "rain", "text": ""}]}).encode(),
            r"is damaged \(warnings\.0\.kind: Input should be 'leak', 'calibration'",
        ),
        (
            lambda c: json.dumps(c | {"accuracy": c["accuracy"] | {"value": float("nan")}}).encode(),
            r"is damaged \(accuracy\.value: Input should be a finite number",
        ),
    ],
)
def test_a_damaged_result_is_one_line(folder, damage, message):
    content = json.loads((folder / "audit.json").read_bytes())
    (folder / "audit.json").write_bytes(damage(content))
    with pytest.raises(DamagedFileError, match=message) as caught:
        read_audit(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_damaged_tables_and_neighbors_are_one_line(folder, audit):
    def expect(message):
        with pytest.raises(DamagedFileError, match=message) as caught:
            read_audit(folder)
        assert "\n" not in str(caught.value)

    audit.test.iloc[:5].to_parquet(folder / "audit_test.parquet")
    expect(r"audit_test\.parquet has 5 rows and audit\.json is about")
    audit.test.drop(columns="cause").to_parquet(folder / "audit_test.parquet")
    expect(r"audit_test\.parquet is damaged \(.*cause")
    (folder / "audit_test.parquet").write_bytes(b"")
    expect(r"audit_test\.parquet is damaged")
    audit.test.to_parquet(folder / "audit_test.parquet")
    near = {"rows": audit.neighbors.rows, "similarity": audit.neighbors.similarity}
    np.savez(folder / "audit_neighbors.npz", indices=audit.neighbors.indices + 200, **near)
    expect(r"audit_neighbors\.npz names image \d+ of 200")
    np.savez(folder / "audit_neighbors.npz", indices=audit.neighbors.indices[:, :2], **near)
    expect(r"audit_neighbors\.npz is damaged \(indices are")
    (folder / "audit_neighbors.npz").write_bytes(b"PK\x03\x04")
    expect(r"audit_neighbors\.npz is damaged")


@pytest.mark.parametrize("name", ["audit.json", "audit_test.parquet", "audit_train.parquet"])
def test_a_missing_file_says_how_to_get_it(folder, name):
    (folder / name).unlink()
    with pytest.raises(NotFoundError, match=rf"{name} is missing; 'sightline audit .*' writes it"):
        read_audit(folder)


def test_a_table_has_a_row_for_each_entry_and_an_unknown_one_is_refused(audit):
    causes = audit.table("causes")
    assert causes["count"].tolist() == [one.count for one in audit.error_budget.causes]
    assert causes["interval_low"].tolist() == [one.interval[0] for one in audit.error_budget.causes]
    pairs = audit.table("confused_pairs")
    assert pairs["share"].tolist() == [one.share for one in audit.confused_pairs]
    fixes = audit.table("fixes")
    gains = [fix.gain.value if fix.gain else np.nan for fix in audit.fixes]
    np.testing.assert_array_equal(fixes["gain_value"], gains)
    worst = audit.table("label_issues")
    assert worst["label_quality"].is_monotonic_increasing
    assert len(worst) == len(audit.test)
    with pytest.raises(InputError, match="there is no table 'suspects' of an audit; there are: causes, "):
        audit.table("suspects")


def test_the_summary_of_a_notebook_escapes_every_text(audit):
    content = audit.result.to_dict()
    content["warnings"] = [{"kind": "leak", "text": "<script>alert(1)</script>"}]
    html = Audit(ADAPTER.validate_python(content), audit.test, audit.train, None)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
