"""What the page carries: pictures, numbers and maps as they went in, and nothing that could run."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_audit_fixture import photo_like, write_audit
from report_fixture import predictions_of, write_run
from test_report_page import Page

from sightline.errors import SightlineError
from sightline.report import gallery, load_report_data, page, render_page, write_comparison
from sightline.report.formatting import class_keys
from sightline.report.gallery import Columns, add_maps, make_sprites
from sightline.report.svg import plane

NUMPY = {"u8": "u1", "u16": "<u2", "u32": "<u4", "i8": "i1", "i16": "<i2", "i32": "<i4", "f32": "<f4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_audit(write_run(tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def html(folder):
    return render_page(load_report_data(folder))


def opened(places: dict, packed: str) -> dict[str, np.ndarray]:
    """The columns as the page's script reads them."""
    raw = base64.b64decode(packed)
    return {
        name: np.frombuffer(raw, NUMPY[kind], count=size, offset=start)
        for name, (kind, start, size) in places.items()
    }


# --- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 7, 130])
def test_a_picture_lies_where_its_number_says(number):
    images = photo_like(number, 16)
    sprites = make_sprites(images, most_pixels=10**7)
    for place, image in enumerate(images):
        sheet = np.asarray(Image.open(io.BytesIO(sprites.sheets[place // sprites.per_sheet])))
        down, across = divmod(place % sprites.per_sheet, sprites.across)
        found = sheet[16 * down : 16 * down + 16, 16 * across : 16 * across + 16].astype(float)
        assert np.abs(found - images).mean(axis=(1, 2, 3)).argmin() == place
        assert np.abs(found - image).mean() < 16


def test_no_sheet_is_larger_than_a_browser_decodes_and_more_pictures_fill_more_sheets(monkeypatch):
    monkeypatch.setattr("sightline.report.gallery.SHEET_SIDE", 64)
    sprites = make_sprites(photo_like(40, 16), most_pixels=10**7)
    sizes = [Image.open(io.BytesIO(sheet)).size for sheet in sprites.sheets]
    assert (sprites.across, sprites.per_sheet) == (4, 16)
    assert sizes == [(64, 64), (64, 64), (64, 32)]
    monkeypatch.undo()
    (sheet,) = make_sprites(np.zeros((10_000, 32, 32, 3), np.uint8), most_pixels=12_000_000).sheets
    assert Image.open(io.BytesIO(sheet)).size == (3200, 3200)


def test_pictures_are_reduced_until_they_fit_and_keep_their_shape():
    sprites = make_sprites(photo_like(50, 64)[:, :32], most_pixels=50 * 24 * 12)
    assert (sprites.width, sprites.height) == (24, 12)
    assert Image.open(io.BytesIO(sprites.sheets[0])).size == (8 * 24, 7 * 12)


# --- numbers ---------------------------------------------------------------------------------------------


def test_columns_come_back_as_they_went_in_and_small():
    columns = Columns()
    columns.add_integers("small", np.array([0, 255]))
    columns.add_integers("signed", np.array([-1, 127]))
    columns.add_integers("large", np.array([70_000]))
    columns.add_integers("none", np.array([], int))
    columns.add_floats("floats", np.array([0.5, np.inf, np.nan]))
    found = opened(columns.places, columns.base64)
    assert [columns.places[name][0] for name in ("small", "signed", "large")] == ["u8", "i8", "u32"]
    assert found["small"].tolist() == [0, 255]
    assert found["signed"].tolist() == [-1, 127]
    assert found["large"].tolist() == [70_000]
    assert found["none"].tolist() == []
    np.testing.assert_array_equal(found["floats"], np.array([0.5, np.nan, np.nan], np.float32))
    assert all(start % 8 == 0 for _, start, _ in columns.places.values())


def test_maps_keep_their_sign_and_scale_to_a_byte():
    maps = np.random.default_rng(0).normal(0, [[[1e-4]], [[3.0]], [[0.0]]], (3, 5, 5))
    maps[1, 0, 0] = -9
    columns = Columns()
    add_maps(columns, "m", np.concatenate([maps, np.full((1, 5, 5), np.nan)]))
    found = opened(columns.places, columns.base64)
    scale = found["m.scale"]
    back = found["m.grid"].reshape(4, 5, 5)[:3] * scale[:3, None, None]
    limit = np.abs(maps).max(axis=(1, 2)) / 127 / 2 * 1.001
    assert (np.abs(back - maps).max(axis=(1, 2)) <= limit).all()
    assert np.isnan(scale[3])


def test_the_galleries_hold_the_tables(folder):
    data = load_report_data(folder)
    found = gallery.gallery_payload(data)
    columns = opened(found.manifest["columns"], found.blobs["columns"])
    test = pd.read_parquet(folder / "audit_test.parquet")
    for name in ("label", "predicted", "suggested", "slice", "twin", "set_size"):
        assert columns[f"test.{name}"].tolist() == test[name].tolist(), name
    for name in ("loss", "confidence", "margin", "ambiguity", "suspicion"):
        np.testing.assert_allclose(columns[f"test.{name}"], test[name], rtol=1e-6)
    names = ["", *gallery.ALL_CAUSES]
    assert [names[code] for code in columns["test.cause"]] == test["cause"].tolist()
    names = ["", *gallery.KINDS]
    assert [names[code] for code in columns["test.difficulty"]] == test["difficulty"].tolist()
    with np.load(folder / "dynamics.npz") as file:
        curves = file["probability"][:, columns["train.index"]].T.astype(float)
    shown = columns["train.curve"].reshape(curves.shape).astype(float)
    np.testing.assert_allclose(np.where(shown == 255, np.nan, shown / 254), curves, atol=1 / 254)


def test_of_too_many_test_images_those_of_highest_loss_are_shown(folder, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_TEST", 30)
    data = load_report_data(folder)
    kept = gallery.kept_tests(data)
    assert kept.tolist() == sorted(np.argsort(-data.predictions.loss)[:30].tolist())
    manifest = gallery.gallery_payload(data).manifest
    assert manifest["columns"]["test.loss"][2] == 30
    assert manifest["tests"] == 200


def test_of_too_many_training_images_those_that_a_fix_names_are_shown(folder, monkeypatch):
    data = load_report_data(folder)
    named = {i for fix in data.audit.facts["fixes"] if fix["split"] == "train" for i in fix["images"]}
    monkeypatch.setattr(gallery, "MOST_TRAIN", len(named))
    found = gallery.gallery_payload(data)
    assert set(opened(found.manifest["columns"], found.blobs["columns"])["train.index"].tolist()) == named


def test_classes_of_one_name_have_keys_of_their_own():
    keys = class_keys(["a", "a", "a~1", "x" * 900, "x" * 901])
    assert len(set(keys)) == 5
    assert max(map(len, keys)) < 60


# --- the page --------------------------------------------------------------------------------------------


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
    assert len(script.encode()) < 60_000
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


def test_the_gallery_takes_the_place_of_the_fixed_pictures(html):
    anchors = [attributes["id"] for attributes in Page(html).all("section")]
    assert anchors[:6] == [
        "summary",
        "fixes",
        "error-budget",
        "gallery",
        "confusion-matrix",
        "confused-pairs",
    ]
    assert not {"most-costly-mistakes", "where-mistakes", "where-correct"} & set(anchors)
    assert "The gallery needs this page's own script" in Page(html).text


def test_parts_of_the_budget_add_up(folder, html):
    widths = [float(r["width"]) for r in Page(html).all("rect") if (r.get("class") or "").startswith("part-")]
    bars = [width for width in widths if width != 12]
    assert sum(bars) + 3 * len(bars) == pytest.approx(1000, abs=0.1)


def test_sections_go_with_their_facts(folder, tmp_path):
    copy = write_audit(write_run(tmp_path / "run"))
    facts = json.loads((copy / "audit.json").read_text(encoding="utf-8"))
    (copy / "audit.json").write_text(json.dumps({"accuracy": facts["accuracy"]}), encoding="utf-8")
    (copy / "dynamics.npz").unlink()
    with np.load(copy / "audit.npz") as file:
        arrays = {name: file[name] for name in ("thumbnails", "train_rows", "train_thumbnails")}
    np.savez(copy / "audit.npz", **arrays)
    anchors = [attributes["id"] for attributes in Page(render_page(load_report_data(copy))).all("section")]
    gone = {"fixes", "error-budget", "label-suspects", "duplicates", "slices", "calibration", "selective"}
    assert not gone & set(anchors)
    assert "gallery" in anchors


def test_a_page_that_would_be_too_large_is_refused(folder, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 100_000)
    with pytest.raises(
        SightlineError, match=r"the page would take 0\.\d MB and at most 0 MB open well; anal"
    ):
        render_page(load_report_data(folder))


def test_files_of_another_run_are_refused(tmp_path):
    folder = write_audit(write_run(tmp_path / "run"))
    table = pd.read_parquet(folder / "audit_test.parquet")
    table.iloc[:50].to_parquet(folder / "audit_test.parquet")
    with pytest.raises(
        SightlineError, match=r"has 50 test images and predictions\.parquet 200; the files are"
    ):
        load_report_data(folder)
    table.drop(columns="loss").to_parquet(folder / "audit_test.parquet")
    with pytest.raises(SightlineError, match=r"audit_test.parquet cannot be read \(.*loss.*\); delete it"):
        load_report_data(folder)
    table.to_parquet(folder / "audit_test.parquet")
    train = pd.read_parquet(folder / "audit_train.parquet")
    train.iloc[:9].to_parquet(folder / "audit_train.parquet")
    with pytest.raises(SightlineError, match=r"names training image \d+ and audit_train.parquet has 9 rows"):
        load_report_data(folder)
    (folder / "audit_train.parquet").unlink()
    with pytest.raises(SightlineError, match=r"audit_train\.parquet is missing"):
        load_report_data(folder)


def test_runs_on_other_data_are_not_compared(folder, tmp_path):
    other = write_audit(write_run(tmp_path / "other", predictions=predictions_of(n=40)))
    with pytest.raises(
        SightlineError, match="were tested on other images or labels; compare runs on the same"
    ):
        write_comparison(folder, other, {}, tmp_path / "c.html")
    bare = write_run(tmp_path / "bare")
    with pytest.raises(SightlineError, match="the run bare has no audit; audit it first"):
        write_comparison(folder, bare, {}, tmp_path / "c.html")


# --- diagrams --------------------------------------------------------------------------------------------


def test_a_diagram_puts_values_in_their_place_and_says_its_ticks():
    flat = plane("", "", x=(0, 10), y=(0, 0.05), labels=("x", "y"), shares=(False, True), size=(300, 200))
    axes = flat.axes
    assert (flat.x(0), flat.x(10)) == (axes.left, axes.right)
    assert (flat.y(0), flat.y(0.05)) == (axes.bottom, axes.top)
    assert flat.x(2.5) == pytest.approx(axes.left + (axes.right - axes.left) / 4, abs=0.01)
    assert [text for _, text in axes.y_ticks] == [f"{k}\u00a0%" for k in range(6)]
    halves = plane("", "", x=(0, 1), y=(0, 0.1), labels=("", ""), shares=(True, True)).axes
    assert [text for _, text in halves.y_ticks][1] in ("2\u00a0%", "2.5\u00a0%")
    line = flat.line("", "accent", [0, 5, np.nan], [0.01, np.nan, 0.02], ["a", "b", "c"])
    assert [point.text for point in line.points] == ["a"]
