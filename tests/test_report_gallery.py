"""What the page carries: pictures, numbers and maps as they went in."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_audit_fixture import add_audit, photo_like
from report_fixture import write_run

import sightline as sl
from sightline.audit.result import Cause, DifficultyKind, SplitName
from sightline.errors import InputError
from sightline.report import gallery, read_run
from sightline.report.gallery import Columns, add_maps, blank_sprites, make_sprites, tile_picture

NUMPY = {"u8": "u1", "u16": "<u2", "u32": "<u4", "i8": "i1", "i16": "<i2", "i32": "<i4", "f32": "<f4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return add_audit(write_run(tmp_path_factory.mktemp("runs") / "run"))


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
    sprites = make_sprites(images, limit=10**7)
    for place, image in enumerate(images):
        sheet = np.asarray(Image.open(io.BytesIO(sprites.sheets[place // sprites.per_sheet])))
        down, across = divmod(place % sprites.per_sheet, sprites.across)
        found = sheet[16 * down : 16 * down + 16, 16 * across : 16 * across + 16].astype(float)
        assert np.abs(found - images).mean(axis=(1, 2, 3)).argmin() == place
        assert np.abs(found - image).mean() < 16


def test_no_sheet_is_larger_than_a_browser_decodes_and_more_pictures_fill_more_sheets(monkeypatch):
    monkeypatch.setattr("sightline.report.gallery.SHEET_SIDE", 64)
    sprites = make_sprites(photo_like(40, 16), limit=10**7)
    sizes = [Image.open(io.BytesIO(sheet)).size for sheet in sprites.sheets]
    assert (sprites.across, sprites.per_sheet) == (4, 16)
    assert sizes == [(64, 64), (64, 64), (64, 32)]
    monkeypatch.undo()
    (sheet,) = make_sprites(np.zeros((10_000, 32, 32, 3), np.uint8), limit=12_000_000).sheets
    assert Image.open(io.BytesIO(sheet)).size == (3200, 3200)


def test_pictures_are_reduced_until_they_fit_and_keep_their_shape():
    sprites = make_sprites(photo_like(50, 64)[:, :32], limit=50 * 24 * 12)
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
    run = read_run(folder)
    found = gallery.gallery_payload(run)
    columns = opened(found.manifest["columns"], found.blobs["columns"])
    test = pd.read_parquet(folder / "audit_test.parquet")
    for name in ("label", "predicted", "suggested", "slice", "near_duplicate", "set_size"):
        assert columns[f"test.{name}"].tolist() == test[name].tolist(), name
    for name in ("loss", "confidence", "margin", "ambiguity", "label_quality"):
        np.testing.assert_allclose(columns[f"test.{name}"], test[name], rtol=1e-6)
    names = ["", *map(str, Cause)]
    assert [names[code] for code in columns["test.cause"]] == test["cause"].tolist()
    names = ["", *map(str, DifficultyKind)]
    assert [names[code] for code in columns["test.difficulty"]] == test["difficulty"].tolist()
    with np.load(folder / "dynamics.npz") as file:
        curves = file["probability"][:, columns["train.index"]].T.astype(float)
    shown = columns["train.curve"].reshape(curves.shape).astype(float)
    np.testing.assert_allclose(np.where(shown == 255, np.nan, shown / 254), curves, atol=1 / 254)


def test_of_too_many_test_images_mistakes_come_first_and_then_what_findings_name(folder):
    run = read_run(folder)
    p, wrong = run.predictions, np.flatnonzero(~run.predictions.correct)
    few = len(wrong) // 2
    assert gallery.kept_tests(run, most=few).tolist() == sorted(np.argsort(-p.loss)[:few].tolist())
    named = {i for fix in run.audit.fixes if fix.split is SplitName.TEST for i in fix.images}
    named |= {i for one in run.audit.slices for i in one.rows} | set(wrong.tolist())
    named |= {issue.index for issue in run.audit.label_issues.test.rows}
    most = len(named) + 20
    assert most < len(p)
    kept = set(gallery.kept_tests(run, most=most).tolist())
    assert len(kept) == most
    assert named <= kept
    assert gallery.kept_tests(run).tolist() == list(range(len(p)))
    manifest = gallery.gallery_payload(run, most=30).manifest
    assert manifest["columns"]["test.loss"][2] == 30
    assert manifest["tests"] == 200


def test_a_page_of_fewer_images_is_smaller_and_counts_all(folder, tmp_path):
    whole = sl.write_report(folder, tmp_path / "whole.html").read_text(encoding="utf-8")
    part = sl.write_report(folder, tmp_path / "part.html", images=20).read_text(encoding="utf-8")
    assert len(part) < len(whole)
    assert part.count("of 200") == whole.count("of 200")
    with pytest.raises(InputError, match="images is 0; a page needs at least 1 test image"):
        sl.write_report(folder, images=0)


def test_of_too_many_training_images_those_that_a_fix_names_are_shown(folder, monkeypatch):
    run = read_run(folder)
    named = {i for fix in run.audit.fixes if fix.split is SplitName.TRAIN for i in fix.images}
    monkeypatch.setattr(gallery, "TRAIN_LIMIT", len(named))
    found = gallery.gallery_payload(run)
    assert set(opened(found.manifest["columns"], found.blobs["columns"])["train.index"].tolist()) == named


def test_without_pictures_every_image_has_the_same_empty_one_and_named_training_images_stay(tmp_path):
    folder = add_audit(write_run(tmp_path / "run"))
    (folder / "gallery.npz").unlink()
    run = read_run(folder)
    found = gallery.gallery_payload(run)
    assert found.manifest["grids"] == {}
    for sprites in found.manifest["sprites"].values():
        sheet = Image.open(io.BytesIO(base64.b64decode(found.blobs[sprites["sheets"][0]])))
        assert sheet.convert("RGBA").getpixel((0, 0))[3] == 0
        assert sprites["per_sheet"] > len(run.predictions)
    listed = set(opened(found.manifest["columns"], found.blobs["columns"])["train.index"].tolist())
    assert listed >= {i for fix in run.audit.fixes if fix.split is SplitName.TRAIN for i in fix.images}
    assert blank_sprites() == blank_sprites()


def test_a_small_picture_is_kept_to_the_bit_and_a_large_one_reduced():
    (small,), (large,) = photo_like(1, 16), np.zeros((1, 300, 200, 3), np.uint8)
    kind, data = tile_picture(small, "alt").uri.split(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), small)
    kind, data = tile_picture(large, "alt").uri.split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (107, 160)
