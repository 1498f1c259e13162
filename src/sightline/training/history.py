"""What training leaves behind: a row per epoch, a row per step, and two values per image and epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sightline.files import write_text
from sightline.predictions.training_dynamics import Dynamics, save_dynamics

Row = dict[str, float | int]


@dataclass(frozen=True)
class History:
    """Losses are means over samples in nats, accuracies shares in [0, 1].

    epochs: epoch (from 1), lr (at the epoch's last step), train_loss, train_accuracy (of the batches as
    they were trained on), test_loss, test_accuracy, test_balanced_accuracy, test_macro_f1, with a validation
    split the same of it, seconds (of the whole epoch), images_per_second (of its training part).
    steps: step (from 1), epoch, lr, loss (mean of the batch).
    kept: the epoch whose weights the model has.
    dynamics: margin and probability of each training image in each epoch, as it was trained on.
    """

    epochs: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    kept: int = 0
    dynamics: Dynamics | None = field(default=None, compare=False)

    def with_dynamics(self, dynamics: Dynamics) -> History:
        """Return the same history with these dynamics."""
        return dataclasses.replace(self, dynamics=dynamics)

    def to_frame(self) -> pd.DataFrame:
        """Return the table of epochs."""
        return pd.DataFrame(self.epochs)

    def save(self, folder: Path) -> None:
        """Write `history.csv`, `steps.csv` and `dynamics.npz`."""
        write_text(folder / "history.csv", _csv(self.epochs))
        write_text(folder / "steps.csv", _csv(self.steps))
        if self.dynamics is not None:
            save_dynamics(folder / "dynamics.npz", self.dynamics)


def _csv(rows: list[Row]) -> str:
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.9g", lineterminator="\n")


def describe_epoch(row: Mapping[str, float | int], epochs: int) -> str:
    """Return the line that a log shows for an epoch.

    >>> describe_epoch(dict(epoch=1, lr=0.1, train_loss=2, train_accuracy=0.25, test_loss=1.5,
    ...                     test_accuracy=0.5, seconds=8.4, images_per_second=812.3), 20)
    'epoch  1/20  lr 0.1  train loss 2.0000 accuracy 25.00 %  test loss 1.5000 accuracy 50.00 %  ...
    """
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"lr {row['lr']:.4g}"]
    for split in ("train", "validation", "test"):
        if f"{split}_loss" in row:
            loss, share = row[f"{split}_loss"], row[f"{split}_accuracy"]
            parts.append(f"{split} loss {loss:.4f} accuracy {100 * share:.2f} %")
    parts += [f"{row['seconds']:.1f} s", f"{row['images_per_second']:.0f} images/s"]
    return "  ".join(parts)
