"""How faithful the maps of a run are, as types: what `faithfulness.json` holds and the report shows.

Plain Python values only, and no torch: the file is written and read here and nowhere else. Shares are in
[0, 1] and intervals are (mean, low, high) at 95 %.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sightline.errors import DamagedFileError, NotFoundError, SightlineError
from sightline.files import check_regular, write_text

FILE = "faithfulness.json"
SCHEMA = 2
"""Of the file; version 0.1 wrote no number."""

BETTER_THAN_EVERY_BASELINE = "better than every baseline map"
"""The verdict on a method whose maps can be relied on."""

_CHECKED: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, config=_CHECKED)
class MeasureInfo:
    """A measure that ranked the methods. fill: what replaced removed pixels, None if nothing did."""

    name: str
    higher_is_better: bool
    fill: str | None


@dataclass(frozen=True, config=_CHECKED)
class MethodScore:
    """A method that was compared.

    Attributes:
        name: Of the method.
        verdict: A sentence: how it compares with the baseline maps, on all measures together.
        ms_per_image: What a map costs.
        no_map: The share of images on which it showed nothing.
        values: Mean, low and high by measure.
    """

    name: str
    verdict: str
    ms_per_image: float
    no_map: float
    values: dict[str, tuple[float, float, float]]


@dataclass(frozen=True, config=_CHECKED)
class BaselineScore:
    """One measure of one baseline map, compared with a method.

    Attributes:
        method: That it was compared with.
        measure: Its name.
        baseline: Its name in a sentence.
        mean: Of the measure, for the baseline map.
        difference: How much better the method is, in the measure's units; above 0 is better.
        low: End of the interval of the difference.
        high: The other end.
        word: better, worse or tied.
    """

    method: str
    measure: str
    baseline: str
    mean: float
    difference: float
    low: float
    high: float
    word: str


@dataclass(frozen=True, config=_CHECKED)
class GridGame:
    """The grid pointing game of one method on n grids. chance: the mean that is expected by chance."""

    method: str
    mean: float
    low: float
    high: float
    n: int
    chance: float


@dataclass(frozen=True, config=_CHECKED)
class PlantedScore:
    """A method compared with what was planted.

    Attributes:
        name: Of the method, with its settings.
        pointing: How often the maximum is on the object.
        energy: The share of heat on the object.
        on_mark: The share of heat on the mark of the shortcut; None if no image was fooled by it.
    """

    name: str
    pointing: float
    energy: float
    on_mark: float | None


@dataclass(frozen=True, config=_CHECKED)
class Planted:
    """Every method compared with the planted masks.

    Attributes:
        methods: By the share of heat on the object, the largest first.
        even: What heat that is spread evenly reaches.
        objects: Images without the mark that the model gets right.
        fooled: Images with the mark that it takes for the mark's class.
        skipped: Methods that cannot serve this model, with the reason.
    """

    methods: tuple[PlantedScore, ...]
    even: PlantedScore
    objects: int
    fooled: int
    skipped: dict[str, str]


FEWEST_TO_JUDGE = 20
"""Images: a tie on fewer says little about the maps."""


@dataclass(frozen=True, config=_CHECKED)
class FaithfulnessResult:
    """How faithful the methods are for one model.

    Attributes:
        schema: Of the file that holds it.
        layer: The layer of the maps.
        images: How many images.
        best: The method of the first row.
        tied: Methods not separable from it.
        coincide: A method that was not measured, and the one whose maps are the same on this model.
        skipped: A method that cannot serve this model, and the reason.
        measures: What ranked the methods.
        methods: Best first.
        baselines: Every measure of every baseline map.
        grid: The grid pointing game of the best method; None if this model or data cannot play it.
        preflight: What the model allows, in sentences.
        planted: None without planted masks.
    """

    layer: str
    images: int
    best: str
    tied: tuple[str, ...]
    coincide: dict[str, str]
    skipped: dict[str, str]
    measures: tuple[MeasureInfo, ...]
    methods: tuple[MethodScore, ...]
    baselines: tuple[BaselineScore, ...]
    grid: GridGame | None
    preflight: tuple[str, ...]
    planted: Planted | None = None
    schema: int = SCHEMA

    def verdict(self, method: str) -> str | None:
        """Return the verdict on a method, also of one whose maps coincide with another's; None if unknown."""
        ranked = self.coincide.get(method, method)
        return next((one.verdict for one in self.methods if one.name == ranked), None)

    def is_doubted(self, method: str) -> bool:
        """Whether the maps of a method were measured and did not beat every baseline map.

        A tie on few images is no doubt yet; to be worse than a baseline is.
        """
        verdict = self.verdict(method)
        if verdict in (None, BETTER_THAN_EVERY_BASELINE):
            return False
        return self.images >= FEWEST_TO_JUDGE or "worse" in verdict


_ADAPTER = TypeAdapter(FaithfulnessResult)
_TABLE = TypeAdapter(dict[str, Any])


def write_faithfulness(folder: Path, result: FaithfulnessResult) -> None:
    """Write `faithfulness.json` into the folder of a run."""
    write_text(folder / FILE, _ADAPTER.dump_json(result, indent=2).decode())


def read_faithfulness(folder: Path) -> FaithfulnessResult:
    """Read `faithfulness.json` of a run; that of version 0.1 too.

    Raises:
        NotFoundError: The run has none.
        DamagedFileError: The file cannot be read, or is of a newer version of the package.
    """
    path = folder / FILE
    again = f"'sightline analyze {folder}' writes it again"
    try:
        check_regular(path)
        content = _TABLE.validate_json(path.read_bytes())
        schema = content.get("schema", 1)
        if type(schema) is int and schema > SCHEMA:
            raise DamagedFileError(
                f"{path} has schema {schema}, this Sightline reads {SCHEMA}; it is of a newer Sightline: "
                "update this one"
            )
        result = _ADAPTER.validate_python(_migrated(content) if schema == 1 else content)
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing; {again}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise DamagedFileError(f"{path} is damaged ({' '.join(reason.split())[:120]}); {again}") from None
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror}); {again}") from None
    except ValueError as error:
        if isinstance(error, SightlineError):
            raise
        raise DamagedFileError(f"{path} cannot be read ({error}); {again}") from None
    known = {one.name for one in result.methods}
    measured = {one.name for one in result.measures}
    if result.best not in known or any(measured != one.values.keys() for one in result.methods):
        raise DamagedFileError(f"{path} is damaged (its parts do not agree); {again}")
    return result


# Version 0.1 called baseline maps controls, and some of them by other names.
_OLD_NAMES = {
    "random": "a random map",
    "edges": "an edge map",
    "another class": "the map of another class",
    "an untrained twin": "the map of an untrained network",
}


def _migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a file of version 0.1 holds, as one of today; what does not fit stays for the check."""
    content = dict(content)
    content["schema"] = SCHEMA
    rows = content.pop("controls", None)
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        content["baselines"] = [_renamed(row, "control", "baseline") for row in rows]
    if isinstance(content.get("methods"), list):
        content["methods"] = [
            row | {"verdict": _reworded(row["verdict"])}
            if isinstance(row, dict) and isinstance(row.get("verdict"), str)
            else row
            for row in content["methods"]
        ]
    return content


def _renamed(row: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    name = row.get(old)
    others = {key: value for key, value in row.items() if key != old}
    return others | {new: _OLD_NAMES.get(name, name) if isinstance(name, str) else name}


def _reworded(verdict: str) -> str:
    """Return a verdict of version 0.1, "better than random and edges; ...", in today's words."""
    verdict = verdict.replace("every control", "every baseline map").replace(
        "any control", "any baseline map"
    )
    for old, new in _OLD_NAMES.items():
        verdict = re.sub(rf"(than|,|and) {old}(?=[,; ]|$)", rf"\1 {new}", verdict)
    return verdict
