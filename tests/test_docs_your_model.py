"""The examples of docs/your_model.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "your_model.md"
NETS = """
from torch import nn

def build(num_classes):
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


@pytest.mark.slow
def test_the_examples_run_and_hold(tmp_path, monkeypatch):
    if not PAGE.exists():
        pytest.skip("the package is installed without its project")
    rng, rows = np.random.default_rng(0), []
    for number in range(40):
        name, split = ("cat", "dog")[number % 2], "test" if number % 5 < 2 else "train"
        path = Path(f"photos/{split}/{name}/{number}.png")
        (tmp_path / path.parent).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / path)
        rows.append({"path": str(path), "label": name, "split": split})
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "labels.csv", index=False)
    cats = rng.random(40)
    scores = pd.DataFrame({"path": table["path"], "dog": 1 - cats, "cat": cats})
    scores.sample(frac=1, random_state=0).to_parquet(tmp_path / "predictions.parquet")
    np.save(tmp_path / "features.npy", rng.normal(size=(40, 6)))
    (tmp_path / "my_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    import my_nets  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    safetensors.torch.save_file(my_nets.build(2).state_dict(), "best.safetensors")
    made = []
    found: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(code, found)
        if not made or made[-1] is not found["run"]:
            made.append(found["run"])
    assert [run.folder.name for run in made] == ["mine", "scores", "features", "arrays"]
    model, alone, featured, arrays = made
    assert len(model.predictions) == len(alone.predictions) == 16
    tested = table["split"] == "test"
    np.testing.assert_allclose(alone.predictions.probabilities[:, 0], cats[tested], atol=1e-6)
    assert featured.audit.neighbors is not None
    assert arrays.audit.accuracy.value == pytest.approx(5 / 6)
    assert all(run.report.exists() for run in made)
