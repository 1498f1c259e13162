"""The page that compares two runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from report_audit_fixture import add_audit
from report_fixture import predictions_of, write_run
from test_report_page import Page

from sightline.audit import compare_predictions
from sightline.errors import InputError
from sightline.predictions.table import read_predictions
from sightline.report import Rows, read_run, render_comparison, write_comparison


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = tmp_path_factory.mktemp("runs")
    return [
        add_audit(write_run(made / f"run-{seed}", predictions=predictions_of(seed=seed))) for seed in (0, 3)
    ]


def _found(folders):
    a, b = (read_predictions(folder / "predictions.parquet") for folder in folders)
    return compare_predictions(a, b)


def test_the_change_has_the_digits_of_its_interval_and_its_verdict_follows_the_test(folders, tmp_path):
    found = _found(folders)
    text = Page(write_comparison(*folders, found, tmp_path / "c.html").read_text(encoding="utf-8")).text
    assert f"{100 * found.difference:+.0f}".replace("-", "−") in text
    assert "These test images do not tell which run is better" in text
    assert f"McNemar's test p = {found.p:.2f}" in text
    a, b = map(read_run, folders)
    sure = dataclasses.replace(found, p=8e-7, difference=-0.11, interval=(-0.15, -0.07))
    text = Page(render_comparison(a, b, sure)).text
    assert "B is worse than A on these test images." in text
    assert "−11.0 points of accuracy" in text
    assert "95\u00a0% interval −15.0 to −7.0 points; McNemar's test p < 0.001".replace("\u00a0", " ") in text


def test_classes_stand_from_the_largest_loss_on(folders):
    found = _found(folders)
    html = render_comparison(*map(read_run, folders), found)
    expected = found.per_class.sort_values("difference", kind="stable")["label"].tolist()
    table = html[html.index('id="per-class"') :]
    assert [table.index(f'<th scope="row">{name}</th>') for name in expected] == sorted(
        table.index(f'<th scope="row">{name}</th>') for name in expected
    )


def test_runs_on_other_data_are_not_compared(folders, tmp_path):
    other = write_run(tmp_path / "other", predictions=predictions_of(n=40))
    with pytest.raises(InputError, match="were tested on other images or labels; compare runs on the same"):
        write_comparison(folders[0], other, _found(folders), tmp_path / "c.html")


def test_a_run_without_pictures_is_compared_by_its_answers(folders, tmp_path):
    bare = write_run(tmp_path / "bare", predictions=predictions_of(seed=0))
    text = Page(render_comparison(read_run(bare), read_run(folders[1]), _found(folders))).text
    assert "bare keeps no pictures. sightline audit RUN adds them." in text


def test_images_that_only_some_runs_have_are_named_by_the_rows(folders):
    a, b = map(read_run, folders)
    found = _found(folders)
    rows = np.arange(len(a.predictions))
    assert render_comparison(a, b, found, rows=Rows(rows, rows)) == render_comparison(a, b, found)
