"""Functions of a user: by module and by plugin, they train and are opened again, if they are trusted."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sightline as sl
from sightline.cli import main
from sightline.errors import InputError, InputTypeError, SightlineError, UntrustedError
from sightline.extensions import plugins
from sightline.predictions import write_predictions
from sightline.runs import start_run, train
from sightline.training import load_recipe

PLUGIN = Path(__file__).parent / "plugin"
DOCS = Path(__file__).parents[1] / "docs" / "extending.md"
NAMED = {
    "model": "sightline_example.nets:tiny",
    "data": "sightline_example.pictures:stripes",
    "metric": "sightline_example.numbers:worst_class",
    "callback": "sightline_example.budget:TimeBudget",
    "section": "sightline_example.page:hesitant",
}
RECIPE = """
name = "theirs"
metrics = ["{metric}", "balanced_accuracy"]
callbacks = [{{ name = "{callback}", seconds = 0.0 }}]
[data]
name = "{data}"
[model]
name = "{model}"
options = {{ width = 8 }}
[schedule]
name = "constant"
lr = 0.1
[training]
epochs = 3
batch_size = 20
precision = "float32"
[analysis]
compare_images = 0
mistakes = 2
correct = 2
samples = 2
audit = false
sections = ["{section}"]
"""


@pytest.fixture
def installed(monkeypatch):
    """The example package as if it were installed, entry points and all; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    plugins.cache_clear()
    yield
    plugins.cache_clear()
    for name in [name for name in sys.modules if name.startswith("sightline_example")]:
        del sys.modules[name]


@pytest.fixture
def theirs(tmp_path):
    path = tmp_path / "theirs.toml"
    path.write_text(RECIPE.format(**NAMED))
    return path


def test_the_code_of_the_docs_is_that_of_the_package():
    text = DOCS.read_text(encoding="utf-8")
    sources = [path.read_text() for path in (PLUGIN / "sightline_example").glob("*.py")]
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) >= 5
    for block in blocks:
        assert block in sources or block.startswith("run = sl.load_run("), block
    declared = (PLUGIN / "sightline_example-0.1.dist-info" / "entry_points.txt").read_text().splitlines()
    for line in declared[1:]:
        name, _, value = line.partition(" = ")
        assert f'"{name}" = "{value}"' in text


@pytest.mark.usefixtures("installed")
def test_each_part_does_what_it_says():
    from sightline_example.budget import TimeBudget
    from sightline_example.nets import tiny
    from sightline_example.numbers import worst_class
    from sightline_example.pictures import stripes

    data = sl.load_data(stripes, seed=3)
    assert np.array_equal(data.train.images, sl.load_data("stripes", seed=3).train.images)
    model = sl.create_model(tiny, data, width=8)
    by_name = sl.create_model("tiny", data, width=8)
    for one, other in zip(model.parameters(), by_name.parameters(), strict=True):
        assert torch.equal(one, other)
    history = sl.fit(
        model, data, epochs=5, batch_size=20, schedule=sl.SCHEDULES["constant"](0.1),
        callbacks=[TimeBudget(0.0)], verbose=False, device="cpu",
    )  # fmt: skip
    assert len(history.epochs) == 1
    predictions = sl.predict(model, data.test, class_names=data.class_names)
    hits = [predictions.correct[data.test.labels == label].mean() for label in (0, 1)]
    assert worst_class(predictions) == min(hits)


@pytest.mark.usefixtures("installed")
def test_a_run_of_functions_is_trained_closed_opened_and_resumed(theirs, tmp_path, capsys):
    with pytest.raises(
        UntrustedError, match=r"'sightline_example.budget:TimeBudget' comes from a file.*--trust"
    ):
        sl.run(theirs, out=tmp_path / "run", device="cpu", verbose=False)
    assert not (tmp_path / "run").exists()
    assert "sightline_example" not in sys.modules
    run = sl.run(theirs, trust=["sightline_example"], out=tmp_path / "run", device="cpu", verbose=False)
    assert len(run.history) == 1  # the budget of no second ends it
    assert set(run.metrics["metrics"]) == {"worst_class", "balanced_accuracy"}
    assert run.model()  # who trained it may open it
    wrong = np.flatnonzero(~run.predictions.correct)
    shown = run.report.read_text(encoding="utf-8")
    assert ("Hesitant mistakes" in shown) == bool(len(wrong))
    card = json.loads((run.folder / "model.json").read_text())
    assert (card["name"], card["options"]) == (NAMED["model"], {"width": 8})

    # Somebody else's folder: reading needs no trust, opening the model does.
    for name in [name for name in sys.modules if name.startswith("sightline_example")]:
        del sys.modules[name]
    opened = sl.load_run(run.folder)
    assert opened.metrics["metrics"] == run.metrics["metrics"]
    assert opened.report.exists()
    capsys.readouterr()
    assert main(["report", str(run.folder), "--json"]) == 0
    assert "sightline_example.page:hesitant is left out" in " ".join(capsys.readouterr().err.split())
    assert "Hesitant mistakes" not in run.report.read_text(encoding="utf-8")
    for needs_trust in (opened.model, opened.data, lambda: train(opened, sl.load_data("shapes", limit=100))):
        with pytest.raises(UntrustedError, match="if you trust it, say so: --trust sightline_example"):
            needs_trust()
    assert "sightline_example" not in sys.modules
    capsys.readouterr()
    for command in (["analyze"], ["audit"], ["explain"]):
        pictures = [str(_picture(tmp_path))] if command == ["explain"] else []
        assert main([*command, str(run.folder), *pictures, "--device", "cpu"]) == 1
        assert "--trust sightline_example" in capsys.readouterr().err
        trusted = ["--trust", "sightline_example", "--device", "cpu"]
        assert main([*command, str(run.folder), *pictures, *trusted]) == 0
        capsys.readouterr()
    trusted = sl.load_run(run.folder, trust=["sightline_example"])
    logits = sl.predict(trusted.model(), trusted.data().test).logits
    np.testing.assert_allclose(logits, run.predictions.logits, atol=1e-5)
    assert main(["run", "--resume", str(run.folder), "--device", "cpu", "--quiet"]) == 1
    resumed = [
        "run",
        "--resume",
        str(run.folder),
        "--device",
        "cpu",
        "--quiet",
        "--trust",
        "sightline_example",
    ]
    assert main(resumed) == 0


@pytest.mark.usefixtures("installed")
def test_a_section_shows_what_its_function_made_of_the_run(tmp_path):
    from sightline_example.page import hesitant

    from sightline.report import read_run, write_report

    logits = np.array([[2.0, 0.0], [0.0, 0.5], [0.0, 3.0], [0.0, 1.0]])
    predictions = sl.Predictions(logits, np.array([0, 0, 0, 1]), ("stripe", "dot"))
    write_predictions(tmp_path / "predictions.parquet", predictions)
    (table,) = hesitant(read_run(tmp_path)).blocks
    sure = [f"{100 / (1 + np.exp(-margin)):.0f} %" for margin in (0.5, 3.0)]
    assert table.rows == (("image 1", "dot", sure[0]), ("image 2", "dot", sure[1]))
    for section in (hesitant, "hesitant", NAMED["section"]):
        page = write_report(tmp_path, sections=[section]).read_text(encoding="utf-8")
        assert page.count('id="hesitant"') == 1
    assert 'id="hesitant"' not in write_report(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(InputError, match=r"section '.*<lambda>' failed \(ZeroDivisionError: .*leave it out"):
        write_report(tmp_path, sections=[lambda run: 1 / 0])
    with pytest.raises(InputTypeError, match="returned a int; it has to return a Section or None"):
        write_report(tmp_path, sections=[lambda run: 3])


def _picture(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (16, 16), (200, 30, 30)).save(folder / "picture.png")
    return folder / "picture.png"


@pytest.mark.usefixtures("installed")
def test_names_of_plugins_and_of_set_need_no_trust(theirs, tmp_path):
    names = {"model": "tiny", "data": "stripes", "metric": "worst_class", "callback": "time_budget"}
    names["section"] = "hesitant"
    theirs.write_text(RECIPE.format(**names))
    made = start_run(theirs, out=tmp_path / "plugins", device="cpu")
    assert made.recipe.make_callbacks()[0].seconds == 0
    assert sl.load_run(made.folder).data().name == "stripes"
    changes = [f"model.name={NAMED['model']}", "analysis.layer=''", "analysis.layers=[]", "training.epochs=1"]
    typed = start_run(
        "shapes-quick", changes=[*changes, "data.limit=200"], out=tmp_path / "set", device="cpu"
    )
    assert typed.recipe.trusted_modules == ["sightline_example.nets"]
    with pytest.raises(UntrustedError):  # the folder that it leaves is a file like any other
        sl.load_run(typed.folder).recipe.model_function  # noqa: B018


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.name=tinny"], "recipe: model.name: model 'tinny' is not known; did you mean 'tiny'"),
        (["data.name=stripse"], "recipe: data.name: no data set 'stripse', .*; did you mean 'stripes'"),
        (
            ["metrics=['worst']"],
            r"recipe: metrics\[0\]: metric 'worst' is not known; did you mean 'worst_class'",
        ),
        (["metrics=[3]"], r"recipe: metrics.0 is 3; input should be a valid string"),
        (
            ["callbacks=[{name='time_budge'}]"],
            "callback 'time_budge' is not known; did you mean 'time_budget'",
        ),
        (["callbacks=[{name='time_budget'}]"], r"callback \(time_budget\).seconds is missing"),
        (
            ["callbacks=[{name='time_budget', seconds=-1.0}]"],
            "seconds is -1.0; input should be greater than or",
        ),
        (
            ["model.name=tiny", "model.options.width=0"],
            "model.options.width is 0; input should be greater than",
        ),
        (
            ["model.name=tiny", "model.options.wide=8"],
            "model.options.wide is not known; did you mean 'width'",
        ),
        (
            ["model.name=sightline_example.nets:tyni"],
            "model 'sightline_example.nets:tyni' cannot be imported",
        ),
        (
            ["callbacks=[{name='builtins:dict'}]"],
            "a callback is a dict; its function has to return an object",
        ),
        (["metrics=['math:pi']"], "metric 'math:pi' is a float, not a function"),
        (["model.name=nowhere:tiny"], "model 'nowhere:tiny' cannot be imported .*No module named 'nowhere'"),
    ],
)
def test_what_does_not_fit_is_said_when_the_recipe_is_read(changes, message):
    with pytest.raises((InputError, InputTypeError), match=message) as caught:
        load_recipe("resnet18-cutout16", changes)
    assert "\n" not in str(caught.value)


def test_a_function_that_nobody_can_find_again_cannot_be_saved(tmp_path):
    from sightline.models import save_model

    data = sl.load_data("shapes", limit=100)
    with pytest.raises(SightlineError, match="where another process cannot find it"):
        save_model(tmp_path, torch.nn.Linear(1, 1), name=lambda n, norm: None, options={}, data=data, epoch=1)


@pytest.mark.usefixtures("installed")
def test_methods_of_a_user_explain_by_function_by_module_and_as_a_plugin():
    from sightline_example.maps import fragile, positive_cam

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    )
    images = torch.rand(3, 3, 8, 8)
    activations = torch.relu(model[0](images)).detach()
    weights = torch.eye(4)[model(images).argmax(1)] / 36  # the gradient of a mean over 6 x 6 cells
    by_hand = torch.einsum("bk,bkhw->bhw", weights, activations).numpy()
    for method in (positive_cam, "sightline_example.maps:positive_cam"):
        found = sl.explain(model, images, method=method, layer="1")
        np.testing.assert_allclose(found.maps, by_hand, rtol=1e-5)
    logits, dimmed = model(images).max(1), model(0.9 * images)
    drop = logits.values - dimmed.gather(1, logits.indices[:, None])[:, 0]
    expected = (drop[:, None, None] * activations.mean(1)).detach().numpy()
    for method in (fragile, "fragile"):
        found = sl.explain(model, images, method=method, layer="1")
        np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-7)
    compared = sl.compare_methods(model, images, methods=["fragile"], measures=["average_drop"], layer="1")
    assert compared.best == "fragile"
