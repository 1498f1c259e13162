"""Execute a notebook of `notebooks/` and keep its outputs in it, with pictures small enough to be committed.

    python benchmarks/notebooks.py cifar10_resnet18 --run runs/resnet18-cutout16-1
    python benchmarks/notebooks.py any_model

With --run the training cell finds a finished run and reads it: the run is copied beside the notebook and is
not changed itself. The cell of parameters stays as it was. --note puts a sentence under the title, such as
what the outputs are of.
"""

from __future__ import annotations

import argparse
import base64
import copy
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell
from PIL import Image

from sightline.runs import load_run

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
MOST_BYTES = 3_000_000
# In a process of its own: what the Jupyter client leaves open at its end is no concern of ours.
EXECUTE = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=1800"]
PLACES = (
    "HOME",
    "IPYTHONDIR",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "MPLCONFIGDIR",
)


def cells_of(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    """Return the code cells by their names."""
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def execute(path: Path, folder: Path, parameters: dict[str, Any]) -> dict[str, nbformat.NotebookNode]:
    """Run a notebook with these parameters inside `folder`, home and all; return its code cells."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "note"]
    values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    if parameters:
        cells_of(notebook)["parameters"].source = values
    nbformat.write(notebook, folder / "run.ipynb")
    (folder / "home").mkdir()
    environment = {**os.environ, **dict.fromkeys(PLACES, str(folder / "home"))}
    command = [*EXECUTE, "run.ipynb"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return cells_of(nbformat.read(folder / "run.ipynb", as_version=4))


def small(data: dict[str, Any], colours: int, width: int = 900) -> None:
    """Make the picture of an output smaller in place: fewer pixels, and colours from a palette."""
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(colours).save(buffer, "PNG", optimize=True)
    data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def keep_outputs(path: Path, executed: dict[str, nbformat.NotebookNode], note: str) -> None:
    """Write the outputs of the executed cells into the notebook, as large as fits in 3 MB."""
    for colours in (256, 128, 64, 32):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells = [cell for cell in notebook.cells if cell.id != "note"]
        if note:
            cell = new_markdown_cell(note)
            cell.id = "note"
            notebook.cells.insert(1, cell)
        for name, cell in cells_of(notebook).items():
            cell.execution_count = executed[name].execution_count
            # What went to stderr is advice about this machine's Jupyter.
            told = [output for output in executed[name].outputs if output.get("name") != "stderr"]
            cell.outputs = copy.deepcopy(told)
            for output in cell.outputs:
                data = output.get("data", {})
                if "image/png" in data:
                    small(data, colours)
                if "text/html" in data:  # what a reader sees; the plain text of an audit is all its numbers
                    data["text/plain"] = data["text/plain"][:2000]
        text = nbformat.writes(notebook)
        if len(text.encode()) <= MOST_BYTES:
            path.write_text(text + "\n", encoding="utf-8")
            return
    raise SystemExit(f"{path.name} takes more than {MOST_BYTES} bytes with its outputs")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", choices=sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
    parser.add_argument("--run", type=Path, help="folder of a finished run, for the notebook that trains one")
    parser.add_argument("--note", default="", help="a sentence for under the title")
    arguments = parser.parse_args()
    path = NOTEBOOKS / f"{arguments.notebook}.ipynb"
    parameters: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.run:
            run = load_run(arguments.run)
            shutil.copytree(run.folder, folder / "runs" / "notebook", ignore=shutil.ignore_patterns("*.pt"))
            data = run.recipe.data
            changes = [f'data.dir="{data.dir}"', f"data.limit={data.limit}"]
            parameters = {"RECIPE": run.recipe.name, "CHANGES": changes, "MISTAKES": 10}
            parameters |= {"RUN": "runs/notebook", "RANGE_TEST": False}
        executed = execute(path, folder, parameters)
        told = nbformat.writes(nbformat.v4.new_notebook(cells=list(executed.values())))
        if any(place in told for place in (name, str(Path.home()))):
            print("an output names a folder of this machine; look for it before you commit", file=sys.stderr)
    keep_outputs(path, executed, arguments.note)
    print(path)


if __name__ == "__main__":
    main()
