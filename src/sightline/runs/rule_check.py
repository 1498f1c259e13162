"""A run held to rules: what passed, what failed, what its test images cannot decide.

    found = check("runs/latest", ["accuracy >= 0.9", "leaks == 0"])
    found.verdict, found.exit_code

It reads the run's folder and needs neither its data nor its model, and never imports torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from sightline.audit import read_audit
from sightline.audit.rule_metrics import BaseRun, RunNumbers, measure_rule
from sightline.audit.rules import CheckResult, Rule, judge, parse_rules
from sightline.errors import DamagedFileError, InputError, NotFoundError, nearest
from sightline.files import check_regular, read_json, write_text
from sightline.predictions import Predictions, read_predictions
from sightline.predictions.scores import Scores, score_predictions
from sightline.report import check_junit, check_markdown
from sightline.runs.artifacts import AUDIT, METRICS, PREDICTIONS
from sightline.runs.folders import existing_folder, shared_images

if TYPE_CHECKING:
    from sightline.runs.run_folder import Run

DEFAULT_RULES = (
    "leaks == 0",
    "label_issues <= 10",
    "calibration_error <= 0.05",
    "worst_class >= 0.5",
    "worst_slice >= 0.5",
)
"""Without rules of your own: these, after "better than to name the largest class always"."""

DEFAULT_OF_BASE = ("accuracy not worse than BASE by 0.01",)

_SCORES = TypeAdapter(Scores)


def check(
    run: Run | str | Path,
    rules: Sequence[str] | str | Path | None = None,
    *,
    against: Run | str | Path | None = None,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
) -> CheckResult:
    """Hold a run to rules.

    Args:
        run: A run or its folder. Its predictions have to be there; what reads the audit is undecided without.
        rules: Lines such as "accuracy >= 0.9", or a TOML file that has them as `rules`; None for a
            default list.
        against: The run that rules mean by BASE.
        junit: Write the result as JUnit XML into this file.
        markdown: Write it as a table in Markdown.

    Returns:
        A verdict for each rule, and one for all.

    Raises:
        InputError: A rule does not fit, names a metric that the run does not have, or there is no BASE.
        NotFoundError: There is no such run, or no such file of rules.
        DamagedFileError: A file of the run, or that of the rules, cannot be read.
        WriteError: A file cannot be written.
    """
    folder = _folder(run)
    predictions = read_predictions(folder / PREDICTIONS)
    texts = _default(predictions, against is not None) if rules is None else _texts(rules)
    parsed = parse_rules(texts)
    compares = any(rule.of_base for rule in parsed)
    if against is not None and not compares:
        raise InputError(
            "no rule speaks of BASE; write one, such as: accuracy not worse than BASE by 0.01, or leave "
            "--against out"
        )
    base = None if against is None else _base(_folder(against), folder, predictions)
    numbers = _numbers(folder, predictions, parsed)
    checked = tuple(judge(rule, measure_rule(rule, numbers, base)) for rule in parsed)
    name = None if against is None else str(_folder(against))
    found = CheckResult(str(folder), name, checked, default=rules is None)
    for path, write in ((junit, check_junit), (markdown, check_markdown)):
        if path is not None:
            write_text(Path(path), write(found))
    return found


def _folder(run: Run | str | Path) -> Path:
    return existing_folder(Path(run)) if isinstance(run, str | Path) else run.folder


def _default(predictions: Predictions, compares: bool) -> tuple[str, ...]:
    largest = np.bincount(predictions.labels).max() / len(predictions)
    better = f"accuracy >= {largest:.4f}"
    return (better, *DEFAULT_RULES, *(DEFAULT_OF_BASE if compares else ()))


def _texts(rules: Sequence[str] | str | Path) -> Sequence[str]:
    if not isinstance(rules, str | Path):
        return list(rules)
    path = Path(rules)
    try:
        check_regular(path)
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "; one rule goes into a list: [rule]" if any(sign in str(rules) for sign in "<>=") else ""
        raise NotFoundError(f'{path} is missing; it has to hold: rules = ["accuracy >= 0.9"]{hint}') from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedFileError(f"{path} cannot be read as TOML ({reason}); correct it") from None
    unknown = [key for key in content if key != "rules"]
    if unknown:
        raise InputError(f"{path} has the key {unknown[0]!r}; {nearest(unknown[0], ['rules'])}")
    listed = content.get("rules")
    if not isinstance(listed, list):
        raise InputError(f'{path} has no list of rules; write: rules = ["accuracy >= 0.9"]')
    return listed


def _numbers(folder: Path, predictions: Predictions, rules: Sequence[Rule]) -> RunNumbers:
    metrics: dict[str, Any] = {}
    if (folder / METRICS).exists():
        metrics = read_json(folder / METRICS, otherwise=f"'sightline analyze {folder}' writes it")
    audit = read_audit(folder).result if (folder / AUDIT).exists() else None
    listed = metrics.get("metrics")
    own = listed if isinstance(listed, dict) else {}
    own = {name: float(value) for name, value in own.items() if isinstance(value, int | float)}
    return RunNumbers(predictions, _scores(folder, metrics, predictions), audit, own)


def _scores(folder: Path, metrics: Mapping[str, Any], predictions: Predictions) -> Scores:
    """Those of metrics.json; an older version, or one of other predictions, has them measured."""
    if "scores" not in metrics or metrics.get("images") != len(predictions):
        return score_predictions(predictions)
    try:
        found = _SCORES.validate_python(metrics["scores"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedFileError(
            f"{folder / METRICS} is damaged (scores.{place}: {first['msg']}); 'sightline analyze {folder}' "
            "writes it"
        ) from None
    if tuple(one.name for one in found.classes) != predictions.class_names:
        raise DamagedFileError(
            f"{folder / METRICS} has other classes than {PREDICTIONS}; 'sightline analyze {folder}' "
            "writes both"
        )
    return found


def _base(folder: Path, own_folder: Path, own: Predictions) -> BaseRun:
    predictions = read_predictions(folder / PREDICTIONS)
    if predictions.class_names != own.class_names:
        raise InputError(
            f"{folder} and {own_folder} have other classes; a run is held to one with the same classes"
        )
    rows, mine = shared_images(folder, predictions, own_folder, own)
    return BaseRun(predictions, rows, mine)
