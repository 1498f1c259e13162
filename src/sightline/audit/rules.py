"""Rules that a run has to keep, and whether its numbers are enough to say so.

    rules = parse_rules(["accuracy >= 0.9", "leaks == 0", "accuracy not worse than BASE by 0.01"])

A rule holds by the 95 % interval of its number, or not at all: it is passed if the whole interval keeps it,
failed if the whole interval breaks it, and undecided in between. At a true value that lies right at the bound
a rule is passed by chance in at most 5 % of test splits, and mostly in half of that.

>>> from sightline.stats import exact_interval
>>> def share(images):  # 93 % of so many images are right
...     return exact_interval(0.93 * images, images)
>>> found = judge(parse_rule("accuracy >= 0.9"), Measured(0.93, share, images=200))
>>> str(found.verdict), found.needed
('undecided', 391)
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sightline.errors import InputError

COUNTS = ("leaks", "label_issues")
"""Metrics that count findings in the files at hand. Only these can be said to equal a number."""

LOWER_IS_BETTER = ("loss", "brier", "calibration_error", *COUNTS)
_RANGES = {"matthews": (-1.0, 1.0), "kappa": (-1.0, 1.0), "loss": (0.0, math.inf), "brier": (0.0, 2.0)}
_RANGES |= dict.fromkeys(COUNTS, (0.0, math.inf))

_METRIC = r"(?P<metric>[A-Za-z_]\w*)(?:\[(?P<of>.+)\])?"
_BOUND = re.compile(rf"{_METRIC}\s*(?P<relation>>=|<=|==)\s*(?P<number>\S+)")
_BASE = re.compile(rf"{_METRIC}\s+(?P<relation>not worse|better) than BASE(?:\s+by\s+(?P<number>\S+))?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_FITS = "METRIC >= NUMBER (or <=, ==), METRIC not worse than BASE by NUMBER, METRIC better than BASE"
_MOST = 10**9  # images; what needs more is not decided by images


class Verdict(StrEnum):
    """Whether a rule holds."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: As it was written.
        metric: A name.
        of: The class that it is of, or "".
        relation: ">=", "<=", "==", "not worse" or "better"; the last two speak of the change from a base.
        bound: The number after it; of a change the margin, 0 or more.
    """

    text: str
    metric: str
    of: str
    relation: str
    bound: float

    @property
    def of_base(self) -> bool:
        """Whether it compares with another run."""
        return self.relation in ("not worse", "better")

    def verdict(self, low: float, high: float) -> Verdict:
        """Return what the interval of the number, or of its change from the base, says."""
        if self.relation == "==":
            if low == high == self.bound:
                return Verdict.PASSED
            return Verdict.UNDECIDED if low <= self.bound <= high else Verdict.FAILED
        bound, upward = self.bound, self.relation == ">="
        if self.of_base:
            upward = self.metric not in LOWER_IS_BETTER
            bound = (1 if upward else -1) * (-bound if self.relation == "not worse" else bound)
        if not upward:
            low, high, bound = -high, -low, -bound
        better = self.relation == "better"
        if low > bound or (low == bound and not better):
            return Verdict.PASSED
        return Verdict.FAILED if high < bound or (better and high == bound) else Verdict.UNDECIDED


@dataclass(frozen=True)
class Measured:
    """What a rule is about, measured.

    Attributes:
        value: The number, or its change from the base; None where it is not defined or was not measured.
        interval: From a number of images to the 95 % interval that the same value has on so many; None where
            it has none.
        images: How many it was measured on.
        note: How, in words.
        remedy: What would decide it where more images would not.
    """

    value: float | None
    interval: Callable[[float], tuple[float, float]] | None = None
    images: int = 0
    note: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class CheckedRule:
    """A rule and what came of it.

    Attributes:
        rule: Its text.
        verdict: Whether it holds.
        value: The number, or its change from the base.
        interval: Of `value`, 95 %.
        images: What it was measured on.
        needed: Of an undecided rule: how many images like these would decide it if the value stayed as it is,
            an estimate; None where images would not.
        note: How it was measured, and what to do where images would not decide it.
    """

    rule: str
    verdict: Verdict
    value: float | None
    interval: tuple[float, float] | None
    images: int
    needed: int | None
    note: str


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Return the rules that these lines state.

    Raises:
        InputError: A line is not of a rule, a bound cannot be kept or broken, a rule stands there twice.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError('rules are a list of lines of text, such as ["accuracy >= 0.9"]')
    if not texts:
        raise InputError('there are no rules; write a list of lines, such as ["accuracy >= 0.9"]')
    rules = tuple(parse_rule(text) for text in texts)
    seen = set()
    for rule in rules:
        key = (rule.metric, rule.of, rule.relation)
        if key in seen:
            raise InputError(f"{_named(rule.text)} says again what another rule says; keep one of the two")
        seen.add(key)
    return rules


def parse_rule(text: str) -> Rule:
    """Return the rule that a line states.

    Raises:
        InputError: It is not of a rule, or its bound can never be kept or never be broken.

    >>> parse_rule("recall[cat] >= 0.8").of
    'cat'
    """
    line = text.strip()
    found = _BOUND.fullmatch(line) or _BASE.fullmatch(line)
    if found is None:
        raise InputError(f"{_named(text)} is no rule; write {_FITS}")
    metric, of, relation, written = (found[name] for name in ("metric", "of", "relation", "number"))
    if written is None and relation == "not worse":
        raise InputError(f"{_named(text)} says not by how much; write: {metric} not worse than BASE by 0.01")
    rule = Rule(line, metric, (of or "").strip(), relation, _number(written or "0", text))
    _check_bound(rule)
    return rule


def _named(text: str) -> str:
    return f"rule {' '.join(text.split())[:120]!r}"


def _number(written: str, text: str) -> float:
    if written.endswith("%"):
        raise InputError(f"{_named(text)} has {written}; write a share of 1: 0.9 for 90 %")
    if not _NUMBER.fullmatch(written) or not math.isfinite(float(written)):
        raise InputError(f"{_named(text)} has {written!r} where a number has to be, such as 0.9")
    return float(written)


def _check_bound(rule: Rule) -> None:
    low, high = _RANGES.get(rule.metric, (0.0, 1.0))
    if rule.of_base:
        low, high = 0.0, high - low
    if not low <= rule.bound <= high:
        hint = f"; write {rule.bound / 100:g} for {rule.bound:g} %" if high == 1 < rule.bound <= 100 else ""
        limits = f"from {low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise InputError(f"{_named(rule.text)} has {rule.bound:g}, and it needs {limits}{hint}")
    if rule.relation == "==" and rule.metric not in COUNTS:
        raise InputError(
            f"{_named(rule.text)}: no sample shows that a share equals a number; write >= or <= "
            f"(== is for {' and '.join(COUNTS)})"
        )


def judge(rule: Rule, measured: Measured) -> CheckedRule:
    """Return whether the rule holds, and how many images would say so if these do not."""
    note = measured.note
    if measured.value is None or measured.interval is None:
        return CheckedRule(
            rule.text, Verdict.UNDECIDED, measured.value, None, measured.images, None, _joined(measured)
        )
    low, high = measured.interval(measured.images)
    verdict, needed = rule.verdict(low, high), None
    if verdict is Verdict.UNDECIDED:
        needed = None if measured.remedy else images_needed(rule, measured)
        if needed is None:
            note = _joined(measured) if measured.remedy else _at_bound(note)
    return CheckedRule(rule.text, verdict, measured.value, (low, high), measured.images, needed, note)


def _joined(measured: Measured) -> str:
    return "; ".join(part for part in (measured.note, measured.remedy) if part)


def _at_bound(note: str) -> str:
    return "; ".join([*([note] if note else []), "at this value no number of images decides it"])


def images_needed(rule: Rule, measured: Measured) -> int | None:
    """Return from how many images on the rule would be decided at the same value; None if from none on."""
    interval = measured.interval
    if interval is None:
        return None

    def decided(images: float) -> bool:
        return rule.verdict(*interval(images)) is not Verdict.UNDECIDED

    few = max(measured.images, 1)
    many = 2 * few
    while not decided(many):
        few, many = many, 2 * many
        if few > _MOST:
            return None
    while many - few > max(1, few // 1000):  # three digits of an estimate are enough
        middle = (few + many) // 2
        few, many = (few, middle) if decided(middle) else (middle, many)
    return many


@dataclass(frozen=True)
class CheckResult:
    """What came of holding a run to rules.

    Attributes:
        run: Its folder.
        base: The folder of the run that it was compared with.
        rules: In the order in which they were stated.
        default: Whether nobody stated rules, and the default list stood in.
    """

    run: str
    base: str | None
    rules: tuple[CheckedRule, ...]
    default: bool = False

    @property
    def verdict(self) -> Verdict:
        """Failed if any rule is, else undecided if any is, else passed."""
        found = {one.verdict for one in self.rules}
        return next(one for one in (Verdict.FAILED, Verdict.UNDECIDED, Verdict.PASSED) if one in found)

    @property
    def exit_code(self) -> int:
        """What the command ends with: 0 passed, 3 failed, 4 undecided."""
        return {Verdict.PASSED: 0, Verdict.FAILED: 3, Verdict.UNDECIDED: 4}[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {"verdict": str(self.verdict), **dataclasses.asdict(self)}
