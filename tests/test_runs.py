"""The whole job on the embedded data: what it leaves, what it finds of what was planted, repeating it."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
from PIL import Image

import sightline as sl
from sightline.audit import check_planted
from sightline.errors import MissingExtraError, SightlineError, UntrustedError
from sightline.models import load_model
from sightline.predictions import predict, rank_mistakes
from sightline.runs import (
    existing_folder,
    explain_pictures,
    list_runs,
    new_folder,
    start_run,
    summarize_run,
    train,
)

SMALL = (
    "model.options={widths=[8, 16, 16]}",
    "training.epochs=2",
    "training.precision=float32",
    "data.limit=600",
    "analysis.range_test=false",
    "analysis.compare_images=0",
    "analysis.mistakes=6",
    "analysis.correct=3",
    "analysis.samples=5",
    "analysis.audit=false",
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    changes = [*SMALL, "analysis.compare_images=8"]
    return sl.run("shapes-quick", changes=changes, out=folder, device="cpu", verbose=False)


def test_a_run_leaves_these_files(run):
    assert set(names(run.folder)) == {
        "recipe.toml", "environment.json", "data.json", "history.csv", "steps.csv", "model.safetensors",
        "model.json", "checkpoint.pt", "predictions.parquet", "metrics.json", "explanations.npz",
        "explanations.json", "samples.npz", "faithfulness.json", "figures", "report.html", "dynamics.npz",
    }  # fmt: skip
    assert {p.name for p in (run.folder / "figures").iterdir()} >= {
        "loss.png",
        "accuracy.png",
        "confusion.png",
    }


def test_the_tables_agree_with_each_other_and_with_the_model(run):
    last = run.history.iloc[-1]
    assert len(run.history) == 2
    assert run.metrics["accuracy"] == pytest.approx(last["test_accuracy"]) == run.predictions.correct.mean()
    assert run.metrics["loss"] == pytest.approx(last["test_loss"], rel=1e-6)
    assert run.metrics["mistakes"] == (~run.predictions.correct).sum()
    again = predict(run.model(), run.data().test, class_names=run.data().class_names)
    np.testing.assert_allclose(again.logits, run.predictions.logits, atol=1e-5)
    np.testing.assert_array_equal(again.labels, run.predictions.labels)
    assert len(pd.read_csv(run.folder / "steps.csv")) == 2 * 3


def test_the_gallery_holds_the_costliest_mistakes_with_maps_for_both_classes(run):
    ranked = rank_mistakes(run.predictions, limit=6)["index"].to_numpy()
    images = run.data().test.images
    method = json.loads((run.folder / "explanations.json").read_text())["name"]
    assert method == json.loads((run.folder / "faithfulness.json").read_text())["best"]  # "auto"
    with np.load(run.folder / "explanations.npz") as saved:
        np.testing.assert_array_equal(saved["mistakes/index"], ranked)
        np.testing.assert_array_equal(saved["mistakes/images"], images[ranked])
        assert run.predictions.correct[saved["correct/index"]].all()
        float_images = torch.from_numpy(images[ranked]).permute(0, 3, 1, 2) / 255
        for target, classes in (("predicted", run.predictions.predicted), ("label", run.predictions.labels)):
            expected = sl.explain(
                run.model(), float_images, classes[ranked], layer="block2", method=method
            ).maps
            np.testing.assert_allclose(saved[f"mistakes/block2/{target}"], expected, atol=1e-5)
        assert {"mistakes/block1/label", "mistakes/block3/predicted"} <= set(saved.files)


def test_the_samples_are_training_images_and_their_augmented_selves(run):
    train = run.data().train
    with np.load(run.folder / "samples.npz") as saved:
        for image, label in zip(saved["images"], saved["labels"], strict=True):
            assert label in train.labels[(train.images == image).all((1, 2, 3))]
        np.testing.assert_array_equal(saved["augmented_one"][0], saved["images"][0])
        assert (saved["augmented_one"][1:] != saved["images"][0]).any()
        assert saved["augmented"].shape == saved["images"].shape


def test_the_resolved_recipe_repeats_the_run(run, tmp_path):
    again = sl.run(run.folder / "recipe.toml", out=tmp_path / "again", device="cpu", verbose=False)
    np.testing.assert_array_equal(again.predictions.logits, run.predictions.logits)
    assert again.recipe == run.recipe
    assert tomllib.loads((run.folder / "recipe.toml").read_text())["training"]["precision"] == "float32"


def test_the_comparison_of_methods_is_kept_and_shown(run):
    found = json.loads((run.folder / "faithfulness.json").read_text())
    names = {method["name"] for method in found["methods"]} | set(found["coincide"])
    assert names == {"grad_cam", "hires_cam", "layer_cam", "eigen_cam", "ablation_cam"}
    assert found["methods"][0]["name"] == found["best"]
    named = {row["baseline"] for row in found["baselines"]}
    assert named >= {"a random map", "an edge map", "the map of another class"}
    page = run.report.read_text()
    assert "Can these maps be believed?" in page
    for method in found["methods"]:
        assert method["verdict"] in page
    # Against the masks, by hand: the share of the heat on the object, for one method.
    data, truth = run.data(), run.data().truth
    shown = truth.test_masks.any((1, 2))
    right = np.flatnonzero(run.predictions.correct & ~truth.shortcut_test & shown)[:24]
    images = sl.to_float(data.test.images[right])
    heat = sl.explain(run.model(), images, run.predictions.predicted[right], layer="block2").heatmaps()
    masks = truth.test_masks[right]
    heat[heat.sum((1, 2)) == 0] = 1
    shares = (heat * masks).sum((1, 2)) / heat.sum((1, 2))
    row = next(row for row in found["planted"]["methods"] if row["name"] == "grad_cam")
    assert row["energy"] == pytest.approx(shares.mean(), rel=1e-4)
    shown = {row["name"].partition(",")[0] for row in found["planted"]["methods"]}
    assert shown | set(found["planted"]["skipped"]) == set(sl.METHODS)
    assert set(found["planted"]["skipped"]) == {"cam", "deconvnet", "guided_backprop", "guided_grad_cam"}
    assert names <= shown


def test_auto_takes_the_most_faithful_method(run, tmp_path, monkeypatch):
    path = tmp_path / "one.png"
    Image.fromarray(run.data().test.images[0]).save(path)
    best = json.loads((run.folder / "faithfulness.json").read_text())["best"]
    assert explain_pictures(run.folder, [path], out=tmp_path / "a", method="auto")[0]["method"] == best
    drawn = json.loads((run.folder / "explanations.json").read_text())["name"]
    assert explain_pictures(run.folder, [path], out=tmp_path / "b")[0]["method"] == drawn
    row = explain_pictures(run.folder, [path], out=tmp_path / "c", method="saliency")[0]
    assert (row["method"], row["layer"]) == ("saliency", "input")
    # A name in a file of the run is imported only if that is said.
    other = tmp_path / "other"
    shutil.copytree(run.folder, other)
    card = json.loads((other / "explanations.json").read_text()) | {"name": "sightline_theirs:bright"}
    (other / "explanations.json").write_text(json.dumps(card))
    (tmp_path / "sightline_theirs.py").write_text("def bright(a, g):\n    return a.sum(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UntrustedError, match="--trust sightline_theirs"):
        explain_pictures(other, [path])
    trusted = explain_pictures(other, [path], trust=["sightline_theirs"])
    assert trusted[0]["method"] == "bright"
    own = explain_pictures(run.folder, [path], out=tmp_path / "d", method="sightline_theirs:bright")
    assert own[0]["method"] == "bright"


def test_a_run_can_explain_by_the_most_faithful_method(tmp_path):
    changes = [*SMALL, "training.epochs=1", "analysis.compare_images=4", "analysis.method=auto"]
    changes += ["analysis.compare=['saliency', 'hires_cam']"]
    made = sl.run("shapes-quick", changes=changes, out=tmp_path / "auto", device="cpu", verbose=False)
    best = json.loads((made.folder / "faithfulness.json").read_text())["best"]
    card = json.loads((made.folder / "explanations.json").read_text())
    assert card["name"] == best
    assert card["main_layer"] == ("input" if best == "saliency" else "block2")


def test_a_run_without_mistakes_or_comparison_is_reported_too(tmp_path):
    changes = [
        *SMALL,
        "training.epochs=1",
        "analysis.compare_images=0",
        "analysis.mistakes=0",
        "analysis.correct=0",
    ]
    made = sl.run("shapes-quick", changes=changes, out=tmp_path / "bare", device="cpu", verbose=False)
    assert not (made.folder / "faithfulness.json").exists()
    assert "Can these maps be believed?" not in made.report.read_text()
    with pytest.raises(SightlineError, match="has no comparison of methods, which method auto needs"):
        explain_pictures(made.folder, [made.folder / "figures" / "loss.png"], method="auto")


def test_the_report_is_written_again_byte_by_byte(run):
    before = run.report.read_bytes()
    sl.write_report(run.folder)
    assert run.report.read_bytes() == before


def test_the_environment_says_what_the_run_depends_on(run):
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["hardware"]["device"] == "cpu"


def test_a_validation_split_decides_and_the_report_says_so(tmp_path):
    changes = [*SMALL, "training.validation=0.2", "training.keep=best"]
    chosen = sl.run("shapes-quick", changes=changes, out=tmp_path / "v", device="cpu", verbose=False)
    best = chosen.history["validation_loss"].to_numpy().argmin() + 1
    assert chosen.metrics["selection"] == f"best validation loss (epoch {best})"
    assert load_model(chosen.folder)[1]["epoch"] == best


def test_the_range_test_is_kept_if_the_recipe_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sightline.runs.find_lr.allowed_steps", lambda whole: 50)
    changes = [*SMALL, "analysis.range_test=true", "training.epochs=1"]
    tested = sl.run("shapes-quick", changes=changes, out=tmp_path / "r", device="cpu", verbose=False)
    assert (tested.folder / "range_test.csv").exists()
    assert (tested.folder / "figures" / "range_test.png").exists()


def test_nothing_is_left_of_a_run_that_cannot_start(tmp_path):
    out = tmp_path / "none"
    for change, message in (
        ("data.name=shape", "no data set 'shape'"),
        ("model.name=resnet", "model 'resnet' is not known"),
        ("analysis.layer=layer3", "no layer 'layer3'"),
        ("augment.crop_padding=40", "crop_padding=40 needs images larger"),
        ("analysis.method=gradcam", "method 'gradcam' is not known; did you mean 'grad_cam'"),
    ):
        with pytest.raises(SightlineError, match=message):
            sl.run("shapes-quick", changes=[*SMALL, change], out=out, device="cpu", verbose=False)
        assert not out.exists()


def test_a_folder_that_holds_something_is_refused(run, tmp_path):
    with pytest.raises(
        SightlineError, match="already holds a run; choose another --out, or go on with --resume"
    ):
        sl.run("shapes-quick", out=run.folder, verbose=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SightlineError, match="already holds other files"):
        sl.run("shapes-quick", out=tmp_path, verbose=False)


def test_runs_are_numbered_and_the_newest_is_latest(tmp_path):
    with new_folder("a", runs=tmp_path) as first:
        assert not (tmp_path / "latest").exists()
        (first / "recipe.toml").write_text("name = 'a'")
    assert (tmp_path / "latest").resolve() == first.resolve()
    (first / "recipe.toml").unlink()
    (tmp_path / "a-7").mkdir()
    with new_folder("a", runs=tmp_path) as second:
        (second / "recipe.toml").write_text("name = 'a'\nschedule = { name = 'constant', lr = 0.1 }")
    assert (first.name, second.name) == ("a-1", "a-8")
    assert (tmp_path / "latest").resolve() == second.resolve()
    assert existing_folder(tmp_path / "latest") == second.resolve()
    assert list_runs(tmp_path) == [second]
    row = summarize_run(second)
    assert (row["accuracy"], row["seconds"]) == (None, None)
    with pytest.raises(SightlineError, match="is not the folder of a run; runs there: a-8"):
        existing_folder(tmp_path / "b")


def test_all_metrics_are_in_the_files_and_on_the_page(run):
    scores = run.metrics["scores"]["overall"]
    f1 = sklearn.metrics.f1_score(run.predictions.labels, run.predictions.predicted, average="macro")
    assert scores["macro_f1"]["value"] == pytest.approx(f1, rel=1e-6)
    assert run.history["test_macro_f1"].iloc[-1] == pytest.approx(f1, rel=1e-5)
    row = summarize_run(run.folder)
    assert row["macro_f1"] == scores["macro_f1"]["value"]
    assert row["balanced_accuracy"] == scores["balanced_accuracy"]["value"]
    page = run.report.read_text(encoding="utf-8")
    assert "Matthews correlation" in page
    assert "Brier score" in page


def test_a_metric_that_raises_is_reported_before_the_folder_is_made(tmp_path, monkeypatch):
    from sightline.predictions import METRICS

    monkeypatch.setitem(METRICS, "broken", lambda predictions: {}["no such key"])
    with pytest.raises(SightlineError, match=r"metric 'broken' failed .*KeyError.* leave it out of metrics"):
        sl.run("shapes-quick", changes=[*SMALL, 'metrics=["broken"]'], out=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()


def test_a_picture_file_is_classified_and_explained(run, tmp_path):
    test = run.data().test
    path = tmp_path / "a picture.png"
    Image.fromarray(test.images[5]).save(path)
    before = names(run.folder)
    rows = explain_pictures(run.folder, [path, path], out=tmp_path / "out")
    assert names(run.folder) == before
    for row in rows:
        assert row["predicted"] == run.data().class_names[run.predictions.predicted[5]]
        assert row["top"][0]["probability"] == pytest.approx(run.predictions.confidence[5], rel=1e-4)
        assert len(row["top"]) == 5
        assert row["layer"] == "block2"
    heat = np.asarray(Image.open(rows[0]["heatmap"]))
    np.testing.assert_array_equal(heat[::8, :256:8], test.images[5])  # left: the picture, 8 times as large
    assert rows[1]["heatmap"].endswith("a picture-2-heatmap.png")
    with pytest.raises(SightlineError, match="class 'cirle' is not known; did you mean 'circle'"):
        explain_pictures(run.folder, [path], out=tmp_path / "none", target="cirle")
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(SightlineError, match=r"cannot read .*broken.png"):
        explain_pictures(run.folder, [path, tmp_path / "broken.png"], out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_findings_on_planted_truth_by_hand():
    data = sl.load_data("shapes", limit=200)
    truth = data.truth
    test_logits = np.eye(10)[data.test.labels] * 4.0
    marked = np.flatnonzero(truth.shortcut_test)
    test_logits[marked] = np.eye(10)[truth.shortcut_class] * 4.0  # the mark alone decides
    train_logits = np.eye(10)[data.train.labels] * 4.0
    train_logits[truth.wrong_labels] = np.eye(10)[truth.true_labels] * 4.0  # sees what is drawn
    heat = truth.test_masks.astype(float)  # all heat on the object
    top, left, bottom, right = truth.shortcut_box
    heat[marked] = 0
    heat[marked, top:bottom, left:right] = 1  # and on the mark where there is one
    found = check_planted(
        truth,
        sl.Predictions(train_logits, data.train.labels, data.class_names),
        sl.Predictions(test_logits, data.test.labels, data.class_names),
        heat,
    )
    values = [finding.value for finding in found]
    planted = len(truth.wrong_labels)
    assert values == [f"{planted} of {planted}", "100.0 %", "100.0 %", "100.0 %", "100.0 %"]
    assert found[1].expected == "0.0 % without the mark"
    assert found[2].expected == f"{100 * 25 / 1024:.1f} % if heat were spread evenly"


def test_the_table_of_predictions_names_its_pictures(run):
    data = run.data()
    table = run.predictions.to_frame()
    pd.testing.assert_frame_equal(table[["path", "hash"]].astype(str), data.test.files.astype(str))
    first = rank_mistakes(run.predictions, limit=1).iloc[0]
    assert first["path"] == data.test.metadata["path"][first["index"]]


def test_a_run_through_albumentations_resumes_to_the_same_weights_and_never_through_another_engine(
    tmp_path, monkeypatch
):
    small = [
        "model.options={widths=[8, 8, 8]}", "training.precision=float32", "data.limit=40",
        "training.batch_size=16", "augment.cutout_size=8", "augment.engine=albumentations",
    ]  # fmt: skip

    def started(folder: str, epochs: int) -> sl.Run:
        changes = [*small, f"training.epochs={epochs}"]
        return start_run("shapes-quick", changes=changes, out=tmp_path / folder, device="cpu")

    class Stop(sl.Callback):
        def on_epoch_begin(self, trainer) -> None:
            if len(trainer.history.epochs) == 1:
                raise KeyboardInterrupt

    whole, broken = started("whole", 2), started("broken", 2)
    train(whole, whole.data(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(broken, broken.data(), device="cpu", callbacks=[Stop()])
    assert tomllib.loads((broken.folder / "recipe.toml").read_text())["augment"]["engine"] == "albumentations"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "albumentations", None)
        with pytest.raises(MissingExtraError, match="is augmented by albumentations; pip install"):
            train(sl.load_run(broken.folder), broken.data(), device="cpu")
        other = started("other", 1)
        assert tomllib.loads((other.folder / "recipe.toml").read_text())["augment"]["engine"] == "builtin"
    train(sl.load_run(broken.folder), broken.data(), device="cpu")
    ends = [(run.folder / "model.safetensors").read_bytes() for run in (whole, broken)]
    assert ends[0] == ends[1]
