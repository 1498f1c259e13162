"""Blocks of a page with an audit: text and numbers, and places that the page's script fills.

An `href` is an address inside the page, without its #.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Link:
    """Words in a table's cell or a list that lead to a part of the page or a view of the gallery."""

    text: str
    href: str


@dataclass(frozen=True)
class Thumbs:
    """Pictures of a split that the script draws from its sheets, each a link to its details."""

    split: str
    images: tuple[int, ...]
    kind: ClassVar[str] = "thumbs"


@dataclass(frozen=True)
class Part:
    """A share of a whole, from `start`, both in [0, 1]. color: its number among the colours of parts."""

    name: str
    color: int
    start: float
    share: float
    count: str
    text: str
    href: str


@dataclass(frozen=True)
class Budget:
    """Parts that add up to a whole, as one bar and its legend."""

    caption: str
    parts: tuple[Part, ...]
    kind: ClassVar[str] = "budget"


@dataclass(frozen=True)
class Fix:
    """Something to do: what it may gain, why, how, and the images that speak for it."""

    title: str
    gain: str
    why: str
    how: str
    link: Link | None
    thumbs: Thumbs | None


@dataclass(frozen=True)
class Fixes:
    """Ranked fixes; `brief` ones show title and gain alone, with a link to the whole."""

    caption: str
    fixes: tuple[Fix, ...]
    brief: bool = False
    kind: ClassVar[str] = "fixes"


@dataclass(frozen=True)
class Card:
    """Pictures above a title, linked if it leads somewhere, and lines of text."""

    thumbs: tuple[Thumbs, ...]
    title: str
    lines: tuple[str, ...]
    href: str = ""


@dataclass(frozen=True)
class Cards:
    """Cards in reading order; `pairs` where two pictures stand beside each other."""

    caption: str
    cards: tuple[Card, ...]
    pairs: bool = False
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Tool:
    """A part that works only with the page's script: `name` is the template that draws it."""

    name: str
    kind: ClassVar[str] = "tool"
