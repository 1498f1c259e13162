"""What the command line shows: progress bars on a terminal, plain lines elsewhere, tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from sightline.training import Progress as TrainingProgress


class Lines:
    """A reporter that prints each line and leaves the steps out: for files, pipes and --quiet."""

    def __init__(self, console: Console, *, quiet: bool):
        self._console, self._quiet = console, quiet

    def line(self, text: str) -> None:
        """Print `text` as it is."""
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, progress: TrainingProgress, images: int) -> None:
        """Do nothing."""


class Bars(Lines):
    """A reporter with a bar for the epoch under way: images per second and the time left of the whole run."""

    def __init__(self, console: Console, bars: Progress):
        super().__init__(console, quiet=False)
        self._bars, self._task = bars, None

    def step(self, progress: TrainingProgress, images: int) -> None:
        """Move the bar by one step."""
        total = progress.steps_per_epoch * progress.epochs
        if self._task is None:  # a resumed run begins in the middle
            self._task = self._bars.add_task("", total=total, completed=progress.step, images=0, rate="")
        task = self._bars.tasks[0]
        done = task.fields["images"] + images
        rate = f"{done / task.elapsed:.0f} images/s" if task.elapsed else ""
        label = f"epoch {progress.epoch + 1}/{progress.epochs}"
        self._bars.update(self._task, advance=1, description=label, images=done, rate=rate)
        if progress.step + 1 == total:
            self._bars.remove_task(self._task)


@contextlib.contextmanager
def reporter(*, to_stderr: bool, quiet: bool) -> Iterator[Lines]:
    """Yield bars if the stream is a terminal, lines otherwise; nothing but silence if `quiet`."""
    console = Console(stderr=to_stderr)
    if quiet or not console.is_terminal:
        yield Lines(console, quiet=quiet)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield Bars(console, bars)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table on stdout; the columns named in `right` are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        # Text, not markup: a class or a folder may be called "[red]".
        from rich.text import Text

        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
