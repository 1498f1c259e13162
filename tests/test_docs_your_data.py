"""The examples of docs/your_data.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "your_data.md"


def test_the_examples_run_and_hold(tmp_path, monkeypatch):
    if not PAGE.exists():
        pytest.skip("the package is installed without its project")
    rng, rows = np.random.default_rng(0), ["path,label,patient"]
    for number in range(40):
        path = f"photos/{'cat' if number % 2 else 'dog'}/{number}.png"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / path)
        rows.append(f"{path},{Path(path).parent.name},p{number // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(code, found)
    assert found["data"].class_names == ("cat", "dog")
    assert len(found["data"].test) == 8
    assert (found["wide"].image_size, found["wide"].resizing.rule) == ((24, 48), "pad")
    assert set(found["table"].train.metadata) == {"path", "hash", "patient"}
    both = set(found["by_patient"].train.groups) & set(found["by_patient"].test.groups)
    assert not both
    assert found["by_patient"].notes[0].startswith("10 groups")
    assert found["apart"].notes[0] == "near-duplicates are kept in one split: 0 images look like another one"
