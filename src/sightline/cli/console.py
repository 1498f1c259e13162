"""What the command line shows: the log, with a progress bar on a terminal, and tables."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from sightline.training import Callback


class _Lines(logging.Handler):
    """Prints each line of the log as it is, above a bar that may be moving."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def log_shown(*, to_stderr: bool, quiet: bool) -> Iterator[list[Callback]]:
    """Print the package's log, unless `quiet`; yield a callback with a bar if the stream is a terminal."""
    if quiet:
        with _attached(logging.NullHandler()):  # somebody listens, and says nothing
            yield []
        return
    console = Console(stderr=to_stderr)
    with _attached(_Lines(console)):
        if not console.is_terminal:
            yield []
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bars:
            yield [_progress_bar(bars)]


@contextlib.contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    log = logging.getLogger("sightline")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _progress_bar(bars: Progress) -> Callback:
    """A callback that moves a bar: images per second and the time left of the whole training."""
    from sightline.distributed import leads
    from sightline.training import Callback, Trainer

    class ProgressBar(Callback):
        task: TaskID | None = None
        images = 0

        def on_step_end(self, trainer: Trainer) -> None:
            if not leads():
                return
            progress = trainer.progress
            if self.task is None:  # a resumed run begins in the middle
                self.task = bars.add_task("", total=progress.steps, completed=progress.step, rate="")
            self.images += trainer.images
            elapsed = bars.tasks[0].elapsed
            rate = f"{self.images / elapsed:.0f} images/s" if elapsed else ""
            label = f"epoch {progress.epoch + 1}/{progress.epochs}"
            bars.update(self.task, advance=1, description=label, rate=rate)

        def on_train_end(self, trainer: Trainer) -> None:
            if self.task is not None:
                bars.remove_task(self.task)
                self.task = None

    return ProgressBar()


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
