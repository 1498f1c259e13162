"""What watches a training: the split that is held out, and the epoch that was best on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from sightline.data import Dataset, Split
from sightline.data.splits import stratified_split
from sightline.errors import SightlineError
from sightline.predictions.sharing import predict_shared
from sightline.training.history import Row


def hold_out(split: Split, share: float, seed: int) -> tuple[np.ndarray, Split | None]:
    """Return the places of the rest, and a part of `share`, drawn by seed with that share of each class."""
    if share == 0:
        return np.arange(len(split)), None
    kept, held = stratified_split(split.labels, test_fraction=share, seed=seed)
    if not len(held):
        raise SightlineError(
            f"validation={share} of {len(split)} training images leaves no image to validate on"
        )
    return kept, split.take(held)


@dataclass
class Monitor:
    """Watches a model at the end of each epoch; chooses by the validation split alone."""

    data: Dataset
    held: Split | None
    keep: str
    patience: int | None
    best: dict[str, Any] = field(default_factory=dict)

    def measure(self, model: nn.Module, precision: str) -> Row:
        """Return validation_loss, validation_accuracy (if there is a split), test_loss, test_accuracy."""
        row: Row = {}
        for name, split in (("validation", self.held), ("test", self.data.test)):
            if split is not None:
                found = predict_shared(model, split, class_names=self.data.class_names, precision=precision)
                row[f"{name}_loss"] = float(found.loss.mean())
                row[f"{name}_accuracy"] = float(found.correct.mean())
        return row

    def note(self, row: Row, model: nn.Module) -> None:
        """Remember the epoch of `row`, with its weights if they are to be kept, if it is the best so far."""
        if self.held is not None and row["validation_loss"] < self.best.get("loss", float("inf")):
            weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            self.best = {"loss": row["validation_loss"], "epoch": row["epoch"]}
            self.best |= {"weights": weights} if self.keep == "best" else {}

    def gives_up(self, epoch: int) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        return bool(self.patience) and epoch - self.best.get("epoch", epoch) >= self.patience
