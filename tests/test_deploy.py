"""Leaving with the model: its answers elsewhere are its answers here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import sightline as sl
from sightline.cli.app import app
from sightline.data import read_image
from sightline.deploy import (
    AnswerRules,
    answer_table,
    export_hub,
    export_onnx,
    export_torch,
    predict_pictures,
)
from sightline.deploy import pictures as pictures_module
from sightline.deploy.pictures import find_pictures
from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.models import load_model, to_float

SMALL = [
    *("model.options={widths=[8, 8, 8]}", "training.epochs=1", "data.limit=300", "analysis.compare_images=0"),
    *("analysis.range_test=false", "analysis.mistakes=2", "analysis.correct=1", "analysis.samples=2"),
    "training.precision='float32'",
]
RULES = AnswerRules(("cat", "dog", "eel"), (8, 8), temperature=2.0, threshold=0.6, set_threshold=0.7)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    return sl.run("shapes-quick", changes=SMALL, out=out, device="cpu", verbose=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(run.data().test.images[:20]):
        place = folder / ("a" if number % 2 else "b") / f"{number:02d}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(place)
    (folder / "a" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "a" / "notes.txt").write_text("no picture")
    return folder


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


# --- how answers are read ----------------------------------------------------------------------------------


def test_an_answer_by_hand():
    logits = np.array([[2.0, 0.0, -1.0], [0.1, 0.0, 0.05]])
    table = answer_table(RULES, logits, paths=["a.png", "b.png"], probabilities=True)
    assert table["class"].tolist() == ["cat", "cat"]
    np.testing.assert_allclose(table["confidence"], [softmax(row / 2)[0] for row in logits])
    for row, inside in zip(logits, table["set"], strict=True):
        plain = softmax(row)
        order = np.argsort(-plain)
        assert inside == " | ".join(RULES.class_names[k] for k in order if 1 - plain[k] <= 0.7)
    assert table["below_threshold"].tolist() == [softmax(row)[0] < 0.6 for row in logits] == [False, True]
    np.testing.assert_allclose(table[["cat", "dog", "eel"]].sum(axis=1), 1)


def test_rules_come_back_from_their_json_and_nothing_else_does():
    assert AnswerRules.from_json(RULES.to_json(), of="x") == RULES
    for text in ("", "[]", "{}", '{"schema": 1}', '{"schema": 1, "class_names": ["a"], "image_size": 3}'):
        with pytest.raises(DamagedFileError, match="x says nothing of its classes"):
            AnswerRules.from_json(text, of="x")
    with pytest.raises(DamagedFileError, match="x is of version 9"):
        AnswerRules.from_json('{"schema": 9}', of="x")
    with pytest.raises(InputError, match="temperature is 0"):
        AnswerRules(("a",), (8, 8), temperature=0)
    with pytest.raises(InputError, match="not finite"):
        answer_table(RULES, np.full((1, 3), np.nan), paths=["a"])


# --- pictures ----------------------------------------------------------------------------------------------


def test_a_run_answers_for_pictures_as_its_model_does(run, photos, tmp_path):
    done = predict_pictures(
        run.folder, [photos], tmp_path / "answers.parquet", probabilities=True, device="cpu"
    )
    table = pd.read_parquet(done.path)
    assert (done.pictures, len(table), list(done.unread)) == (21, 21, [str(photos / "a" / "torn.png")])
    assert not done.path.with_name("answers.parquet.parts").exists()
    read = table[table["problem"] == ""]
    model, names = run.model(), run.predictions.class_names
    images = np.stack([read_image(path, size=(32, 32)) for path in read["path"]])
    with torch.inference_mode():
        logits = model(to_float(images)).numpy()
    assert read["class"].tolist() == [names[k] for k in logits.argmax(1)]
    expected = np.stack([softmax(row / done.rules.temperature) for row in logits.astype(float)])
    np.testing.assert_allclose(read[list(names)], expected, atol=1e-6)
    np.testing.assert_allclose(read["confidence"], expected.max(1), atol=1e-6)
    torn = table[table["problem"] != ""].iloc[0]
    assert pd.isna(torn["class"])


def test_killed_it_goes_on_and_what_was_answered_is_not_asked_again(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures_module, "BLOCK", 5)
    whole = predict_pictures(run.folder, [photos], tmp_path / "whole.csv", device="cpu")
    asked = []
    answered = pictures_module._answered

    def killed(rules, answer, block, probabilities):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(block)
        return answered(rules, answer, block, probabilities)

    with monkeypatch.context() as patch:
        patch.setattr(pictures_module, "_answered", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_pictures(run.folder, [photos], tmp_path / "again.csv", device="cpu")
    assert not (tmp_path / "again.csv").exists()
    done = predict_pictures(run.folder, [photos], tmp_path / "again.csv", device="cpu")
    assert done.kept == 10
    assert (tmp_path / "again.csv").read_bytes() == whole.path.read_bytes()
    other = [photos / "a"]  # another list of pictures begins anew
    assert predict_pictures(run.folder, other, tmp_path / "again.csv", device="cpu").kept == 0


def test_files_are_found_once_in_folders_manifests_and_patterns(photos, tmp_path):
    one = str(photos / "b" / "00.png")
    assert find_pictures([one, photos / "b", str(photos / "b" / "*.png")])[0] == one
    assert len(find_pictures([one, photos / "b", str(photos / "b" / "*.png")])) == 10
    pd.DataFrame({"path": ["b/00.png", "b/02.png"], "label": ["x", "y"]}).to_csv(
        photos / "list.csv", index=False
    )
    assert find_pictures([photos / "list.csv"]) == [str(photos / "b" / name) for name in ("00.png", "02.png")]
    with pytest.raises(NotFoundError, match=r"gone\.png is not there"):
        find_pictures([photos / "gone.png"])
    with pytest.raises(InputError, match="no pictures in"):
        find_pictures([tmp_path])
    (tmp_path / "bad.csv").write_text("file\nx.png\n")
    with pytest.raises(InputError, match="has no column path; it has file"):
        find_pictures([tmp_path / "bad.csv"])


def test_names_that_a_spreadsheet_would_run_are_made_plain(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(run.data().test.images[0]).save("=cmd.png")
    predict_pictures(run.folder, ["=cmd.png"], "answers.csv", device="cpu")
    assert pd.read_csv("answers.csv")["path"].tolist() == ["'=cmd.png"]
    predict_pictures(run.folder, ["=cmd.png"], "answers.parquet", device="cpu")
    assert pd.read_parquet("answers.parquet")["path"].tolist() == ["=cmd.png"]


def test_maps_are_drawn_for_what_could_be_read(run, photos, tmp_path):
    predict_pictures(run.folder, [photos / "a"], tmp_path / "a.parquet", maps=tmp_path / "maps", device="cpu")
    table = pd.read_parquet(tmp_path / "a.parquet")
    drawn = table.loc[table["problem"] == "", "map"]
    assert len(set(drawn)) == 10
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == sorted(drawn)


# --- export ------------------------------------------------------------------------------------------------


def test_onnx_answers_without_torch_as_the_run_does(run, photos, tmp_path):
    pytest.importorskip("onnxruntime")
    made = export_onnx(run, tmp_path / "model.onnx")
    assert made.difference < 1e-4
    assert made.rules.class_names == run.predictions.class_names
    assert "softmax(logits" in made.card.read_text(encoding="utf-8")
    own = predict_pictures(run.folder, [photos], tmp_path / "own.parquet", device="cpu")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from sightline.cli import main\n"
        f"given = [{str(made.path)!r}, {str(photos)!r}, '--out', {str(tmp_path / 'o.parquet')!r}]\n"
        "sys.exit(main(['predict', *given]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "20 of 21 pictures answered for; 1 could not be read" in done.stdout
    a, b = pd.read_parquet(own.path), pd.read_parquet(tmp_path / "o.parquet")
    pd.testing.assert_frame_equal(a, b, atol=1e-5, rtol=1e-5)


def test_int8_says_what_it_costs(run, tmp_path):
    pytest.importorskip("onnxruntime")
    made = export_onnx(run, tmp_path / "small.onnx", int8=True)
    plain = export_onnx(run, tmp_path / "plain.onnx")
    assert made.path.stat().st_size < plain.path.stat().st_size
    assert made.measured == len(run.data().test)
    own = run.model()
    with torch.inference_mode():
        right = own(to_float(run.data().test.images)).argmax(1).numpy() == run.data().test.labels
    assert made.accuracy_before == right.mean()
    assert abs(made.accuracy - made.accuracy_before) < 0.1


def test_a_model_that_differs_is_not_kept(run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    from sightline.deploy import export

    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(InputError, match=r"differs from the run's own by .* is not kept"):
        export_onnx(run, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_torch_program_gives_the_same_logits_for_any_batch(run, tmp_path):
    made = export_torch(run, tmp_path / "model.pt2")
    extra = {"sightline.json": ""}
    program = torch.export.load(made.path, extra_files=extra).module()
    assert AnswerRules.from_json(extra["sightline.json"], of="x") == made.rules
    images = to_float(run.data().test.images[:7])
    with torch.inference_mode():
        for count in (1, 7):
            torch.testing.assert_close(
                program(images[:count]), run.model()(images[:count]), atol=1e-4, rtol=1e-4
            )


def test_a_hubs_folder_opens_again_and_its_card_says_what_the_audit_says(run, tmp_path):
    folder = export_hub(run, tmp_path / "hub", licence="mit")
    model, card = load_model(folder)
    images = to_float(run.data().test.images[:4])
    torch.testing.assert_close(model(images), run.model()(images))
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith('---\nlicense: "mit"\nlibrary_name: sightline\n')
    for one in run.audit.warnings:
        assert one.text in text
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert list(config["label2id"]) == list(card["class_names"])
    with pytest.raises(InputError, match="is not empty"):
        export_hub(run, folder)


def test_the_commands(run, photos, tmp_path):
    pytest.importorskip("onnxruntime")
    done = CliRunner().invoke(app, ["export", str(run.folder), "--onnx", str(tmp_path / "m.onnx"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "logits differ by" in done.output
    out = tmp_path / "answers.csv"
    done = CliRunner().invoke(
        app, ["predict", str(tmp_path / "m.onnx"), str(photos), "--out", str(out), "--json", "--quiet"]
    )
    assert json.loads(done.stdout)["pictures"] == 21
    assert list(pd.read_csv(out)) == ["path", "class", "confidence", "set", "below_threshold", "problem"]
    for arguments, words in (
        (["export", str(run.folder)], "nothing is to be written"),
        (["export", str(run.folder), "--int8"], "nothing is to be written"),
        (["export", str(run.folder), "--onnx", str(tmp_path / "m.txt")], "this export is a .onnx file"),
        (
            ["predict", str(tmp_path / "m.onnx"), str(photos), "--out", str(tmp_path / "a.txt")],
            "are .csv or .parquet",
        ),
        (["predict", str(tmp_path / "no.onnx"), str(photos), "--out", str(out)], "no.onnx is not there"),
        (["predict", str(tmp_path), str(photos), "--out", str(out)], "is not the folder of a run"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert words in str(done.exception) + done.output
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(DamagedFileError, match="cannot be read as a model"):
        predict_pictures(tmp_path / "bad.onnx", [photos], out)


def test_the_examples_of_the_page_run(run, photos, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    page = Path(__file__).parents[1] / "docs" / "ship.md"
    if not page.exists():
        pytest.skip("the package is installed without its project")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.folder, "runs/mine")
    shutil.copytree(photos, "inbox")
    found: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(code, found)
    assert list(found["done"].unread) == ["inbox/a/torn.png"]
    assert tuple(found["rules"]["class_names"]) == run.predictions.class_names
    assert found["card"]["class_names"] == found["rules"]["class_names"]
