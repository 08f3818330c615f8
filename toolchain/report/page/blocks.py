"""What stands on a page: a verdict, key figures, and sections of tables, lists, commands and pictures.

All texts are plain: the template escapes them. Only `Picture` holds markup, which its maker has escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from toolchain.stats.decision import Outcome

_LAST = 1e300
"""Sorts behind every figure, in both directions (`page.js`); JavaScript reads it as a number, unlike `inf`."""
Tone = Literal["", "pass", "fail", "unsure", "quiet"]
"""How a text is coloured; the colour never says what the text does not."""
TONES: dict[Outcome, Tone] = {Outcome.PASS: "pass", Outcome.FAIL: "fail", Outcome.INCONCLUSIVE: "unsure"}


@dataclass(frozen=True)
class Link:
    """A file beside the page. href: its address, percent-encoded; download: whether a click saves it."""

    text: str
    href: str
    download: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table. key: the number by which it is sorted, None to sort by its text. mark: stands behind it."""

    text: str
    key: float | None = None
    tone: Tone = ""
    mark: str = ""
    link: Link | None = None

    @property
    def says_key(self) -> bool:
        """Whether the text begins with the key itself and says no more than its unit: `1,234` or `0.75 pp`."""
        number, _, unit = self.text.replace(",", "").partition(" ")
        return (
            self.key is not None and not self.mark and " " not in unit and number == f"{self.key:.{_places(number)}f}"
        )


def _places(number: str) -> int:
    """Return the number of decimals of a number as it is written."""
    return len(number.partition(".")[2])


@dataclass(frozen=True)
class Table:
    """A table. headings: one for each column. figures: the headings of columns that are aligned to the right.

    The first column names the row. wide: on a narrow screen every row becomes a block of lines. sortable: a script adds
    buttons that sort the rows.
    """

    kind: ClassVar = "table"

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figures: Sequence[str] = ()
    wide: bool = False
    sortable: bool = False

    @property
    def all_figures(self) -> bool:
        """Whether each column but the first is aligned to the right, which a table that stays one says once."""
        return not self.wide and list(self.headings[1:]) == list(self.figures)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Lines:
    """A list of remarks."""

    kind: ClassVar = "lines"

    lines: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    kind: ClassVar = "facts"

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Lines of a shell or of a file, and what they are for."""

    kind: ClassVar = "code"

    title: str
    code: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """Pictures as inline SVG, which holds no markup but its own.

    narrow: the same for a screen of 390 pixels, empty where `svg` serves for both.
    """

    kind: ClassVar = "picture"

    svg: str
    caption: str
    narrow: str = ""


@dataclass(frozen=True)
class Tile:
    """A character. image: uint8 [28, 28], white ink on black. alt: what it shows. lines: what is said below it."""

    image: NDArray[np.uint8] = field(compare=False)
    alt: str
    lines: Sequence[str]
    tone: Tone = ""


@dataclass(frozen=True)
class Gallery:
    """Characters with what is said of each."""

    kind: ClassVar = "gallery"

    label: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Folded:
    """Blocks that open when they are asked for."""

    kind: ClassVar = "folded"

    summary: str
    blocks: Sequence[Block]


Block = Table | Text | Lines | Facts | Code | Picture | Gallery | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading. ident: its name in links."""

    ident: str
    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Ruling:
    """What the page says first. status: in two words. sentence: why. link: the file to ship; about: its size."""

    status: str
    tone: Tone
    sentence: str
    link: Link | None = None
    about: str = ""


@dataclass(frozen=True)
class Figure:
    """A key figure: its name, its value, and what it is compared with."""

    name: str
    value: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Page:
    """A whole page. title: of the window and the first heading. subtitle: what was measured on what."""

    title: str
    subtitle: str
    ruling: Ruling | None = None
    figures: Sequence[Figure] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def blocks_within(blocks: Sequence[Block]) -> Iterator[Block]:
    """Yield the blocks and those folded inside them."""
    for block in blocks:
        yield block
        if isinstance(block, Folded):
            yield from blocks_within(block.blocks)


def section(ident: str, heading: str, *blocks: Block | None) -> list[Section]:
    """Return a section of the blocks that are there, in a list; an empty list if none is."""
    there = [block for block in blocks if block is not None]
    return [Section(ident, heading, there)] if there else []


def cells(texts: Sequence[str]) -> list[Cell]:
    """Return a row of plain cells."""
    return [Cell(text) for text in texts]


def figure(value: float | None, text: Callable[[float], str], *, tone: Tone = "") -> Cell:
    """Return a cell with a number; a dash where there is none, sorted last."""
    return Cell("-", _LAST) if value is None else Cell(text(value), value, tone)
