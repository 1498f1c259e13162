"""Slices by declared metadata: found on planted arrays, rarely on clean ones, compared with confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact, hypergeom

from sightline.audit.metadata_slices import find_declared, metadata_conditions
from sightline.audit.slices import Condition, attribute_conditions, class_conditions, find_slices


def images(seed: int, *, more: float) -> tuple[np.ndarray, pd.DataFrame]:
    """Mistakes of 500 images, 100 of them of a camera that errs `more`; and columns that say nothing."""
    rng = np.random.default_rng(seed)
    phone = rng.permutation(500) < 100
    table = pd.DataFrame(
        {
            "path": [f"{n}.jpg" for n in range(500)],
            "camera": np.where(phone, "phone", "slr"),
            "site": rng.choice(["a", "b", "c"], 500),
            "age": rng.normal(50, 10, 500),
            "serial": [f"n{n}" for n in range(500)],
        }
    )
    return rng.random(500) < 0.11 + more * phone, table


def test_conditions_are_of_values_and_of_ends_of_numbers():
    _, table = images(0, more=0.0)
    words = [one.words for one in metadata_conditions(table)]
    values = ["with camera = phone", "with camera = slr", "with site = a", "with site = b", "with site = c"]
    assert words == [*values, "of low age", "of high age"]


def test_a_camera_of_20_points_more_error_is_found_and_nothing_in_clean_data():
    found = named = false = 0
    for seed in range(100):
        wrong, table = images(seed, more=0.2)
        slices = find_declared(wrong, metadata_conditions(table))
        found += bool(slices) and slices[0].name == "images with camera = phone"
        named += len(slices)
        wrong, table = images(seed, more=0.0)
        attributes = pd.DataFrame(np.random.default_rng(seed).normal(size=(500, 7)), columns=list("abcdefg"))
        labels, predicted = np.random.default_rng(seed).integers(0, 4, (2, 500))
        conditions = class_conditions(labels, predicted, "abcd") + attribute_conditions(attributes)
        clean = find_declared(wrong, metadata_conditions(table))
        false += bool(clean + find_slices(wrong, conditions, seed=seed))
    assert found >= 95
    assert named <= found + 10
    assert false <= 5


def test_the_test_is_that_of_fisher_corrected_by_holm():
    wrong, table = images(3, more=0.2)
    conditions = metadata_conditions(table)
    slices = find_declared(wrong, conditions, level=1.0)
    by_name = {one.name: one for one in slices}
    inside = (table["camera"] == "phone").to_numpy()
    cells = [[(side & part).sum() for side in (wrong, ~wrong)] for part in (inside, ~inside)]
    p = fisher_exact(cells, alternative="greater").pvalue
    p -= hypergeom.pmf(cells[0][0], 500, wrong.sum(), inside.sum()) / 2
    one = by_name["images with camera = phone"]
    assert one.p == pytest.approx(min(1, 7 * p), rel=1e-9)  # the least of seven
    assert (one.error, one.rest) == (wrong[inside].mean(), wrong[~inside].mean())
    assert "among all its 100 images" in one.evidence


def test_a_searched_slice_has_to_err_more_than_its_confidence_predicts():
    rng = np.random.default_rng(0)
    members = rng.permutation(2000) < 500
    wrong = rng.random(2000) < np.where(members, 0.4, 0.1)
    condition = Condition("colour", "that are dark", members)
    knows = np.where(members, 0.4, 0.1)
    found = find_slices(wrong, [condition], expected=np.full(2000, 0.2))
    assert [one.name for one in found] == ["images that are dark"]
    assert find_slices(wrong, [condition], expected=knows) == []
    told = find_declared(wrong, [condition], expected=knows)[0].evidence
    assert told.endswith("by the model's confidence it would be 41 %") or told.endswith("it would be 40 %")
