"""The words at the door are true: the example in the README runs, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sightline.attribution import METHODS
from sightline.training import RECIPES

ROOT = Path(__file__).parents[1]


def test_the_example_in_python_runs(monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    smaller = {
        '"cifar10"': '"shapes", limit=300',
        '"resnet18", data': '"speednet", data, widths=[8, 8, 8]',
        "epochs=20, batch_size=512": 'epochs=1, batch_size=64, device="cpu"',
        '"layer3"': '"block2"',
    }
    for large, small in smaller.items():
        assert large in code
        code = code.replace(large, small)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert len(names["mistakes"]) == 10
    assert names["maps"].maps.shape == (10, 7, 7)
    assert names["maps"].targets.tolist() == names["mistakes"]["predicted"].tolist()


def test_the_example_of_the_page_on_training_runs(tmp_path, monkeypatch):
    import sightline as sl

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    data = sl.load_data("shapes", limit=200)
    names = {"sl": sl, "data": data, "model": sl.create_model("speednet", data, widths=[8, 8, 8])}
    smaller = {
        "epochs=20, batch_size=512": 'epochs=2, batch_size=64, device="cpu", verbose=False',
        "conv1": "block1",
    }
    for large, small in smaller.items():
        assert large in code
        code = code.replace(large, small)
    exec(compile(code, "training.md", "exec"), names)
    assert "validation_loss" in names["history"].epochs[0]
    assert (tmp_path / "ck.pt").exists()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(
            f"docs/{name}.md"
            for name in ("design", "explanations", "extending", "glossary", "report", "training")
        ),
    ],
)
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)  # code is full of brackets
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert (ROOT / page).parent.joinpath(link).exists(), link


def test_recipes_and_methods_that_the_words_name_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"sightline run ([a-z][a-z0-9-]+)", readme):
        assert name in RECIPES
    assert f"one of {len(METHODS)} methods" in readme
    page = (ROOT / "docs/explanations.md").read_text(encoding="utf-8")
    table = page.partition("## Choose")[2].partition("`grad_cam` averages")[0]
    functions = {"class_maps", "explain_difference", "preflight"}
    for name in re.findall(r"`([a-z_]+)(?:\(|`)", table):
        assert name in METHODS or name in functions, name
