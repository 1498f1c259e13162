"""Who is told how a job goes."""

from __future__ import annotations

from typing import Protocol

from sightline.training import Progress


class Reporter(Protocol):
    """Is told how a job goes."""

    def line(self, text: str) -> None:
        """Take a line of the log."""

    def step(self, progress: Progress, images: int) -> None:
        """Take note of a training step on `images` images."""


class Printer:
    """A reporter that prints lines and leaves steps out."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def step(self, progress: Progress, images: int) -> None:
        pass
