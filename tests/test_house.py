"""The house keeps its shape: who imports whom, which names are public, what an import costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import sightline

SOURCE = Path(sightline.__file__).parent

# Which rooms each room may import. GROUND is what all stand on.
ALLOWED = {
    "data": set(),
    "models": {"data"},
    "predictions": {"data", "models"},
    "training": {"data", "models", "predictions"},
    "attribution": {"models"},
    "faithfulness": {"models", "attribution"},
    "audit": {"data", "predictions"},
    "report": {"predictions", "attribution", "faithfulness", "audit"},
    "runs": {"data", "models", "predictions", "training", "attribution", "faithfulness", "audit", "report"},
    "deploy": {"data", "models", "predictions", "attribution", "audit", "report", "runs"},
    "cli": {
        "data",
        "models",
        "predictions",
        "training",
        "attribution",
        "faithfulness",
        "audit",
        "report",
        "runs",
        "deploy",
    },
}
GROUND = {"distributed", "errors", "extensions", "files", "logs", "signatures", "stats"}
ROOMS = sorted(ALLOWED)


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("sightline.")}
    return found


def test_the_rooms_are_those_of_the_plan():
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_that_come_before_it(room):
    for path in sorted((SOURCE / room).rglob("*.py")):
        extra = imported_rooms(path) - ALLOWED[room] - GROUND - {room}
        assert not extra, f"{path.relative_to(SOURCE)} imports {sorted(extra)}"


def test_attribution_takes_from_models_only_what_serves_any_module():
    allowed = {"sightline.models.layers", "sightline.models.device"}
    for path in sorted((SOURCE / "attribution").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sightline.models"):
                assert node.module in allowed, f"{path.name} imports {node.module}"


@pytest.mark.parametrize("room", [name for name in ROOMS if name != "cli"])
def test_every_public_name_of_a_room_is_there_and_is_not_a_module(room):
    facade = importlib.import_module(f"sightline.{room}")
    for path in sorted((SOURCE / room).glob("*.py")):
        importlib.import_module(f"sightline.{room}.{path.stem}")
    for name in facade.__all__:
        value = getattr(facade, name)
        assert not isinstance(value, types.ModuleType), f"sightline.{room}.{name} is hidden by a module"


def test_the_facade_is_this_list_of_names():
    assert sorted(sightline.__all__) == [
        "Audit", "Augmentation", "Callback", "Dataset", "Explanation", "History", "METHODS", "MODELS",
        "OPTIMIZERS", "Predictions", "RECIPES", "Run", "SCHEDULES", "SightlineError", "Split",
        "adopt", "adopt_timm",
        "audit_run", "check", "class_maps", "compare_methods", "compare_runs", "create_model", "explain",
        "explain_difference",
        "find_learning_rate", "fit", "inspect", "load_data", "load_recipe", "load_run", "make_audit", "plant",
        "plot_class_accuracy",
        "plot_confusion", "plot_curves", "plot_explanations", "plot_images", "plot_learning_rate",
        "plot_mistakes", "plot_range_test",
        "predict", "preflight", "probe", "rank_mistakes", "run", "summarize", "to_float", "write_report",
    ]  # fmt: skip
    for name in sightline.__all__:
        assert not isinstance(getattr(sightline, name), types.ModuleType), name


def test_the_function_explain_stays_the_function_when_its_room_is_used():
    import sightline.attribution.display

    assert callable(sightline.explain)


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import sightline",
        "import sightline.cli",
        "from sightline import write_report",
        "import importlib; room = importlib.import_module('sightline.audit'); "
        "[getattr(room, name) for name in room.__all__]",
        "from sightline import plot_explanations; from sightline.report import write_sample_sheet",
        "from sightline.predictions import rank_mistakes, confused_pairs, read_predictions, load_dynamics",
        "from sightline.audit import Evidence, make_audit, read_audit",
        "from sightline import check; from sightline.runs import existing_folder, list_runs",
        "from sightline.faithfulness.result import read_faithfulness",
    ],
)
def test_torch_is_not_imported_by(code):
    assert in_a_fresh_process(f"{code}; import sys; print('torch' in sys.modules)") == "False"


def test_the_help_loads_none_of_the_heavy_packages():
    code = (
        "import sys; from sightline.cli import main; main(['--help']); "
        "print(sorted({'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    assert in_a_fresh_process(code).endswith("[]")


def test_the_project_speaks_of_itself_alone():
    root = SOURCE.parents[1]
    if not (root / "pyproject.toml").exists():
        pytest.skip("the package is installed without its project")
    words = ["/".join(["", "work", ""]), "../" + "shared"]
    patterns = (
        "*.md",
        "*.json",
        "src/**/*.py",
        "src/**/*.js",
        "src/**/*.ts",
        "tests/**/*.py",
        "benchmarks/*",
        "docs/*",
        "notebooks/*",
        ".ci/*",
    )
    for path in [path for pattern in patterns for path in root.glob(pattern)]:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not any(word in text for word in words), path
