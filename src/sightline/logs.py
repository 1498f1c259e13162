"""The package's log: `logging.getLogger("sightline")` speaks, and whoever wants to listen adds a handler.

Long work shows its lines on stdout where nobody has made arrangements for them, as in a notebook. What takes
long says so too: it is a stage, and whoever watches the stages shows how far it is.

    with stage("predicting", total=len(split)) as progress:
        progress.advance(500)
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

log = logging.getLogger("sightline")

_FIRST, _AGAIN = 2.0, 30.0  # seconds: when a stage is named, and after how much silence it is named again


@dataclass(eq=False)
class Stage:
    """Work that may take long.

    Attributes:
        what: What is done, in a few words.
        total: How much there is to do, None if that is not known.
        done: How much of it is done.
        note: What else is worth showing, such as images per second.
        began: When, by the clock of `time.monotonic`.
    """

    what: str
    total: int | None = None
    done: int = 0
    note: str = ""
    began: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1) -> None:
        """Say that so much more is done."""
        self.done += count


_stages: list[Stage] = []  # those that last now, the innermost last


@contextlib.contextmanager
def stage(what: str, *, total: int | None = None, done: int = 0) -> Iterator[Stage]:
    """While this lasts, `what` is what the package is busy with; also a decorator of a function.

    Args:
        what: In a few words.
        total: How much there is to do; the stage's `advance` counts it.
        done: How much of it is done already.
    """
    one = Stage(what, total, done)
    _stages.append(one)
    try:
        yield one
    finally:
        if one in _stages:  # with what an error may have left above it
            del _stages[_stages.index(one) :]


def describe_stages(stages: tuple[Stage, ...]) -> str:
    """Return one line on stages within each other, the outermost first.

    >>> describe_stages((Stage("audit"), Stage("robustness", total=37, done=12)))
    'audit: robustness, 12 of 37'
    """
    text = name_stages(stages)
    counted = next((one for one in reversed(stages) if one.total), None)
    if counted is not None:
        text += f", {counted.done} of {counted.total}"
    notes = [one.note for one in stages if one.note]
    return ", ".join([text, *notes[-1:]])


def name_stages(stages: tuple[Stage, ...]) -> str:
    """Return what is done, the outermost first: "audit: robustness"."""
    return ": ".join(dict.fromkeys(one.what for one in stages))


@contextlib.contextmanager
def watched(show: Callable[[tuple[Stage, ...]], None], *, every: float) -> Iterator[None]:
    """While this lasts, call `show` with the stages, outermost first, every so many seconds from a thread."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            show(tuple(_stages))

    thread = threading.Thread(target=look, name="sightline-stages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)  # no longer: after Ctrl-C it may wait for a lock that nobody gives back


class Heartbeat(logging.Handler):
    """Logs a line for a stage that lasts, and another one whenever nothing was logged for half a minute."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._named: Stage | None = None
        self._last = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self._last = time.monotonic()

    def look(self, stages: tuple[Stage, ...]) -> None:
        """Say what lasts, if it is time to; `stages` are as of :func:`watched`."""
        now = time.monotonic()
        if not stages or now - stages[0].began < _FIRST:
            return
        if stages[0] is not self._named or now - self._last >= _AGAIN:
            self._named = stages[0]
            log.info("%s ...", describe_stages(stages))


@contextlib.contextmanager
def heartbeat() -> Iterator[None]:
    """While this lasts, nothing that takes long is silent: the log has a line for it, and one each 30 s."""
    lines = Heartbeat()
    log.addHandler(lines)
    try:
        with watched(lines.look, every=0.5):
            yield
    finally:
        log.removeHandler(lines)


@contextlib.contextmanager
def shown(wanted: bool = True) -> Iterator[None]:
    """While this lasts, print the log's lines of level INFO on stdout, unless they go somewhere already."""
    if not wanted or (log.isEnabledFor(logging.INFO) and log.hasHandlers()):
        yield
        return
    handler = logging.StreamHandler(sys.stdout)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # a handler of the root that takes warnings alone would print those twice
    try:
        with heartbeat():
            yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
        log.setLevel(log.level)  # forgets what loggers below it have remembered
