"""The page as Markdown, as GitHub reads it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from simulator.paper.blocks import Block, Bullets, Code, Grid, Heading, Line, Paragraph, Picture, Words

SPECIAL = re.compile(r"([\\`*_<>|\[\]~$#])")
MARKER = re.compile(r"^(\d*)([-+.)])(?=\s)")
"""What would make a line an item of a list."""


def markdown(title: str, blocks: Iterable[Block], drawn: Collection[str]) -> Iterator[str]:
    """Yield a page; ``drawn`` names the figures that there are files of, ``figures/NAME.svg``."""
    yield f"# {_text(title)}\n"
    for block in blocks:
        yield "\n"
        yield from _block(block, drawn)


def _block(block: Block, drawn: Collection[str]) -> Iterator[str]:
    match block:
        case Heading():
            yield f'<a id="{block.anchor}"></a>\n\n{"#" * block.level} {_text(block.text)}\n'
        case Paragraph():
            yield f"{_line(block.words)}\n"
        case Bullets():
            yield from (f"- {_line(item)}\n" for item in block.items)
        case Grid():
            yield from _grid(block)
        case Code():
            yield f"```\n{block.text}\n```\n"
        case Picture():
            yield from _picture(block, drawn)


def _grid(grid: Grid) -> Iterator[str]:
    yield _row(_text(name) for name in grid.head)
    yield _row(":--" if text else "--:" for text in grid.texts)
    for cells in grid.rows:
        yield _row(_line(cell) for cell in cells)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _picture(picture: Picture, drawn: Collection[str]) -> Iterator[str]:
    panel = picture.panel
    yield f"**{_text(panel.title)}**\n\n"
    if panel.name in drawn:
        yield f"![{_text(panel.title)}](figures/{panel.name}.svg)\n\n"
    yield f"{_start(_text(panel.caption))}\n"


def _line(words: Line) -> str:
    return _start("".join(_words(each) for each in words))


def _words(words: Words) -> str:
    text = _text(words.text)
    text = f"**{text}**" if words.strong and text else text
    return f"[{text}](#{words.link})" if words.link else text


def _start(text: str) -> str:
    return MARKER.sub(r"\1\\\2", text)


def _text(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text.replace("\n", " "))
