"""The package's log: `logging.getLogger("sightline")` speaks, and whoever wants to listen adds a handler.

Long work shows its lines on stdout where nobody has made arrangements for them, as in a notebook.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

log = logging.getLogger("sightline")


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
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
        log.setLevel(log.level)  # forgets what loggers below it have remembered
