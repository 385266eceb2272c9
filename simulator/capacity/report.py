"""Capacities as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from os import PathLike

from simulator.capacity.capacity import Capacity
from simulator.capacity.figures import panels
from simulator.capacity.slo import Slo
from simulator.capacity.table import HEAD, rows
from simulator.capacity.verdict import verdicts
from simulator.report import figure_html
from simulator.report_page import page, table_html
from traces.files import whole_file


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a report shows: what was found for which SLO, what was asked (name, text), and the command that asks it."""

    capacities: Mapping[str, Capacity]
    slo: Slo
    facts: list[tuple[str, str]]
    command: str


def write_report(path: str | PathLike[str], search: Search) -> None:
    """Write the report of a search for capacities; equal searches give equal bytes.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    labels = list(search.capacities)
    title = "Which policy sustains the highest rate?" if len(labels) > 1 else f"What rate does {labels[0]} sustain?"
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page(title, _body(search)))


def _body(search: Search) -> Iterator[str]:
    yield f'<p class="note">SLO: {escape(str(search.slo))}</p>\n<ul class="verdicts">\n'
    for sentence in verdicts(search.capacities):
        yield f"<li>{escape(sentence)}</li>\n"
    yield "</ul>\n<h2>Capacities</h2>\n"
    yield from table_html(HEAD, rows(search.capacities))
    for panel in panels(search.capacities, search.slo):
        yield figure_html(panel)
    yield "<h2>What was run</h2>\n<dl>\n"
    for name, text in search.facts:
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>\n"
    yield f"</dl>\n<pre><code>{escape(search.command)}</code></pre>\n"
