"""Numbers, names and addresses as the report writes them.

A number has the digits that its interval supports: +0.26 points (0.00 to 0.50). A class name can be
anything that a folder can be called: it is shortened, kept on one line, and a name in right-to-left letters
cannot turn the words around it. An address inside the page, `#true=cat&pred=dog&sort=loss`, is a view of the
gallery.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import numpy as np

# No-break spaces: a unit never stands alone on a new line.
_PERCENT = "\u00a0%"
_ISOLATE, _POP = "\u2068", "\u2069"
# Marks, embeddings, overrides and isolates: invisible, and able to reorder the sentence around a name.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def short_name(name: str, *, limit: int = 48) -> str:
    """Return `name` on one line, without control characters, at most `limit` characters long.

    >>> short_name("tab\\there", limit=48), short_name("a" * 50, limit=8)
    ('tab here', 'aaaaaaa…')
    """
    kept = (" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)
    line = " ".join("".join(c for c in kept if c not in _BIDI_CONTROLS).split()) or "(no name)"
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def page_name(name: str, *, limit: int = 48) -> str:
    """Return `short_name`, isolated when it holds right-to-left letters, for use inside a sentence."""
    name = short_name(name, limit=limit)
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


def percent_range(low: float, high: float, *, digits: int = 1) -> str:
    """
    >>> percent_range(0.8256, 0.9448)
    '82.6–94.5\\xa0%'
    """
    return f"{100 * low:.{digits}f}–{100 * high:.{digits}f}{_PERCENT}"


def digits_of(*intervals: tuple[float, float], largest: int = 3) -> int:
    """Return how many decimals the narrowest of these intervals supports: two digits of its width.

    >>> digits_of((0.0, 0.5)), digits_of((7.9, 21.5)), digits_of((0.0, 6.8), (1.0, 1.5)), digits_of((1, 1))
    (2, 0, 2, 3)
    """
    widths = [high - low for low, high in intervals if math.isfinite(high - low)]
    width = min(widths, default=1.0)
    return largest if width <= 0 else min(largest, max(0, 1 - math.floor(math.log10(width))))


def percent_digits(*intervals: tuple[float, float]) -> int:
    """Return the decimals of per cent that the narrowest of these intervals of shares supports.

    >>> percent_digits((0.723, 0.777)), percent_digits((0.957, 0.958)), percent_digits((0.3, 0.5))
    (1, 2, 0)
    """
    return digits_of(*((100 * low, 100 * high) for low, high in intervals), largest=2)


def interval_text(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """Return a number and its interval, all with the digits that the interval supports.

    >>> interval_text(0.2618, 0.0, 0.5, sign=True), interval_text(3.47, -2.7, 6.8)
    ('+0.26 (0.00 to 0.50)', '3.5 (−2.7 to 6.8)')
    >>> interval_text(-0.04, -2.8, 2.1)  # no negative nothing
    '0.0 (−2.8 to 2.1)'
    """
    digits = digits_of((low, high))
    plus = "+" if sign else ""
    value, low, high = (round(number, digits) + 0.0 for number in (value, low, high))  # -0.0 becomes 0.0
    return f"{value:{plus}.{digits}f} ({low:.{digits}f} to {high:.{digits}f})".replace("-", "−")


_METRIC_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_precision": "Precision, mean over classes",
    "macro_f1": "F1, mean over classes (macro)",
    "weighted_f1": "F1, mean over images (weighted)",
    "matthews": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "loss": "Log loss, nats",
    "brier": "Brier score",
    "roc_auc": "ROC AUC, one against the rest",
    "average_precision": "Average precision, one against the rest",
}


def metric_name(name: str) -> str:
    """Return a metric's name to be read.

    >>> metric_name("macro_f1"), metric_name("top_5_accuracy")
    ('F1, mean over classes (macro)', 'Top-5 accuracy')
    """
    if name.startswith("top_"):
        return f"Top-{name.split('_')[1]} accuracy"
    return _METRIC_NAMES.get(name, name)


def p_value(p: float) -> str:
    """Return a p-value with its relation; below 0.001 nobody needs more.

    >>> p_value(8e-7), p_value(0.0213), p_value(0.5), p_value(0.9996)
    ('p < 0.001', 'p = 0.021', 'p = 0.50', 'p = 1.00')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.{3 if p < 0.0995 else 2}f}"


def number(value: float) -> str:
    """Return a number without an interval: two decimals, or two digits of a small one.

    >>> number(2.30259), number(0.5272), number(0.000386), number(-0.5), number(float("inf"))
    ('2.30', '0.53', '0.00039', '−0.50', 'inf')
    """
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.2f}" if abs(value) >= 0.095 or value == 0 else f"{value:.2g}"
    return text.replace("-", "−")


def learning_rate(value: float) -> str:
    """
    >>> learning_rate(0.30481), learning_rate(1e-5), learning_rate(12.0)
    ('0.305', '0.00001', '12')
    """
    return np.format_float_positional(float(f"{value:.3g}"), trim="-")


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
