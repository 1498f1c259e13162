"""The notebooks run from top to bottom on a few generated images, and are committed with their outputs."""

from __future__ import annotations

import ast
import base64
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parents[1]
NAMES = ["cifar10_resnet18", "any_model"]
QUICK = [
    "data.limit=64", "training.epochs=1", "analysis.audit=false", "analysis.compare_images=0",
]  # fmt: skip
SMALL = {
    "cifar10_resnet18": {
        "RECIPE": "shapes-quick", "CHANGES": QUICK, "MISTAKES": 4, "RUN": "runs/notebook", "RANGE_TEST": True,
    },
    "any_model": {"LIMIT": 200, "EPOCHS": 1, "MISTAKES": 3},
}  # fmt: skip
FIGURES = {
    "cifar10_resnet18": [
        "samples", "augmented-one", "augmented-many", "range-test", "curves", "learning-rate",
        "class-accuracy", "confusion", "mistakes", "gradcam-mistakes", "gradcam-layers", "gradcam-correct",
    ],
    "any_model": ["data", "predictions", "mistakes", "maps", "suspects"],
}  # fmt: skip

spec = importlib.util.spec_from_file_location("notebooks", ROOT / "benchmarks" / "notebooks.py")
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)


def path_of(name: str) -> Path:
    return ROOT / "notebooks" / f"{name}.ipynb"


def committed(name: str) -> dict[str, nbformat.NotebookNode]:
    return notebooks.cells_of(nbformat.read(path_of(name), as_version=4))


def python(source: str) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source))


def shown_text(cell: nbformat.NotebookNode) -> str:
    texts = [
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs
    ]
    return "".join(texts)


def pictures(cells: dict[str, nbformat.NotebookNode]) -> list[str]:
    """The names of the cells that show a picture, once for each; every cell has run without an error."""
    shown = []
    for name, cell in cells.items():
        assert cell.execution_count, name
        assert all(output.output_type != "error" for output in cell.outputs), name
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert base64.b64decode(output.data["image/png"])[:8] == b"\x89PNG\r\n\x1a\n", name
                shown.append(name)
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_with_its_outputs(name):
    notebook = nbformat.read(path_of(name), as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path_of(name).stat().st_size <= notebooks.MOST_BYTES
    assert pictures(committed(name)) == [figure for figure in FIGURES[name] if figure != "range-test"]
    told = " ".join(shown_text(cell) for cell in committed(name).values())
    assert "Units." not in told
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", told)
    if name == "cifar10_resnet18":
        assert len(accuracies(committed(name))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_needs_no_edit(name):
    first = next(iter(committed(name).values()))
    assert "%pip install" in first.source
    assert '"sightline-vision"' in first.source
    text = path_of(name).read_text(encoding="utf-8")
    assert not re.search(r"ADDRESS|YOUR_|TODO|<[A-Z_]+>", text.replace("THAT FOLDER", ""))


def test_the_notebook_of_a_recipe_only_calls():
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for name, cell in committed("cifar10_resnet18").items():
        assert not any(isinstance(node, definitions) for node in ast.walk(python(cell.source))), name


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_that_this_test_sets_are_those_of_the_notebook(name):
    cell = committed(name)["parameters"]
    names = [target.id for node in python(cell.source).body for target in node.targets]
    assert cell.metadata.tags == ["parameters"]
    assert names == list(SMALL[name])


def accuracies(cells: dict[str, nbformat.NotebookNode]) -> set[str]:
    """The test accuracy in percent as each cell that speaks of it shows it, to one digit."""
    last = shown_text(cells["log"]).strip().splitlines()[-1].split()
    said = re.search(r"([\d.]+) % of \d+ test images", shown_text(cells["predictions"]))
    return {f"{100 * float(last[-1]):.1f}", f"{float(said[1]):.1f}"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_and_every_figure_is_shown_once(name, tmp_path):
    cells = notebooks.execute(path_of(name), tmp_path, SMALL[name])
    assert pictures(cells) == FIGURES[name]
    if name == "any_model":
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "run.ipynb"]
        return
    assert (tmp_path / "runs" / "notebook" / "report.html").stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "run.ipynb", "runs"]
    assert len(accuracies(cells)) == 1
    table = shown_text(cells["mistakes-table"]).strip().splitlines()
    assert len(table) == 1 + SMALL[name]["MISTAKES"]
    assert not re.search(r"true\s+\d", table[1])
