"""What an audit found, as tables, and the files it is kept in."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sightline.errors import SightlineError
from sightline.files import atomic_path, write_atomic, write_text

FILES = ("audit.json", "audit_test.parquet", "audit_train.parquet", "audit.npz")


@dataclass(frozen=True)
class Audit:
    """The findings. In a notebook it shows itself: accuracy, causes of the mistakes, what to fix first.

    facts: what the report shows, as plain values (see `docs/report.md`). test, train: a row per image of the
    split, in data order. arrays: neighbours, maps and thumbnails of images.
    """

    facts: dict[str, Any]
    test: pd.DataFrame
    train: pd.DataFrame
    arrays: dict[str, np.ndarray]

    @property
    def causes(self) -> pd.DataFrame:
        """The error budget: a row per cause, adding up to the mistakes."""
        return pd.DataFrame(self.facts["budget"]["causes"]).drop(columns="overlaps")

    @property
    def fixes(self) -> pd.DataFrame:
        """The actions in the order to do them; gain in points, NaN where it is not known without training."""
        rows = [
            {**fix, **{f"gain_{key}": value for key, value in (fix["gain"] or {}).items()}}
            for fix in self.facts["fixes"]
        ]
        return pd.DataFrame(rows).drop(columns="gain", errors="ignore")

    @property
    def slices(self) -> pd.DataFrame:
        """Groups of test images with more mistakes than the rest, confirmed on the half that was held out."""
        return pd.DataFrame(self.facts["slices"])

    @property
    def confusions(self) -> pd.DataFrame:
        """Pairs of classes (numbers), the most frequently confused first."""
        return pd.DataFrame(self.facts["confusions"])

    @property
    def duplicates(self) -> pd.DataFrame:
        """Pairs of near-duplicates within and between the splits, the most alike first."""
        return pd.DataFrame(self.facts["duplicates"]["pairs"])

    @property
    def robustness(self) -> pd.DataFrame:
        """Error under each corruption and severity; empty where it was not measured."""
        return pd.DataFrame((self.facts["robustness"] or {}).get("rows", []))

    def suspects(self, split: str = "test") -> pd.DataFrame:
        """Return the images of "test" or "train" by suspicion of their label, the most suspicious first."""
        table = {"test": self.test, "train": self.train}[split]
        return table.sort_values("suspicion", ascending=False, kind="stable", na_position="last")

    def _repr_html_(self) -> str:
        """The page's summary for a notebook; every text is escaped."""
        found = self.facts["accuracy"]
        low, high = found["interval"]
        head = (
            f"<p><b>{100 * found['value']:.2f} %</b> right on {found['n']} test images "
            f"({100 * low:.2f} to {100 * high:.2f} %)</p>"
        )
        warnings = "".join(f"<li>{html.escape(text)}</li>" for text in self.facts["warnings"])
        causes = self.causes[["cause", "count", "share"]].to_html(
            index=False, float_format=lambda v: f"{v:.3f}"
        )
        fixes = self.fixes.reindex(columns=["title", "gain_value", "gain_unit", "why"]).head(5)
        return (
            f"{head}<ul>{warnings}</ul><p>Why the mistakes happen</p>{causes}"
            f"<p>What to fix first</p>{fixes.to_html(index=False, na_rep='–', float_format='{:.2f}'.format)}"
        )


def write_audit(folder: Path, audit: Audit) -> None:
    """Write `audit.json`, `audit_test.parquet`, `audit_train.parquet` and `audit.npz`, each whole or not."""
    for name, table in (("audit_test.parquet", audit.test), ("audit_train.parquet", audit.train)):
        with atomic_path(folder / name) as partial:
            table.to_parquet(partial, index=False, compression="zstd")
    arrays: dict[str, Any] = audit.arrays
    write_atomic(folder / "audit.npz", lambda file: np.savez(file, **arrays))
    # Last: a folder with this file has the others.
    write_text(folder / "audit.json", json.dumps(plain(audit.facts), indent=1, allow_nan=False))


def read_audit(folder: str | Path) -> Audit:
    """Read what :func:`write_audit` wrote.

    Raises SightlineError if a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        test, train = (pd.read_parquet(folder / name) for name in FILES[1:3])
        with (folder / "audit.npz").open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise SightlineError(f"{error.filename} is not there; 'sightline audit {folder}' writes it") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SightlineError(
            f"the audit of {folder} is damaged ({reason}); 'sightline audit {folder}' writes it anew"
        ) from None
    return Audit(facts, test, train, arrays)


def plain(value: Any) -> Any:
    """Return dicts, lists and Python scalars in place of numpy's; None in place of what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
