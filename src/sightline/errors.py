"""The one exception that the package raises on purpose.

Its message is a single line that says what came, what fits and what to do. The
command line prints that line and exits with 1; from Python it is an ordinary
exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class SightlineError(Exception):
    """Something outside the package is not as it has to be: a file, a recipe, a model, an image."""


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
