"""From differences to words: is a map better than what knows nothing?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sightline.errors import SightlineError
from sightline.faithfulness.measurement import Measurement, bootstrap_interval


@dataclass(frozen=True)
class Difference:
    """How much better than a control, in the measure's units: above 0 is better, whichever way it runs.

    mean: over images. low, high: its paired 95 % bootstrap interval.
    """

    mean: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """ "better" or "worse" where the interval leaves out 0, else "tied"."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "tied"


@dataclass(frozen=True)
class Judgement:
    """One measure of one method beside its controls: the verdict in words, and the differences by control."""

    verdict: str
    differences: dict[str, Difference]


def judge(measurement: Measurement, controls: Mapping[str, Measurement], *, seed: int = 0) -> Judgement:
    """Compare a measurement with the same measure of each control, on the same images.

    The verdict is one line: "better than every control", "better than random; no better than edges",
    "no better than random", "worse than edges"; a control is beaten, or wins, only where the paired 95 %
    interval leaves out 0.

    >>> import numpy as np
    >>> good, poor = Measurement("road", np.arange(9.0), True), Measurement("road", np.arange(9.0) - 1, True)
    >>> judge(good, {"random": poor, "edges": good}).verdict
    'better than random; no better than edges'

    Raises SightlineError if there is no control, or the images are not the same.
    """
    if not controls:
        raise SightlineError("there are no controls to judge by; pass at least one measurement by name")
    differences = {name: difference(measurement, control, seed=seed) for name, control in controls.items()}
    return Judgement(verdict_of(differences), differences)


def difference(a: Measurement, b: Measurement, *, seed: int = 0) -> Difference:
    """Return by how much `a` is better than `b`, with its paired interval over images."""
    if a.n != b.n or a.higher_is_better != b.higher_is_better:
        raise SightlineError(
            f"{a.measure} of {a.n} images does not pair with {b.measure} of {b.n}; "
            "take the same measure of the same images"
        )
    gain = (a.values - b.values) * (1 if a.higher_is_better else -1)
    low, high = bootstrap_interval(gain, seed=seed)
    return Difference(float(gain.mean()), float(low), float(high))


def verdict_of(differences: Mapping[str, Difference]) -> str:
    """Return the one line that the differences to the controls come to."""
    groups = {
        word: [name for name, found in differences.items() if found.word == word]
        for word in ("better", "tied", "worse")
    }
    if len(groups["better"]) == len(differences):
        return "better than every control"
    if not groups["better"] and not groups["tied"]:
        return "worse than every control"
    if len(groups["tied"]) == len(differences):
        return "no better than any control" if len(differences) > 1 else f"no better than {groups['tied'][0]}"
    phrases = {"better": "better than", "tied": "no better than", "worse": "worse than"}
    return "; ".join(f"{phrases[word]} {listed(names)}" for word, names in groups.items() if names)


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
