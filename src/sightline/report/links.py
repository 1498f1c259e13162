"""Addresses inside the page: `#true=cat&pred=dog&sort=loss` is a view of the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from sightline.report.wording import short_name


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
