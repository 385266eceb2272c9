"""What a page is made of, whether it is written as Markdown or as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.figure_style import Panel


FIGURE = tuple("0123456789+-–≥≤<>~")
"""How figures begin."""


@dataclass(frozen=True)
class Words:
    """Words in a line of text.

    Attributes
    ----------
    link
        The anchor of the heading that they lead to, "" for none.
    """

    text: str
    strong: bool = False
    link: str = ""


Line = tuple[Words, ...]
"""Words that follow each other."""


def line(*parts: str | Words) -> Line:
    """Return a line of words."""
    return tuple(Words(part) if isinstance(part, str) else part for part in parts)


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 or 3, and the name by which links find it."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; a soft one is a caption."""

    words: Line
    soft: bool = False


@dataclass(frozen=True)
class Bullets:
    """Lines, each with a bullet."""

    items: tuple[Line, ...]


@dataclass(frozen=True)
class Grid:
    """A table."""

    head: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]

    @property
    def texts(self) -> list[bool]:
        """Whether each column holds text, and so begins at the left."""
        plain = [["".join(words.text for words in cell) for cell in row] for row in self.rows]
        return text_columns(len(self.head), plain)


def text_columns(columns: int, rows: Sequence[Sequence[str]]) -> list[bool]:
    """Return whether each column holds text: the first one does, others where none of their cells is a figure."""
    return [column == 0 or not any(row[column][:1] in FIGURE for row in rows) for column in range(columns)]


@dataclass(frozen=True)
class Picture:
    """A figure with its title and caption."""

    panel: Panel


@dataclass(frozen=True)
class Code:
    """A command."""

    text: str


Block = Heading | Paragraph | Bullets | Grid | Picture | Code
