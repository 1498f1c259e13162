"""Puts the finished script of each page into the wheel, which then needs no modules to make it from."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundleHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if version == "editable":
            return  # an editable install has the modules, and bundles them whenever it writes a page
        source = Path(self.root) / "src" / "sightline" / "report"
        bundler = runpy.run_path(str(source / "bundle.py"))
        self._folder = tempfile.TemporaryDirectory()
        for page in bundler["PAGES"]:
            script = Path(self._folder.name) / f"{page}.bundle.js"
            script.write_text(bundler["bundle"](source / "assets" / "js" / f"{page}.js"), encoding="utf-8")
            build_data["force_include"][str(script)] = f"sightline/report/assets/{script.name}"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()
