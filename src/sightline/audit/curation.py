"""What a reader decided about single images: relabel, keep or drop; and a data set with that done.

The file `fixes.json` is exported by the report and read by `sightline run RECIPE --fixes fixes.json`. It
carries the fingerprint of the data it was made about. In data that has changed since, each picture is looked
for by its path and the hash of its content: what is found is decided as before, the rest is listed. A file of
version 1 has no paths, and is refused for any other data.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from sightline.audit.inputs import first_problem
from sightline.audit.result import Action, SplitName
from sightline.data import Dataset, PlantedTruth, Split, fingerprint
from sightline.errors import DamagedFileError, InputError, NotFoundError, nearest
from sightline.files import check_regular, write_text

FORMAT, VERSION = "sightline-fixes", 2
_LISTED = 50  # decisions without a picture that are listed one by one


@dataclass(frozen=True)
class Decision:
    """What to do with one image.

    Attributes:
        split: "train" or "test".
        index: Of the image in its split.
        action: "relabel" (to the class named `label`), "keep" (somebody looked, and it is right) or "drop".
        label: The class's name, for "relabel" alone.
        note: Anything.
        path: Of the picture, as `Split.files` has it; "" where it is not known.
        hash: Of its content, or "".
    """

    split: str
    index: int
    action: str
    label: str = ""
    note: str = ""
    path: str = ""
    hash: str = ""


@dataclass(frozen=True)
class Decisions:
    """Decisions about the images of one data set, at most one for each image.

    Attributes:
        data: The fingerprint of that data set, as `data.fingerprint` gives it.
        decisions: In any order.

    Raises:
        InputError: A decision does not fit the data: an unknown split, action or class, an index outside, an
            image twice.
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
                raise InputError(f"decision {number} of {len(self.decisions)}: {problem}")
            seen.add((decision.split, decision.index))

    def of(self, split: str, action: str) -> list[Decision]:
        """Return the decisions for that action in that split, in order of the images."""
        chosen = [d for d in self.decisions if (d.split, d.action) == (split, action)]
        return sorted(chosen, key=lambda d: d.index)


def write_decisions(path: Path, decisions: Decisions) -> None:
    """Write `fixes.json`, whole or not at all."""
    optional = ("label", "path", "hash")
    rows = [
        {name: value for name, value in dataclasses.asdict(d).items() if name not in optional or value}
        for d in decisions.decisions
    ]
    content = {"format": FORMAT, "version": VERSION, "data": dict(decisions.data), "decisions": rows}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@checked_dataclass(frozen=True)
class _Hashes:
    train: str
    test: str


@checked_dataclass(frozen=True)
class _Data:
    """The fingerprint in the file; see `data.fingerprint`."""

    name: str
    train: int
    test: int
    class_names: list[str]
    labels_sha256: _Hashes


@checked_dataclass(frozen=True)
class _Row:
    split: SplitName
    index: int
    action: Action
    label: str | None = None
    note: str | None = None
    path: str | None = None
    hash: str | None = None


@checked_dataclass(frozen=True)
class _File:
    data: _Data
    decisions: list[_Row]


@checked_dataclass(frozen=True)
class _Header:
    format: str | None = None
    version: int | None = None


_FILE, _HEADER = TypeAdapter(_File), TypeAdapter(_Header)


def read_decisions(path: str | Path) -> Decisions:
    """Read `fixes.json`.

    Raises:
        NotFoundError: The file is missing.
        DamagedFileError: It is not such a file, of another version, or damaged.
        InputError: It holds a decision that does not fit the data it names.
    """
    try:
        check_regular(path)
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing; export it from the report's list of decisions") from None
    except ValueError as error:
        raise DamagedFileError(f"{path} cannot be read: {error}") from None
    try:
        header = _HEADER.validate_json(content, strict=True)
        if header.format != FORMAT:
            raise DamagedFileError(f'{path} has no "format": "{FORMAT}"; export it from the report')
        if header.version not in range(1, VERSION + 1):
            raise DamagedFileError(
                f"{path} is of version {header.version}; this Sightline reads versions 1 to {VERSION}"
            )
        found = _FILE.validate_json(content, strict=True)
    except ValidationError as error:
        reason = first_problem(error)
        raise DamagedFileError(f"{path} is damaged ({reason}); export it from the report again") from None
    names = ("label", "note", "path", "hash")
    rows = [
        Decision(row.split, row.index, row.action, **{name: getattr(row, name) or "" for name in names})
        for row in found.decisions
    ]
    try:
        return Decisions(dataclasses.asdict(found.data), tuple(rows))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def apply_decisions(data: Dataset, decisions: Decisions) -> Dataset:
    """Return the data set with images relabelled and dropped as decided; what is kept stays in its order.

    `data` itself is not changed. Planted truth is kept true: a wrong label that was corrected is no longer
    listed as one, and one that was made is. Data that has grown since gets the decisions whose pictures are
    found by path and content, or by their content alone; the others are listed in its `notes`.

    Raises:
        InputError: The decisions were made about other data, or leave a split without images.
    """
    try:
        _check_fingerprint(fingerprint(data), decisions.data)
    except InputError:
        if not decisions.decisions or not all(one.hash for one in decisions.decisions):
            raise
        decisions, left = find_pictures(data, decisions)
        data = dataclasses.replace(data, notes=(*data.notes, *left))
    number = {name: k for k, name in enumerate(data.class_names)}
    splits, kept = {}, {}
    for word, split in zip(SplitName, (data.train, data.test), strict=True):
        labels = split.labels.copy()
        for decision in decisions.of(word, "relabel"):
            labels[decision.index] = number[decision.label]
        dropped = [decision.index for decision in decisions.of(word, "drop")]
        kept[word] = np.delete(np.arange(len(split)), dropped)
        relabelled = dataclasses.replace(split, labels=labels)
        splits[word] = relabelled.take(kept[word]) if dropped else relabelled
        if not len(kept[word]):
            raise InputError(f"the decisions drop all {len(split)} {word} images; keep at least one")
    truth = data.truth and _corrected_truth(data.truth, data.train, splits["train"], kept)
    return dataclasses.replace(data, train=splits["train"], test=splits["test"], truth=truth)


def find_pictures(data: Dataset, decisions: Decisions) -> tuple[Decisions, tuple[str, ...]]:
    """Return decisions about other data as decisions about `data`, and in words what does not fit it.

    A picture is the same if its path and its hash are, or if its hash is and no other picture has it; it may
    have moved from one split to the other.

    Raises:
        InputError: Not one of them fits.
    """
    by_file: dict[tuple[str, str], list[tuple[str, int]]] = {}
    by_hash: dict[str, list[tuple[str, int]]] = {}
    paths = set()
    for word, split in zip(SplitName, (data.train, data.test), strict=True):
        for index, (path, own) in enumerate(zip(split.files["path"], split.files["hash"], strict=True)):
            by_file.setdefault((path, own), []).append((word.value, index))
            by_hash.setdefault(own, []).append((word.value, index))
            paths.add(path)
    found: dict[tuple[str, int], Decision] = {}
    left = []
    for one in decisions.decisions:
        places = by_file.get((one.path, one.hash)) or by_hash.get(one.hash, [])
        problem = ""
        if not places:
            problem = "the picture has changed" if one.path in paths else "there is no such picture"
        elif len(places) > 1:
            problem = f"{len(places)} pictures have this content"
        elif one.action == "relabel" and one.label not in data.class_names:
            problem = f"there is no class {one.label!r}"
        elif places[0] in found:
            problem = "another decision is about the same picture"
        if problem:
            left.append(f"{one.path or one.hash} ({one.action}): {problem}")
        else:
            found[places[0]] = dataclasses.replace(one, split=places[0][0], index=places[0][1])
    if not found:
        raise InputError(
            f"none of the {len(left)} decisions fits {data.name!r} (the first: {left[0]}); load the data "
            "that the run that was audited had"
        )
    lines = [f"decision not applied: {line}" for line in left[:_LISTED]]
    if len(left) > _LISTED:
        lines.append(f"and {len(left) - _LISTED} further decisions were not applied")
    total = (
        f"the data has changed since the decisions were made: {len(found)} of {len(found) + len(left)} fit"
    )
    return Decisions(fingerprint(data), tuple(found.values())), (total, *lines)


def _corrected_truth(
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
    for name, value, kinds in (("split", decision.split, SplitName), ("action", decision.action, Action)):
        known = [kind.value for kind in kinds]
        if value not in known:
            return f"{name} {value!r}; {nearest(str(value), known)}"
    size = data[decision.split]
    if isinstance(decision.index, bool) or not isinstance(decision.index, int | np.integer):
        return f"index {decision.index!r} is no whole number"
    if not 0 <= decision.index < size:
        return f"{decision.split} image {decision.index}; {size} images allow 0 to {size - 1}"
    if decision.action == "relabel" and decision.label not in data["class_names"]:
        return f"class {decision.label!r}; {nearest(str(decision.label), data['class_names'])}"
    return None


def _check_fingerprint(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise if the decisions are about other data. The name may differ: it is where, not what."""
    for word in SplitName:
        if mine[word] != theirs[word]:
            raise InputError(
                f"the decisions are about {theirs[word]} {word} images of {theirs['name']!r}, and "
                f"{mine['name']!r} has {mine[word]}; load the data as the run that was audited did"
            )
    if list(mine["class_names"]) != list(theirs["class_names"]):
        raise InputError(
            f"the decisions are about other classes than {mine['name']!r} has; "
            "load the data as the run that was audited did"
        )
    for word in SplitName:
        if mine["labels_sha256"][word] != theirs["labels_sha256"][word]:
            raise InputError(
                f"the {word} labels are not those that the decisions were made about (other seed, order or "
                "labels); load the data as the run that was audited did"
            )


def merge_decisions(several: Sequence[Decisions]) -> tuple[Decisions, tuple[tuple[Decision, ...], ...]]:
    """Return what several people decided about the same data, and the images on which they differ.

    An image that one decided on alone, or all alike, has that decision (with all notes); one on which they
    differ, in the action or in the class, is left undecided.

    Args:
        several: At least one; all of the same data set.

    Returns:
        The decisions together, and for each image on which they differ what each person said, in the order
        of `several`.

    Raises:
        InputError: None, or they are about other data.
    """
    if not several:
        raise InputError("there are no decisions to merge; give at least one file")
    for other in several[1:]:
        _check_fingerprint(several[0].data, other.data)
    by_image: dict[tuple[str, int], list[Decision]] = {}
    for decision in (one for decisions in several for one in decisions.decisions):
        by_image.setdefault((decision.split, decision.index), []).append(decision)
    agreed, differing = [], []
    for said in by_image.values():
        if len({(one.action, one.label) for one in said}) > 1:
            differing.append(tuple(said))
            continue
        notes = dict.fromkeys(one.note for one in said if one.note)
        known = next((one for one in said if one.hash), said[0])
        agreed.append(dataclasses.replace(known, note="; ".join(notes)))
    return Decisions(several[0].data, tuple(agreed)), tuple(differing)
