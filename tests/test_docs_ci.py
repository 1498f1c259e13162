"""The examples of docs/ci.md do what the page says, the script of its job too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from report_audit_fixture import add_audit
from report_fixture import NAMES, predictions_of, write_run

from sightline.predictions import Predictions

PAGE = Path(__file__).parents[1] / "docs" / "ci.md"


def runs_in(folder: Path) -> None:
    old = predictions_of(n=2000)
    better = Predictions(old.logits + 0.4 * np.eye(4, dtype=np.float32)[old.labels], old.labels, NAMES)
    for name, predictions in (("base", old), ("new", better)):
        add_audit(write_run(folder / "runs" / name, predictions=predictions))


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="the package is installed without its project")
def test_the_examples_run_and_hold(tmp_path, monkeypatch):
    runs_in(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    blocks = {
        kind: re.findall(rf"```{kind}\n(.*?)```", page, flags=re.DOTALL)
        for kind in ("toml", "python", "yaml")
    }
    (tmp_path / "check.toml").write_text(blocks["toml"][0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    for code in blocks["python"]:
        exec(code, found)
    verdicts = {one.rule: str(one.verdict) for one in found["found"].rules}
    assert verdicts["accuracy not worse than BASE by 0.02"] == "passed"
    assert verdicts["leaks == 0"] == "failed"
    assert verdicts["label_issues <= 10"] == "failed"
    assert (tmp_path / "check.xml").read_text().count("<testcase") == len(verdicts)

    job = yaml.safe_load(blocks["yaml"][0])["jobs"]["check"]
    step = next(one for one in job["steps"] if one.get("name") == "Hold the run to the rules")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "sightline"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sightline "$@"\n')
    command.chmod(0o755)
    where = {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }

    def ends() -> tuple[int, str]:
        (tmp_path / "summary.md").write_text("")
        done = subprocess.run(
            [bash, "-e", "-c", step["run"]], env=os.environ | where, capture_output=True, text=True
        )
        return done.returncode, done.stdout

    assert ends()[0] == 3
    assert "| leaks == 0 | failed |" in (tmp_path / "summary.md").read_text()
    (tmp_path / "check.toml").write_text('rules = ["accuracy >= 0.5", "label_issues <= 15"]')
    assert ends()[0] == 1  # no rule speaks of BASE
    (tmp_path / "check.toml").write_text('rules = ["accuracy better than BASE", "label_issues <= 15"]')
    code, out = ends()
    assert code == 0
    assert "::warning::a rule is undecided" in out
