"""An HTML page that needs nothing else: style and plotly are in it, and nothing can be loaded into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from simulator.report_style import CSS

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(title: str, body: Iterable[str], *, css: str = "") -> Iterator[str]:
    """Yield a page with a heading and a body of HTML; ``css`` adds to the reports' style sheet."""
    from plotly.offline import get_plotlyjs

    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{escape(title)}</title>\n<style>{CSS}{css}</style>\n<script>{get_plotlyjs()}</script>\n"
    yield f"</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
    yield from body
    yield "</main>\n</body>\n</html>\n"


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table of texts."""
    yield '<div class="scroll"><table>\n<thead><tr>'
    yield "".join(f"<th>{escape(name)}</th>" for name in head)
    yield "</tr></thead>\n<tbody>\n"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
    yield "</tbody>\n</table></div>\n"
