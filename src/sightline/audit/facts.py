"""What an audit found, as tables, and the files it is kept in.

Findings as plain values: what `audit.json` holds and the report shows.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sightline.audit.ambiguity import KINDS
from sightline.audit.calibration import (
    CrossFit,
    calibration_error,
    calibration_floor,
    equal_mass,
    reliability,
)
from sightline.audit.conformal import check_conformal
from sightline.audit.duplicates.pairs import accuracy_without
from sightline.audit.label_issues import suspect_agreement
from sightline.audit.selective import Rejection, augrc, aurc, risk_coverage
from sightline.errors import SightlineError
from sightline.files import atomic_path, write_atomic, write_text
from sightline.predictions import Predictions
from sightline.stats import wilson_interval

if TYPE_CHECKING:
    import pandas as pd

    from sightline.audit.pipeline import Findings

WANTED_COVERAGES = (0.8, 0.9, 0.95)
_LISTED = 200  # rows of a list of images


def accuracy_facts(found: Findings) -> dict[str, Any]:
    """Accuracy, its interval, and that of the mean over the views if there are any."""
    p, views = found.evidence.predictions, found.evidence.views
    several = None
    if views is not None and len(views) > 1:
        right = views.mean(axis=0).argmax(axis=1) == p.labels
        several = {"name": f"{len(views)} views", "value": float(right.mean())}
    interval = wilson_interval(int(p.correct.sum()), len(p))
    return {"value": float(p.correct.mean()), "interval": interval, "n": len(p), "views": several}


def calibration_facts(p: Predictions, fitted: CrossFit) -> dict[str, Any]:
    """Calibration error, what of it is noise, what the temperature does, and the reliability diagram."""
    floor = calibration_floor(p.confidence)
    return {
        "ece": calibration_error(p.confidence, p.correct),
        "ece_mass": calibration_error(p.confidence, p.correct, binning=equal_mass),
        "floor": floor.mean,
        "floor_high": floor.high,
        "nll": fitted.nll,
        "temperature": fitted.temperature,
        "ece_after": fitted.ece_after,
        "nll_after": fitted.nll_after,
        "reliability": _rows(reliability(p.confidence, p.correct)),
    }


def selective_facts(p: Predictions, rejections: list[Rejection]) -> dict[str, Any]:
    """The risk-coverage curve, the areas under it, and the thresholds for wanted error rates."""
    curve = risk_coverage(p.confidence, p.correct, most=200)
    return {
        "aurc": aurc(p.confidence, p.correct),
        "augrc": augrc(p.confidence, p.correct),
        "curve": {name: curve[name].tolist() for name in ("coverage", "risk", "threshold")},
        "wanted": [asdict(one) for one in rejections],
    }


def difficulty_facts(found: Findings) -> dict[str, Any]:
    """How many images are ambiguous, hard but right, easy but wrong; the clearest of each, the bounds."""
    p, ambiguity, difficulty = found.evidence.predictions, found.spread["ambiguity"], found.difficulty
    clearest = dict(zip(KINDS, (-ambiguity.to_numpy(), p.confidence, -p.confidence), strict=True))
    kinds = []
    for kind, rank in clearest.items():
        rows = np.flatnonzero(difficulty.kinds == kind)
        ordered = rows[np.argsort(rank[rows], kind="stable")]
        wrong = int((~p.correct[rows]).sum())
        kinds.append({"kind": kind, "count": len(rows), "wrong": wrong, "images": ordered[:_LISTED].tolist()})
    bounds = {name: getattr(difficulty, name) for name in ("ambiguity_from", "hard_up_to", "easy_from")}
    return {"kinds": kinds, **bounds}


def conformal_facts(p: Predictions, seed: int) -> list[dict[str, Any]]:
    """Sets for wanted coverages, chosen on one half of the images and checked on the other."""
    checks = [
        check_conformal(p.labels, p.probabilities, coverage=coverage, seed=seed)
        for coverage in WANTED_COVERAGES
    ]
    return [{name: value for name, value in vars(one).items() if name != "per_class"} for one in checks]


def suspect_facts(found: Findings) -> dict[str, Any]:
    """The lists of suspicious labels of both splits, the most suspicious first."""
    train, folds = found.train_suspects, found.fold_suspects
    listed = train if train is not None else folds
    facts: dict[str, Any] = {
        "test": {
            "estimated": int(found.test_suspects["issue"].to_numpy().sum()),
            "top": _top(found.test_suspects),
        },
        "train": None,
    }
    if listed is None:
        return facts
    agreement = None
    if train is not None and folds is not None:
        top = max(1, int(train["issue"].to_numpy().sum()))
        agreed = suspect_agreement(train["suspicion"], folds["suspicion"], top=top)
        agreement = {**asdict(agreed), "both": agreed.both.tolist()}
    estimated = listed["posterior" if "posterior" in listed else "issue"].to_numpy().sum()
    facts["train"] = {
        "method": "area under the margin" if train is not None else "folds",
        "estimated": float(estimated) if estimated else None,  # no group of them stands out
        "top": _top(listed),
        "folds": None
        if folds is None
        else {"estimated": int(folds["issue"].to_numpy().sum()), "top": _top(folds)},
        "agreement": agreement,
    }
    return facts


def duplicate_facts(found: Findings) -> dict[str, Any]:
    """Pairs of near-duplicates, and the accuracy without the test images that have a twin in training."""
    duplicates, correct = found.duplicates, found.evidence.predictions.correct
    without = accuracy_without(duplicates.leaked, correct)
    return {
        "pairs": duplicates.pairs.head(_LISTED).to_dict("records"),
        "count": len(duplicates.pairs),
        "by_chance": duplicates.chance,
        "leaked": int(duplicates.leaked.sum()),
        "groups": duplicates.groups,
        "accuracy_without": {
            "value": without.value_without,
            "interval": without.interval_without,
            "n": without.n_without,
        },
    }


def slice_facts(found: Findings) -> list[dict[str, Any]]:
    """The confirmed slices, in the order of their p-values."""
    return [
        {
            "name": one.name,
            "size": len(one.rows),
            "error": one.error,
            "interval": one.interval,
            "rest": one.rest,
            "p": one.p,
            "evidence": one.evidence,
            "rows": one.rows[:_LISTED].tolist(),
            "shortcut": one.shortcut,
        }
        for one in found.slices
    ]


def robustness_facts(found: Findings) -> dict[str, Any] | None:
    """Errors under corruption, None where they were not measured."""
    table = found.evidence.robustness
    if table is None:
        return None
    rows = table.rows.rename(columns={"low": "interval_low", "high": "interval_high"})
    return {
        "clean": table.clean,
        "n": table.n,
        "rows": _rows(rows),
        "mean": table.mean,
        "increase": table.increase,
        "increase_interval": table.increase_interval,
    }


def budget_facts(found: Findings) -> dict[str, Any]:
    """The mistakes by cause, and how often each cause comes with another."""
    budget = found.budget
    causes = []
    for row in _rows(budget.table):
        beside = budget.overlaps[row["cause"]].to_dict()
        overlaps = {name: n for name, n in beside.items() if n and name != row["cause"]}
        causes.append({**row, "overlaps": overlaps})
    return {"mistakes": budget.mistakes, "causes": causes}


def confusion_facts(found: Findings) -> list[dict[str, Any]]:
    """Pairs of classes, the most frequent first."""
    return _rows(found.pairs.head(_LISTED))


def _listed(suspects: pd.DataFrame) -> dict[str, Any]:
    return {"estimated": int(suspects["issue"].to_numpy().sum()), "top": _top(suspects)}


def _top(suspects: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows flagged as issues, and at least the ten most suspicious."""
    ranked = suspects.sort_values("suspicion", ascending=False, kind="stable", na_position="last")
    ranked = ranked.sort_values("issue", ascending=False, kind="stable")
    return ranked.head(min(_LISTED, max(10, int(suspects["issue"].to_numpy().sum())))).to_dict("records")


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts, with the two ends of an interval as one entry."""
    rows: list[dict[str, Any]] = table.to_dict("records")  # pyright: ignore[reportAssignmentType]
    for row in rows:
        row["interval"] = [row.pop("interval_low"), row.pop("interval_high")]
    return rows


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
