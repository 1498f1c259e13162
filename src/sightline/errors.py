"""The exceptions that the package raises on purpose.

Each message is a single line that says what came, what fits and what to do. The command line prints that
line and exits with 1. In Python, `except SightlineError` catches all of them; each is also the built-in
exception that a caller would expect, so that `except ValueError` and `except FileNotFoundError` work too.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class SightlineError(Exception):
    """Something outside the package is not as it has to be: a file, a recipe, a model, an image."""


class InputError(SightlineError, ValueError):
    """A value does not fit: out of range, of the wrong shape, an unknown name, two things that disagree."""


class InputTypeError(SightlineError, TypeError):
    """A value is of a type that does not serve here."""


class NotFoundError(SightlineError, FileNotFoundError):
    """A file or a folder is not there."""


class DamagedFileError(SightlineError, ValueError):
    """A file is there and cannot be read as what it should be, or belongs to something else."""


class WriteError(SightlineError, OSError):
    """A file or a folder cannot be written: a full disk, a missing permission, a name that is taken."""


class MissingExtraError(SightlineError, ImportError):
    """An optional package is not installed."""


class DivergedError(SightlineError, ArithmeticError):
    """Training produced a loss that is not finite."""


class BusyError(SightlineError):
    """Another process is at work in the same run folder."""


class UntrustedError(SightlineError, PermissionError):
    """A file names code that would have to be imported, and nobody said that it may be (`--trust`)."""


class InputWarning(UserWarning):
    """What came can be worked with, and is probably not what was meant."""


def nearest(name: str, names: Sequence[str]) -> str:
    """Return a hint such as ``"did you mean 'layer3'?"``, or the list of what exists.

    >>> nearest("laier3", ["layer1", "layer3"])
    "did you mean 'layer3' or 'layer1'?"
    >>> nearest("x", ["a", "b"])
    'known: a, b'
    """
    close = difflib.get_close_matches(name, list(names), n=2)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return "known: " + ", ".join(list(names)[:12]) + more
