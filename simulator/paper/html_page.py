"""The page as one HTML file that needs nothing else, its figures to be looked at closely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from simulator.paper.blocks import Block, Bullets, Code, Grid, Heading, Line, Paragraph, Picture, Words
from simulator.report import figure_plot
from simulator.report_page import page

CSS = """
h3 { font-size: 18px; margin: 40px 0 4px; }
h4 { font-size: 16px; margin: 28px 0 4px; }
ul { margin: 0 0 12px; padding-left: 22px; max-width: 900px; }
main > p { max-width: 900px; }
.scroll { margin: 0 0 20px; }
td.text, th.text { text-align: left; white-space: normal; }
"""


def html(title: str, blocks: Iterable[Block]) -> Iterator[str]:
    """Yield a page."""
    return page(title, body(blocks), css=CSS)


def body(blocks: Iterable[Block]) -> Iterator[str]:
    """Yield what a page holds."""
    for block in blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading():
            yield f'<h{block.level} id="{escape(block.anchor)}">{escape(block.text)}</h{block.level}>\n'
        case Paragraph():
            kind = ' class="caption"' if block.soft else ""
            yield f"<p{kind}>{_line(block.words)}</p>\n"
        case Bullets():
            yield from ("<ul>\n", *(f"<li>{_line(item)}</li>\n" for item in block.items), "</ul>\n")
        case Grid():
            yield from _grid(block)
        case Code():
            yield f"<pre><code>{escape(block.text)}</code></pre>\n"
        case Picture():
            panel = block.panel
            yield f'<h4>{escape(panel.title)}</h4>\n<p class="caption">{escape(panel.caption)}</p>\n'
            yield figure_plot(panel)


def _grid(grid: Grid) -> Iterator[str]:
    kinds = [' class="text"' if text else "" for text in grid.texts]
    yield '<div class="scroll"><table>\n<thead><tr>'
    yield from (f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, grid.head, strict=True))
    yield "</tr></thead>\n<tbody>\n"
    for cells in grid.rows:
        texts = (f"<td{kind}>{_line(cell)}</td>" for kind, cell in zip(kinds, cells, strict=True))
        yield f"<tr>{''.join(texts)}</tr>\n"
    yield "</tbody>\n</table></div>\n"


def _line(words: Line) -> str:
    return "".join(_words(each) for each in words)


def _words(words: Words) -> str:
    text = escape(words.text)
    text = f"<strong>{text}</strong>" if words.strong else text
    return f'<a href="#{escape(words.link)}">{text}</a>' if words.link else text
