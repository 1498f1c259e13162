"""What a page is made of: sections that hold blocks, all of them plain data.

Strings here are text, never markup; the template escapes every one of them. A block's `kind` names the
template's macro that draws it. An `href` is an address inside the page, without its #.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sightline.report.svg import Diagram, MatrixMap


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
    """Cards in reading order; `pairs` where two pictures stand next to each other."""

    caption: str
    cards: tuple[Card, ...]
    pairs: bool = False
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Tool:
    """A part that works only with the page's script: `name` is the template that draws it."""

    name: str
    kind: ClassVar[str] = "tool"


@dataclass(frozen=True)
class Picture:
    """A data URI with its description; or, where there is nothing to draw, a `message` in its place."""

    uri: str
    alt: str
    message: str = ""
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Note:
    """A sentence on its own. A warning stands out."""

    text: str
    warning: bool = False
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Headline:
    """The one number of the page, in large type, with what it counts and how sure it is."""

    value: str
    text: str
    doubt: str
    kind: ClassVar[str] = "headline"


@dataclass(frozen=True)
class Facts:
    """Short labels with short values."""

    rows: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Findings:
    """Sentences, each with a link to the section that shows it, if there is one."""

    title: str
    rows: tuple[tuple[str, Link | None], ...]
    kind: ClassVar[str] = "findings"


@dataclass(frozen=True)
class Bar:
    """A share and its interval, all in [0, 1], drawn inside a table's cell."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of strings, bars and links. The first cell of a row is its heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Bar | Link, ...], ...]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Cell:
    """A count, how strongly it is shaded (0 to 10), what it says in words, and where it leads."""

    text: str
    shade: int
    title: str
    diagonal: bool
    href: str = ""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: names of the classes, then one row of cells per true class.

    dense: too many classes for numbers in the cells.
    """

    caption: str
    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    dense: bool = False
    kind: ClassVar[str] = "matrix"


@dataclass(frozen=True)
class SideBySide:
    """Diagrams in one row where there is room, one below the other where there is not."""

    charts: tuple[Diagram, ...]
    kind: ClassVar[str] = "side_by_side"


@dataclass(frozen=True)
class Tile:
    """One picture or more of one thing, above a title, linked if it leads somewhere, and lines of text."""

    pictures: tuple[Picture, ...]
    title: str = ""
    lines: tuple[str, ...] = ()
    href: str = ""


@dataclass(frozen=True)
class Tiles:
    """A grid of tiles in reading order."""

    caption: str
    tiles: tuple[Tile, ...]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class MapColumn:
    """The map of one class: alone at the layer's resolution, and laid over the picture."""

    heading: str
    alone: Picture
    overlay: Picture


@dataclass(frozen=True)
class MapCard:
    """A picture next to the maps of its classes."""

    tile: Tile
    columns: tuple[MapColumn, ...]


@dataclass(frozen=True)
class MapCards:
    caption: str
    cards: tuple[MapCard, ...]
    kind: ClassVar[str] = "map_cards"


@dataclass(frozen=True)
class Text:
    """Preformatted text in a box that scrolls."""

    caption: str
    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Details:
    """Blocks that open on demand."""

    title: str
    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "details"


Block = (
    Note
    | Headline
    | Facts
    | Findings
    | Table
    | Matrix
    | MatrixMap
    | SideBySide
    | Tiles
    | MapCards
    | Text
    | Details
    | Diagram
    | Thumbs
    | Budget
    | Fixes
    | Cards
    | Tool
)


@dataclass(frozen=True)
class Heading:
    """What names a section: its title, its id in the page, the group of the navigation that it stands in.

    terms: of the glossary, which the reader can open next to the title.
    """

    title: str
    anchor: str
    group: str
    terms: tuple[str, ...] = ()

    @property
    def link(self) -> Link:
        """The title, leading to the section."""
        return Link(self.title, self.anchor)


@dataclass(frozen=True)
class Section:
    """lead: one or two sentences that say what to see in it. folded: the rest opens on demand."""

    heading: Heading
    lead: str
    blocks: tuple[Block, ...]
    folded: bool = False
