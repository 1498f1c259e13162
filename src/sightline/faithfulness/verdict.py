"""A measure of a method next to the same measure of maps that know nothing: differences, and one sentence.

A difference is paired over images, with an interval; the sentence is about those that leave out 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sightline.errors import InputError
from sightline.faithfulness.measurement import Measurement
from sightline.stats import bootstrap_interval


@dataclass(frozen=True)
class PairedDifference:
    """How much better than a baseline map, in the measure's units: above 0 is better, also where lower is.

    Attributes:
        mean: Over images.
        low: End of its paired 95 % bootstrap interval.
        high: The other end.
    """

    mean: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """ "better" or "worse" if the interval leaves out 0, else "tied"."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "tied"


@dataclass(frozen=True)
class Verdict:
    """One measure of one method compared with baseline maps.

    Attributes:
        sentence: Such as "better than every baseline map".
        differences: By baseline.
    """

    sentence: str
    differences: dict[str, PairedDifference]


def compare_with_baselines(
    measurement: Measurement, baselines: Mapping[str, Measurement], *, seed: int = 0
) -> Verdict:
    """Compare a measurement with the same measure of each baseline map, on the same images.

    A baseline map is beaten, or wins, only if the paired 95 % interval of the difference leaves out 0. The
    sentence is "better than every baseline map", "better than a random map; no better than an edge map",
    "no better than any baseline map", "worse than an edge map", and so on.

    Args:
        measurement: Of the method's maps.
        baselines: Of the baseline maps, by their names in a sentence.
        seed: Of the intervals.

    Raises:
        InputError: There is no baseline, or the images are not the same.

    >>> import numpy as np
    >>> good, poor = Measurement("road", np.arange(9.0), True), Measurement("road", np.arange(9.0) - 1, True)
    >>> compare_with_baselines(good, {"a random map": poor, "an edge map": good}).sentence
    'better than a random map; no better than an edge map'
    """
    if not baselines:
        raise InputError("there are no baseline maps to compare with; pass at least one measurement by name")
    differences = {name: paired_difference(measurement, one, seed=seed) for name, one in baselines.items()}
    return Verdict(_sentence(differences), differences)


def paired_difference(a: Measurement, b: Measurement, *, seed: int = 0) -> PairedDifference:
    """Return by how much `a` is better than `b`, with its paired interval over images."""
    if a.n != b.n or a.higher_is_better != b.higher_is_better:
        raise InputError(
            f"{a.measure} of {a.n} images does not pair with {b.measure} of {b.n}; "
            "take the same measure of the same images"
        )
    gain = (a.values - b.values) * (1 if a.higher_is_better else -1)
    low, high = bootstrap_interval(gain, seed=seed)
    return PairedDifference(float(gain.mean()), float(low), float(high))


def _sentence(differences: Mapping[str, PairedDifference]) -> str:
    groups = {
        word: [name for name, found in differences.items() if found.word == word]
        for word in ("better", "tied", "worse")
    }
    if len(groups["better"]) == len(differences):
        return "better than every baseline map"
    if len(groups["worse"]) == len(differences):
        return "worse than every baseline map"
    if len(groups["tied"]) == len(differences) > 1:
        return "no better than any baseline map"
    phrases = {"better": "better than", "tied": "no better than", "worse": "worse than"}
    return "; ".join(f"{phrases[word]} {listed(names)}" for word, names in groups.items() if names)


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
