"""From logits to an answer that can be acted on: what leaves with a model, whatever runs it. No torch.

A model that was exported knows classes by number. What its run has found out about it goes along: the names,
how pictures are brought to its size, the temperature that makes its confidence honest, the threshold below
which a person should look, and how large a set of classes has to be.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.audit import read_audit
from sightline.audit.conformal import conformal_sets, conformal_threshold
from sightline.audit.selective import choose_threshold
from sightline.data.image_files import Resizing
from sightline.errors import DamagedFileError, InputError
from sightline.files import read_json
from sightline.predictions import read_predictions
from sightline.runs.artifacts import AUDIT, DATA_CARD, MODEL_CARD, PREDICTIONS

if TYPE_CHECKING:
    import pandas as pd

    from sightline.predictions import Predictions

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class AnswerRules:
    """How the logits of a model become answers.

    Attributes:
        class_names: C names, in the order of the logits.
        image_size: Height and width of what the model takes, in pixels.
        resize: "crop", "pad" or "stretch", as of `read_image`.
        interpolation: "bilinear" or "bicubic".
        temperature: Calibrated probabilities are `softmax(logits / temperature)`; 1 where none was fitted.
        wanted_error: The error rate among accepted answers that `threshold` was chosen for.
        threshold: Answers with an uncalibrated confidence (largest softmax) below it are for a person to look
            at; None where no threshold is sure to keep the wanted error.
        coverage: How often the set of classes holds the true one, for images drawn like the test split.
        set_threshold: Classes with `1 - p <= set_threshold` are in the set, p uncalibrated; None for no sets.
        images: How many test images all of this was read off.

    Raises:
        InputError: A value does not fit.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    resize: str = "crop"
    interpolation: str = "bicubic"
    temperature: float = 1.0
    wanted_error: float = 0.05
    threshold: float | None = None
    coverage: float = 0.9
    set_threshold: float | None = None
    images: int = 0

    def __post_init__(self) -> None:
        if not self.class_names or not all(isinstance(name, str) for name in self.class_names):
            raise InputError("class_names is no list of names; an answer needs at least one class")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"temperature is {self.temperature}; it is a number above 0")
        _ = self.resizing

    @property
    def resizing(self) -> Resizing:
        """How pictures are brought to the model's size."""
        height, width = self.image_size
        return Resizing((int(height), int(width)), self.resize, self.interpolation)  # pyright: ignore

    def to_json(self) -> str:
        """Return one line that `from_json` reads."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, of: str) -> AnswerRules:
        """Read what `to_json` wrote; `of` names the file in an error.

        Raises:
            DamagedFileError: It is something else, or of a newer version.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            schema = content.pop("schema")
            if schema != SCHEMA:
                raise DamagedFileError(f"{of} is of version {schema}; this version reads {SCHEMA}")
            content["class_names"] = tuple(content["class_names"])
            height, width = content["image_size"]
            return cls(**{**content, "image_size": (int(height), int(width))})
        except DamagedFileError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFileError(
                f"{of} says nothing of its classes and pictures that can be read ({type(error).__name__}); "
                "export the model again"
            ) from None


def run_rules(folder: str | Path, *, error: float = 0.05, coverage: float = 0.9) -> AnswerRules:
    """Return how the answers of a run's model are to be read, from its test split.

    Temperature, threshold and sets are read off all test images; the audit's page says how they held on
    images that had no say in them.

    Args:
        folder: Of the run.
        error: The wanted error rate among accepted answers, from 0 up to 1.
        coverage: Of the sets of classes, between 0 and 1.

    Raises:
        InputError: A value that does not fit.
        NotFoundError: The run has no model.
    """
    folder = Path(folder)
    card = read_json(folder / MODEL_CARD, otherwise="only a run that has a model can answer")
    known = read_json(folder / DATA_CARD, otherwise=f"'sightline analyze {folder}' writes it")
    rules: dict[str, Any] = {
        "class_names": tuple(card["class_names"]),
        "image_size": tuple(card["image_size"]),
        "wanted_error": error,
        "coverage": coverage,
    }
    rules |= {key: known[key] for key in ("resize", "interpolation") if known.get(key)}
    if (folder / PREDICTIONS).exists():
        rules |= _measured(read_predictions(folder / PREDICTIONS), error=error, coverage=coverage)
    if (folder / AUDIT).exists() and (fitted := read_audit(folder).calibration.temperature):
        rules["temperature"] = fitted
    return AnswerRules(**rules)


def _measured(p: Predictions, *, error: float, coverage: float) -> dict[str, Any]:
    """The threshold and the size of the sets, by the test images."""
    found: dict[str, Any] = {"images": len(p)}
    if len(p) > 1:
        chosen = choose_threshold(p.confidence, p.correct, error=error)
        found["threshold"] = None if chosen is None else chosen.threshold
    found["set_threshold"] = conformal_threshold(p.labels, p.probabilities, coverage=coverage)
    return found


def answer_table(
    rules: AnswerRules, logits: np.ndarray, *, paths: Sequence[str], probabilities: bool = False
) -> pd.DataFrame:
    """Return a row for each image: path, class, confidence, set, below_threshold.

    Args:
        rules: Of the model.
        logits: (N, C), finite.
        paths: N, what the images are called.
        probabilities: Add a column of calibrated probabilities for each class, named like it.

    Returns:
        confidence is calibrated, in [0, 1]; set has the classes of the conformal set, the most probable first
        and " | " between them; below_threshold is empty where there is no threshold.

    Raises:
        InputError: Shapes that do not fit, or logits that are not finite.
    """
    import pandas as pd

    logits = np.asarray(logits, np.float64)
    if logits.shape != (len(paths), len(rules.class_names)):
        raise InputError(
            f"the model gave {logits.shape} numbers for {len(paths)} images of "
            f"{len(rules.class_names)} classes"
        )
    if not np.isfinite(logits).all():
        raise InputError("the model gave logits that are not finite; its weights or the pictures are damaged")
    plain, calibrated = _softmax(logits), _softmax(logits / rules.temperature)
    best = plain.argmax(axis=1)
    rows, names = np.arange(len(paths)), np.array(rules.class_names, dtype=object)
    table = pd.DataFrame({"path": list(paths), "class": names[best], "confidence": calibrated[rows, best]})
    table["set"] = _sets(rules, plain)
    below = None if rules.threshold is None else plain[rows, best] < rules.threshold
    table["below_threshold"] = pd.array([None] * len(paths) if below is None else below, dtype="boolean")
    if probabilities:
        for number, name in enumerate(rules.class_names):
            if name in table:
                raise InputError(
                    f"a class is called {name!r}, as a column of the answers is; leave out --probabilities"
                )
            table[name] = calibrated[:, number]
    return table


def _sets(rules: AnswerRules, plain: np.ndarray) -> list[str]:
    if rules.set_threshold is None:
        return [""] * len(plain)
    inside = conformal_sets(plain, rules.set_threshold)
    order = np.argsort(-plain, axis=1, kind="stable")
    return [
        " | ".join(rules.class_names[k] for k in ranked if chosen[k])
        for ranked, chosen in zip(order, inside, strict=True)
    ]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
