"""The bundler: modules become one script that means the same, and what it does not know is refused."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from conftest import without

import sightline
from sightline.report.bundle import MODULES, PAGES, bundle

PROJECT = Path(sightline.__file__).parents[2]


def written(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return folder / "entry.js"


def test_modules_stand_once_each_after_what_they_need(tmp_path):
    entry = written(
        tmp_path,
        entry='// @ts-check\nimport { a } from "./a.js";\nimport {\n  b,\n  c,\n} from "./b.js";\na(b, c);\n',
        a='import { b } from "./b.js";\n\n/** @param {number} x */\nexport const a = (x) => x + b;\n',
        b="/**\n * Two.\n */\nexport let b = 2;\nexport async function c() {}\nclass D {}\n",
    )
    body = "let b = 2;\nasync function c() {}\nclass D {}\n\nconst a = (x) => x + b;\n\na(b, c);"
    assert bundle(entry) == f'"use strict";\n(() => {{\n{body}\n}})();\n'


def test_code_between_two_comments_stays(tmp_path):
    text = "/** @type {A} */ (x).y();\nkept();\n/** B */\nalso();\n"
    assert "kept();\nalso();" in bundle(written(tmp_path, entry=text))


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ({"entry": 'import a from "./a.js";\n'}, "'import a from \"./a.js\";' cannot be bundled"),
        ({"entry": 'import * as a from "./a.js";\n'}, "cannot be bundled"),
        ({"entry": 'import "./a.js";\n'}, "cannot be bundled"),
        ({"entry": 'import { a } from "package";\n'}, "cannot be bundled"),
        ({"entry": 'import { a as b } from "./a.js";\n', "a": "export const a = 1;\n"}, "imports 'a as b'"),
        ({"entry": 'import { b } from "./a.js";\n', "a": "const b = 1;\n"}, "a.js does not export it"),
        ({"entry": "export default 1;\n"}, "cannot be bundled"),
        ({"entry": "const a = 1;\nexport { a };\n"}, "cannot be bundled"),
        ({"entry": 'export * from "./a.js";\n'}, "cannot be bundled"),
        ({"entry": "const [a, b] = [1, 2];\n"}, "cannot be bundled"),
        ({"entry": "var a = 1;\n"}, "cannot be bundled"),
        ({"entry": 'const a = import("./a.js");\n'}, "cannot be bundled"),
        (
            {
                "entry": 'import { a } from "./a.js";\nconst x = 1;\n',
                "a": "const x = 2;\nexport let a = x;\n",
            },
            "entry.js and a.js both have a 'x'; rename one",
        ),
        (
            {
                "entry": 'import { a } from "./a.js";\nexport const b = 1;\n',
                "a": 'import { b } from "./entry.js";\n',
            },
            "entry.js imports itself through a.js",
        ),
    ],
)
def test_what_would_not_mean_the_same_is_refused(tmp_path, modules, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        bundle(written(tmp_path, **modules))


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_script_is_one_and_every_module_is_in_a_page(page):
    script = bundle(MODULES / f"{page}.js")
    assert script.startswith('"use strict";\n(() => {\n')
    assert not re.search(r"^(import|export)\b|@import|@param|@ts-check", script, re.M)
    assert script.rstrip().endswith("showTheme();\nafterFirstPaint(start);\n})();")
    headings = {path.name: path.read_text(encoding="utf-8").splitlines()[1] for path in MODULES.glob("*.js")}
    scripts = "".join(bundle(MODULES / f"{name}.js") for name in PAGES)
    assert [name for name, heading in headings.items() if heading not in scripts] == []


def test_lines_of_the_assets_fit_a_window():
    for path in sorted(MODULES.parent.glob("*/*")):
        if path.suffix in (".js", ".ts"):
            long = [
                k
                for k, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                if len(line) > 120
            ]
            assert not long, f"{path.name}: lines {long}"


def test_the_lock_of_the_type_checker_pins_it_and_names_no_host():
    lock = PROJECT / "package-lock.json"
    if not lock.exists():
        pytest.skip("the package is installed without its project")
    text = lock.read_text(encoding="utf-8")
    assert '"integrity": "sha512-' in text
    assert "://" not in text


def test_a_wheel_carries_the_finished_scripts_and_not_the_modules(tmp_path):
    try:
        from hatchling.builders.wheel import WheelBuilder
    except ImportError:
        without("hatchling is not installed")
    if not (PROJECT / "hatch_build.py").exists():
        pytest.skip("the package is installed without its project")
    (wheel,) = WheelBuilder(str(PROJECT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if "/report/assets/" in name]
        assert sorted(name for name in names if name.endswith(".js")) == [
            f"sightline/report/assets/{page}.bundle.js" for page in sorted(PAGES)
        ]
        assert {"sightline/report/assets/css/report.css", "sightline/report/assets/html/page.html.j2"} < set(
            names
        )
        for page in PAGES:
            ready = archive.read(f"sightline/report/assets/{page}.bundle.js").decode()
            assert ready == bundle(MODULES / f"{page}.js")
