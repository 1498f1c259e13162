"""The notebook runs from top to bottom on a few generated images, and only calls the package."""

from __future__ import annotations

import ast
import base64
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "cifar10_resnet18.ipynb"
SMALL = {"RECIPE": "shapes-quick", "EPOCHS": 1, "DATA": "shapes", "DATA_DIR": "", "LIMIT": 64}
FIGURES = [
    "samples", "augmented-one", "augmented-many", "range-test", "curves", "learning-rate", "class-accuracy",
    "confusion", "mistakes", "gradcam-mistakes", "gradcam-layers", "gradcam-correct",
]  # fmt: skip
# In a process of its own: what the Jupyter client leaves open at its end is no concern of this suite.
EXECUTE = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=300"]


def code_cells(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def python(source: str) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source))


def test_the_notebook_is_valid_and_holds_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook).values():
        assert not cell.outputs, cell.id
        assert cell.execution_count is None, cell.id


def test_the_notebook_only_calls():
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for name, cell in code_cells(nbformat.read(NOTEBOOK, as_version=4)).items():
        assert not any(isinstance(node, definitions) for node in ast.walk(python(cell.source))), name


def test_the_parameters_that_this_test_sets_are_those_of_the_notebook():
    cell = code_cells(nbformat.read(NOTEBOOK, as_version=4))["parameters"]
    names = [target.id for node in python(cell.source).body for target in node.targets]
    assert cell.metadata.tags == ["parameters"]
    assert names == list(SMALL)


def execute(folder: Path) -> dict[str, nbformat.NotebookNode]:
    """Run the notebook with the small parameters, home and all inside `folder`; return its code cells."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    small = "\n".join(f"{name} = {value!r}" for name, value in SMALL.items())
    code_cells(notebook)["parameters"].source = small
    nbformat.write(notebook, folder / "small.ipynb")
    (folder / "home").mkdir()
    places = (
        "HOME",
        "IPYTHONDIR",
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "MPLCONFIGDIR",
    )
    environment = {**os.environ, **dict.fromkeys(places, str(folder / "home"))}
    command = [*EXECUTE, "small.ipynb"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return code_cells(nbformat.read(folder / "small.ipynb", as_version=4))


@pytest.mark.slow
def test_every_cell_runs_and_every_figure_is_shown_once(tmp_path):
    shown = []
    for name, cell in execute(tmp_path).items():
        assert cell.execution_count, name
        assert all(output.output_type != "error" for output in cell.outputs), name
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert base64.b64decode(output.data["image/png"])[:8] == b"\x89PNG\r\n\x1a\n", name
                shown.append(name)
    assert shown == FIGURES
    assert (tmp_path / "runs" / "shapes-quick-1" / "report.html").stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "runs", "small.ipynb"]
