"""What each image's margin and probability were in the pass that trained on it, gathered for nothing.

A step scatters two values per image into a buffer on the device; the host waits for it once per epoch.
"""

from __future__ import annotations

import numpy as np
import torch

from sightline.predictions.dynamics import Dynamics

_LARGEST = torch.finfo(torch.float16).max


class Recorder:
    """Gathers one epoch after another.

    count: images of the whole training split. rows: (n,) int64, the place in it of each image that is trained
    on; the others stay NaN.
    """

    def __init__(self, count: int, rows: np.ndarray, device: torch.device | str = "cpu") -> None:
        self.epochs: list[torch.Tensor] = []  # one (2, count) float16 per finished epoch, on the CPU
        self._count = count
        self._rows = torch.from_numpy(rows)
        self.current = torch.full((2, len(rows)), torch.nan, dtype=torch.float16, device=device)

    def note(self, indices: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep the margin and the probability of a batch; indices: (B,), among those trained on."""
        self.current.index_copy_(1, indices, margin_and_probability(logits, labels).half())

    def close_epoch(self) -> None:
        """File the epoch and begin the next."""
        whole = torch.full((2, self._count), torch.nan, dtype=torch.float16)
        whole[:, self._rows] = self.current.cpu()
        self.epochs.append(whole)
        self.current.fill_(torch.nan)

    def dynamics(self) -> Dynamics:
        """Return the finished epochs."""
        stacked = (
            torch.stack(self.epochs).numpy() if self.epochs else np.empty((0, 2, self._count), np.float16)
        )
        return Dynamics(stacked[:, 0], stacked[:, 1])

    def state(self) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return what a checkpoint keeps."""
        return {"epochs": list(self.epochs), "current": self.current}

    def restore(self, state: dict) -> None:
        """Go back to what :meth:`state` returned."""
        self.epochs = list(state["epochs"])
        self.current.copy_(state["current"])


def margin_and_probability(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the label's logit minus the largest other, and its probability: (2, B) float32.

    logits: (B, C). labels: (B,). Margins end at the largest number that float16 has.
    """
    logits, places = logits.float(), labels[:, None]
    own = logits.gather(1, places)  # (B, 1)
    others = logits.scatter(1, places, -torch.inf).amax(1)  # (B,)
    margin = (own[:, 0] - others).clamp(-_LARGEST, _LARGEST)
    probability = (own[:, 0] - logits.logsumexp(1)).exp()
    return torch.stack([margin, probability])
