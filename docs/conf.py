"""The site: `make docs` builds it into build/site; a warning stops it."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

from sightline.report.plots import Plot

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "Sightline"
author = "The Sightline authors"
copyright = "The Sightline authors, MIT licence"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples/*.rst", "examples/*.py", "sg_execution_times.rst"]
suppress_warnings = [
    "config.cache",  # the settings hold functions
    "ref.python",  # a type in a signature may be the field of several classes
]
default_role = "code"  # `x` in a docstring is code

html_theme = "pydata_sphinx_theme"
html_title = "Sightline"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "Sightline"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "reports": []}

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

python_maximum_signature_line_length = 88
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def plots(block, block_vars, gallery_conf):
    """Save each plot that a block of an example made: those of the package do not pass through pyplot."""
    made, shown = [], block_vars["example_globals"].setdefault("__shown__", [])
    for value in list(block_vars["example_globals"].values()):
        if isinstance(value, Plot) and not any(value is one for one in shown):
            shown.append(value)
            made.append(next(block_vars["image_path_iterator"]))
            value.save(made[-1])
    return figure_rst(made, gallery_conf["src_dir"])


sphinx_gallery_conf = {
    "image_scrapers": (plots,),
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "abort_on_example_error": True,
    "min_reported_time": 10,
    "remove_config_comments": True,
}

# The site has pages that stand elsewhere in the project; a link to them goes to their page here.
ELSEWHERE = {
    "README.md": "from_project/start.md",
    "benchmarks/RESULTS.md": "from_project/results.md",
    "CONTRIBUTING.md": "from_project/contributing.md",
    "CHANGELOG.md": "from_project/changelog.md",
}
ROOMS = (
    *("data", "models", "predictions", "training", "attribution", "faithfulness", "audit", "report"),
    "runs",
)


def of_this_site(app, name, source):
    """Turn links out of docs/ into links to the pages that stand for them here; notebooks stay names."""
    up, text = "../" * name.count("/"), source[0]
    for path, page in ELSEWHERE.items():
        text = re.sub(rf"\]\((\.\./)*{re.escape(path)}", f"]({up}{page}", text)
    text = re.sub(r"\]\((\.\./)?docs/", f"]({up}", text)
    source[0] = re.sub(r"\[([^\]]*)\]\((\.\./)?(notebooks|src|tests)/[^)]*\)", r"`\1`", text)


def pages_from_elsewhere():
    """Write the pages of ELSEWHERE, and a page of the reference for each room, from its public names."""
    for path, page in ELSEWHERE.items():
        write(HERE / page, (ROOT / path).read_text(encoding="utf-8"))
    for room in ROOMS:
        title = f"sightline.{room}"
        lines = [title, "=" * len(title), ""]
        for module, name in names_of(room):
            thing = getattr(importlib.import_module(title), name)
            if inspect.isclass(thing):
                lines += [f".. autoclass:: {title}.{name}", "   :members:", ""]
            elif callable(thing):
                lines += [f".. autofunction:: {title}.{name}", ""]
            else:
                lines += [f".. autodata:: {title}.{module}.{name}", "   :no-value:", ""]
        write(HERE / "api" / f"{title}.rst", "\n".join(lines))
    lines = ["sightline", "=========", "", "What most users need: ``import sightline as sl``.", ""]
    for room, name in names_of(""):
        full = f"sightline.{room}.{name}"
        if name.isupper():
            full = next(f"sightline.{room}.{module}.{name}" for module, one in names_of(room) if one == name)
        lines += [f"- :py:obj:`sl.{name} <{full}>`" if room != "errors" else f"- ``sl.{name}``"]
    write(HERE / "api" / "sightline.rst", "\n".join(lines) + "\n")


def names_of(room):
    """The public names of a room with the modules that they come from, as its facade lists them."""
    facade = (ROOT / "src" / "sightline" / room / "__init__.pyi").read_text(encoding="utf-8")
    return re.findall(r"^from \.([\w.]+) import \w+ as (\w+)$", facade, flags=re.MULTILINE)


def write(path, text):
    """Write only what is new: a page that did not change is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app):
    app.connect("source-read", of_this_site)
    pages_from_elsewhere()
