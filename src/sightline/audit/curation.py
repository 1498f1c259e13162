"""What a reader decided about single images: relabel, keep or drop; and a data set with that done.

The file `fixes.json` is exported by the report and read by `sightline run RECIPE --fixes fixes.json`. It
carries the fingerprint of the data it was made about and is refused for any other.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data import Dataset, PlantedTruth, Split, fingerprint
from sightline.errors import SightlineError, nearest
from sightline.files import write_text

FORMAT, VERSION = "sightline-fixes", 1
SPLITS, ACTIONS = ("train", "test"), ("relabel", "keep", "drop")


@dataclass(frozen=True)
class Decision:
    """What to do with image `index` of `split` ("train" or "test").

    action: "relabel" (to the class named `label`), "keep" (somebody looked, and it is right) or "drop".
    """

    split: str
    index: int
    action: str
    label: str = ""
    note: str = ""


@dataclass(frozen=True)
class Decisions:
    """Decisions about the images of one data set, at most one for each image.

    data: the fingerprint of that data set, as `data.fingerprint` gives it. Raises SightlineError if a
    decision does not fit it: an unknown split, action or class, an index outside, an image twice.
    """

    data: Mapping[str, Any]
    decisions: tuple[Decision, ...] = ()

    def __post_init__(self) -> None:
        seen = set()
        for number, decision in enumerate(self.decisions, 1):
            problem = _problem(decision, self.data)
            if problem is None and (decision.split, decision.index) in seen:
                problem = f"{decision.split} image {decision.index} was decided before; keep one of the two"
            if problem:
                raise SightlineError(f"decision {number} of {len(self.decisions)}: {problem}")
            seen.add((decision.split, decision.index))

    def of(self, split: str, action: str) -> list[Decision]:
        """Return the decisions for that action in that split, in order of the images."""
        chosen = [d for d in self.decisions if (d.split, d.action) == (split, action)]
        return sorted(chosen, key=lambda d: d.index)


def write_decisions(path: Path, decisions: Decisions) -> None:
    """Write `fixes.json`, whole or not at all."""
    rows = [
        {name: value for name, value in dataclasses.asdict(d).items() if name != "label" or value}
        for d in decisions.decisions
    ]
    content = {"format": FORMAT, "version": VERSION, "data": dict(decisions.data), "decisions": rows}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_decisions(path: Path) -> Decisions:
    """Read `fixes.json`.

    Raises SightlineError if the file is missing, is not such a file, is of a newer version, or holds a
    decision that does not fit the data it names.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SightlineError(f"{path} is not there; export it from the report's list of decisions") from None
    except ValueError as error:
        raise SightlineError(f"{path} is not JSON ({error}); export it from the report again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SightlineError(f'{path} has no "format": "{FORMAT}"; export it from the report')
    if content.get("version") != VERSION:
        raise SightlineError(
            f"{path} is of version {content.get('version')}; this Sightline reads version {VERSION}"
        )
    try:
        data = _data_block(content["data"])
        rows = tuple(_decision(row) for row in content["decisions"])
        return Decisions(data, rows)
    except (KeyError, TypeError, ValueError) as error:
        raise SightlineError(
            f"{path} is damaged ({type(error).__name__}: {error}); export it from the report again"
        ) from None
    except SightlineError as error:
        raise SightlineError(f"{path}: {error}") from None


def apply_decisions(data: Dataset, decisions: Decisions) -> Dataset:
    """Return the data set with images relabelled and dropped as decided; what is kept stays in its order.

    `data` itself is not changed. Planted truth is kept true: a wrong label that was mended is no longer
    listed as one, and one that was made is. Raises SightlineError if the decisions were made about other
    data, or if they leave a split without images.
    """
    _check_fingerprint(fingerprint(data), decisions.data)
    number = {name: k for k, name in enumerate(data.class_names)}
    splits, kept = {}, {}
    for word, split in zip(SPLITS, (data.train, data.test), strict=True):
        labels = split.labels.copy()
        for decision in decisions.of(word, "relabel"):
            labels[decision.index] = number[decision.label]
        dropped = [decision.index for decision in decisions.of(word, "drop")]
        kept[word] = np.delete(np.arange(len(split)), dropped)
        relabelled = dataclasses.replace(split, labels=labels)
        splits[word] = relabelled.take(kept[word]) if dropped else relabelled
        if not len(kept[word]):
            raise SightlineError(f"the decisions drop all {len(split)} {word} images; keep at least one")
    truth = data.truth and _mended_truth(data.truth, data.train, splits["train"], kept)
    return dataclasses.replace(data, train=splits["train"], test=splits["test"], truth=truth)


def _mended_truth(
    truth: PlantedTruth, before: Split, after: Split, kept: dict[str, np.ndarray]
) -> PlantedTruth:
    drawn = before.labels.copy()
    drawn[truth.wrong_labels] = truth.true_labels
    drawn = drawn[kept["train"]]
    wrong = np.flatnonzero(after.labels != drawn)
    taken = truth.take(kept["train"], kept["test"])
    return dataclasses.replace(taken, wrong_labels=wrong, true_labels=drawn[wrong])


def _problem(decision: Decision, data: Mapping[str, Any]) -> str | None:
    """What is wrong with a decision, in words; None if nothing is."""
    if decision.split not in SPLITS:
        return f"split {decision.split!r}; {nearest(str(decision.split), SPLITS)}"
    if decision.action not in ACTIONS:
        return f"action {decision.action!r}; {nearest(str(decision.action), ACTIONS)}"
    size = data[decision.split]
    if isinstance(decision.index, bool) or not isinstance(decision.index, int | np.integer):
        return f"index {decision.index!r} is no whole number"
    if not 0 <= decision.index < size:
        return f"{decision.split} image {decision.index}; {size} images allow 0 to {size - 1}"
    if decision.action == "relabel" and decision.label not in data["class_names"]:
        return f"class {decision.label!r}; {nearest(str(decision.label), data['class_names'])}"
    return None


def _data_block(block: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": str(block["name"]),
        "train": int(block["train"]),
        "test": int(block["test"]),
        "class_names": [str(name) for name in block["class_names"]],
        "labels_sha256": {word: str(block["labels_sha256"][word]) for word in SPLITS},
    }


def _decision(row: Mapping[str, Any]) -> Decision:
    if not isinstance(row, dict):
        raise TypeError(f"{row!r} is no decision")
    texts = {name: str(row.get(name) or "") for name in ("label", "note")}
    return Decision(split=row["split"], index=row["index"], action=row["action"], **texts)


def _check_fingerprint(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise if the decisions are about other data. The name may differ: it says where, not what."""
    for word in SPLITS:
        if mine[word] != theirs[word]:
            raise SightlineError(
                f"the decisions are about {theirs[word]} {word} images of {theirs['name']!r}, and "
                f"{mine['name']!r} has {mine[word]}; load the data as the run that was audited did"
            )
    if list(mine["class_names"]) != list(theirs["class_names"]):
        raise SightlineError(
            f"the decisions are about other classes than {mine['name']!r} has; "
            "load the data as the run that was audited did"
        )
    for word in SPLITS:
        if mine["labels_sha256"][word] != theirs["labels_sha256"][word]:
            raise SightlineError(
                f"the {word} labels are not those that the decisions were made about (other seed, order or "
                "labels); load the data as the run that was audited did"
            )
