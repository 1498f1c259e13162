"""faithfulness.json: written and read, also that of version 0.1, and refused where it is damaged."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sightline.errors import DamagedFileError, NotFoundError
from sightline.faithfulness.result import (
    FILE,
    SCHEMA,
    BaselineScore,
    FaithfulnessResult,
    GridGame,
    MeasureInfo,
    MethodScore,
    Planted,
    PlantedScore,
    read_faithfulness,
    write_faithfulness,
)


@pytest.fixture
def result() -> FaithfulnessResult:
    score = PlantedScore("spread evenly", 0.25, 0.25, None)
    return FaithfulnessResult(
        layer="layer3",
        images=64,
        best="hires_cam",
        tied=("grad_cam",),
        coincide={"xgrad_cam": "grad_cam"},
        skipped={"cam": "it needs a linear head"},
        measures=(MeasureInfo("deletion", False, "mean"),),
        methods=(
            MethodScore(
                "hires_cam", "better than every baseline map", 1.5, 0.0, {"deletion": (0.2, 0.1, 0.3)}
            ),
            MethodScore("grad_cam", "no better than an edge map", 1.25, 0.125, {"deletion": (0.3, 0.2, 0.4)}),
        ),
        baselines=(BaselineScore("grad_cam", "deletion", "an edge map", 0.1, -0.05, -0.2, 0.1, "tied"),),
        grid=GridGame("hires_cam", 0.75, 0.5, 0.875, 20, 0.25),
        preflight=("Net, layer 'layer3': 8x8 cells, 16 channels.",),
        planted=Planted((score,), score, 10, 0, {}),
    )


def test_what_is_written_is_read(result, tmp_path):
    write_faithfulness(tmp_path, result)
    assert read_faithfulness(tmp_path) == result
    assert json.loads((tmp_path / FILE).read_text())["schema"] == SCHEMA == 2
    alone = dataclasses.replace(result, grid=None, planted=None)
    write_faithfulness(tmp_path, alone)
    assert read_faithfulness(tmp_path) == alone


def test_the_verdict_on_a_method_is_that_of_the_one_it_coincides_with(result):
    assert result.verdict("xgrad_cam") == result.verdict("grad_cam") == "no better than an edge map"
    assert result.verdict("my_own") is None


def test_the_file_of_version_0_1_is_read(result, tmp_path):
    write_faithfulness(tmp_path, result)
    old = json.loads((tmp_path / FILE).read_text())
    del old["schema"], old["planted"]
    rows = [row | {"control": "edges"} for row in old.pop("baselines")]
    old["controls"] = [{key: value for key, value in row.items() if key != "baseline"} for row in rows]
    old["methods"][0]["verdict"] = "better than every control"
    old["methods"][1]["verdict"] = (
        "better than random and another class; no better than a centred blob and edges; "
        "worse than an untrained twin"
    )
    (tmp_path / FILE).write_text(json.dumps(old))
    found = read_faithfulness(tmp_path)
    assert found.baselines == result.baselines
    assert [method.verdict for method in found.methods] == [
        "better than every baseline map",
        "better than a random map and the map of another class; no better than a centred blob and "
        "an edge map; worse than the map of an untrained network",
    ]
    assert (found.planted, found.schema) == (None, SCHEMA)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Invalid JSON: EOF"),
        ("[]", "Input should be an object"),
        ("3", "Input should be an object"),
        ("null", "Input should be an object"),
        ("{}", "layer: Field required"),
        ("[" * 100_000, "recursion"),
        ('{"a":' * 100_000, "recursion"),
        (r'{"layer": "\ud800"}', "Invalid JSON"),
        ('{"controls": 3, "methods": [3]}', "layer: Field required"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(content, reason, tmp_path):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DamagedFileError, match=reason) as caught:
        read_faithfulness(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / FILE} is damaged (")
    assert str(caught.value).endswith(f"'sightline analyze {tmp_path}' writes it again")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("layer", 3, "layer: Input should be a valid string"),
        ("best", "scam", "its parts do not agree"),
        ("extra", 3, "extra"),
        ("measures", [{"name": "road", "higher_is_better": True, "fill": None}], "its parts do not agree"),
        ("schema", "new", "schema: Input should be a valid integer"),
        ("schema", 3, "has schema 3, this Sightline reads 2; it is of a newer Sightline"),
    ],
)
def test_parts_that_do_not_fit_are_named(key, value, reason, result, tmp_path):
    write_faithfulness(tmp_path, result)
    content = json.loads((tmp_path / FILE).read_text()) | {key: value}
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=reason):
        read_faithfulness(tmp_path)


def test_a_file_that_is_missing_or_a_folder_is_said(tmp_path):
    with pytest.raises(NotFoundError, match=r"faithfulness.json is missing; 'sightline analyze"):
        read_faithfulness(tmp_path)
    (tmp_path / FILE).mkdir()
    with pytest.raises(DamagedFileError, match=r"cannot be read \(it is not a regular file\)"):
        read_faithfulness(tmp_path)
