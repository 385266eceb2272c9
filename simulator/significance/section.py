"""Verdicts as a section of the HTML report."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from simulator.significance.rows import HEADINGS, explanation, rows, sentences
from simulator.significance.significance import Significance

BEST = ' class="best"'


def significance_html(significance: Significance) -> Iterator[str]:
    """Yield what the verdicts come to, how to read them, and a table for each policy."""
    yield "<h2>How sure is that?</h2>\n<ul>\n"
    for sentence in sentences(significance):
        yield f"<li>{escape(sentence)}</li>\n"
    yield f'</ul>\n<p class="caption">{escape(explanation(significance))}</p>\n'
    for label in significance.verdicts:
        yield f"<details>\n<summary>{escape(label)} against {escape(significance.baseline)}</summary>\n"
        yield from _table(significance, label)
        yield "</details>\n"


def _table(significance: Significance, label: str) -> Iterator[str]:
    headings = "".join(f"<th>{escape(each)}</th>" for each in (label, significance.baseline, *HEADINGS))
    yield f'<div class="scroll"><table>\n<thead><tr><th></th>{headings}</tr></thead>\n<tbody>\n'
    for row in rows(significance, label):
        best = [row.winner == side for side in ("A", "B")] + [False] * 4
        cells = (f"<td{BEST if win else ''}>{escape(text)}</td>" for text, win in zip(row.cells, best, strict=True))
        yield f"<tr><td>{escape(row.name)}</td>{''.join(cells)}</tr>\n"
    yield "</tbody>\n</table></div>\n"
