"""Numbers and names as the report writes them.

A class name can be anything that a folder can be called: it is shortened, kept on one line,
and a name in right-to-left letters cannot turn the words around it.

Addresses inside the page: `#true=cat&pred=dog&sort=loss` is a view of the gallery.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote, urlencode

# No-break spaces: a unit never stands alone on a new line.
_PERCENT = "\u00a0%"
_ISOLATE, _POP = "\u2068", "\u2069"
# Marks, embeddings, overrides and isolates: invisible, and able to reorder the sentence around a name.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def short_name(name: str, *, most: int = 48) -> str:
    """Return `name` on one line, without control characters, at most `most` characters long.

    >>> short_name("tab\\there", most=48), short_name("a" * 50, most=8)
    ('tab here', 'aaaaaaa…')
    """
    kept = (" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)
    line = " ".join("".join(c for c in kept if c not in _BIDI_CONTROLS).split()) or "(no name)"
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def page_name(name: str, *, most: int = 48) -> str:
    """Return `short_name`, isolated when it holds right-to-left letters, for use inside a sentence."""
    name = short_name(name, most=most)
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in name):
        return f"{_ISOLATE}{name}{_POP}"
    return name


def count(number: float) -> str:
    """
    >>> count(10000)
    '10,000'
    """
    return f"{int(number):,}"


def percent(share: float, *, digits: int = 1) -> str:
    """Return a share in [0, 1] in per cent, with a no-break space.

    >>> percent(0.9088, digits=2), percent(float("nan"))
    ('90.88\\xa0%', '–')
    """
    return f"{100 * share:.{digits}f}{_PERCENT}" if math.isfinite(share) else "–"


def percent_range(low: float, high: float) -> str:
    """
    >>> percent_range(0.8256, 0.9448)
    '82.6–94.5\\xa0%'
    """
    return f"{100 * low:.1f}–{100 * high:.1f}{_PERCENT}"


def number(value: float) -> str:
    """
    >>> number(2.30259), number(0.000385), number(float("inf"))
    ('2.303', '0.000385', 'inf')
    """
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """
    >>> [duration(s).replace("\\xa0", " ") for s in (0.01, 0.4, 134, 7400)]
    ['<0.1 s', '0.4 s', '2 min 14 s', '2 h 3 min']
    """
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 0.05:
        words = "<0.1 s"
    elif seconds < 59.95:
        words = f"{seconds:.1f} s"
    elif minutes < 60:
        words = f"{minutes} min {rest} s"
    else:
        words = f"{minutes // 60} h {minutes % 60} min"
    return words.replace(" ", "\u00a0")


def plural(n: int, word: str, words: str = "") -> str:
    """
    >>> plural(1, "file"), plural(1200, "file"), plural(2, "class", "classes")
    ('1 file', '1,200 files', '2 classes')
    """
    return f"{count(n)} {word if n == 1 else words or word + 's'}"


def class_keys(names: Sequence[str]) -> tuple[str, ...]:
    """Return a short, unique word for each class, by which an address names it: mostly its own name.

    >>> class_keys(["cat", "dog", "dog"])
    ('cat', 'dog', 'dog~2')
    """
    keys: list[str] = []
    taken: set[str] = set()
    for place, name in enumerate(names):
        key = short_name(name)
        key = f"{key}~{place}" if key in taken else key
        keys.append(key)
        taken.add(key)
    return tuple(keys)


def view(**filters: object) -> str:
    """Return the address (without #) of the gallery under these filters.

    >>> view(true="big cat", pred="dog & co", sort="loss")
    'true=big%20cat&pred=dog%20%26%20co&sort=loss'
    """
    return urlencode(filters, quote_via=quote)
