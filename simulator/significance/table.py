"""Verdicts as tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.significance.rows import HEADINGS, explanation, rows, sentences
from simulator.significance.significance import Significance
from simulator.table import heading
from traces.command_line import new_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def verdict_table(significance: Significance, label: str) -> Table:
    """Return the verdicts on one policy and the baseline, a row a metric; green where one is better."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True, vertical="bottom")
    for name in (label, significance.baseline):
        table.add_column(heading(name), justify="right", vertical="bottom", overflow="fold")
    for name in HEADINGS[:-1]:
        table.add_column(name.replace("cost ", "cost\n"), justify="right", vertical="bottom", no_wrap=True)
    table.add_column(HEADINGS[-1], vertical="bottom", overflow="fold")
    for row in rows(significance, label):
        styles = ["bold" if row.winner == side else "" for side in ("A", "B")]
        styles += ["", "", "dim", "green" if row.winner else "dim"]
        cells = [Text(text, style=style) for text, style in zip(row.cells, styles, strict=True)]
        table.add_row(row.name, *cells)
    return table


def print_significance(significance: Significance, console: Console | None = None) -> None:
    """Print a table for each policy, and under them what they come to and how to read them."""
    from rich.text import Text

    console = console or new_console()
    for label in significance.verdicts:
        console.print(verdict_table(significance, label))
    for sentence in sentences(significance):
        console.print(Text(f"• {sentence}"))
    console.print(Text(explanation(significance), style="dim"))
