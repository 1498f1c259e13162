"""What the command line shows: the log, with a progress bar on a terminal, and tables."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from sightline import logs


class _Lines(logging.Handler):
    """Prints each line of the log as it is, above a bar that may be moving."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def log_shown(*, to_stderr: bool, quiet: bool) -> Iterator[None]:
    """Print the log and what lasts, unless `quiet`: a bar on a terminal, else a line now and then."""
    if quiet:
        with _attached(logging.NullHandler()):  # somebody listens, and says nothing
            yield
        return
    console = Console(stderr=to_stderr)
    with _attached(_Lines(console)), _bar(console) if console.is_terminal else logs.heartbeat():
        yield


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[None]:
    """Show what the package is busy with as one bar that moves: what, how much, how fast, how long still."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    busy: dict[logs.Stage, TaskID] = {}  # the stage that is shown, by its innermost one with a total

    def show(stages: tuple[logs.Stage, ...]) -> None:
        counted = next((one for one in reversed(stages) if one.total), stages[-1] if stages else None)
        for gone in [one for one in busy if one is not counted]:
            bars.remove_task(busy.pop(gone))
        if counted is None:
            return
        if counted not in busy:
            busy[counted] = bars.add_task("", total=counted.total, count="")
        count = f"{counted.done}/{counted.total}" if counted.total else ""
        bars.update(
            busy[counted],
            completed=counted.done,
            description=logs.name_stages(stages),
            count=" ".join([count, counted.note]).strip(),
        )

    with Progress(*columns, console=console, transient=True) as bars, logs.watched(show, every=0.1):
        yield


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
