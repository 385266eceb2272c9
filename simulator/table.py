"""The comparison as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from simulator.provenance import headline, sureness
from simulator.scoreboard import Score, scoreboard
from simulator.verdicts import verdicts
from traces.command_line import new_console
from traces.metrics import Metrics
from traces.run_record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def comparison_table(runs: Mapping[str, Metrics]) -> Table:
    """Return the metrics of the runs as rows, the runs as columns.

    The best of each row is bold green and marked ``*``, so that it also shows without colours. It fits 100
    columns with up to 9 runs.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for name in runs:
        table.add_column(heading(name), justify="right", vertical="bottom", overflow="fold")
    section = ""
    for score in scoreboard(runs):
        if score.section != section:
            section = score.section
            table.add_section()
            table.add_row(_styled(section, "dim"))
        table.add_row(" " + score.label, *[_cell(score, index) for index in range(len(runs))])
    return table


def print_comparison(
    runs: Mapping[str, RunRecord], metrics: Mapping[str, Metrics], console: Console | None = None
) -> None:
    """Print what was run, once for all runs of which it is the same, how sure the times are, the table, and under it
    who wins and why.

    Where the output is piped it is at least 100 columns wide.
    """
    console = console or new_console()
    for line in dict.fromkeys(headline(run) for run in runs.values()):
        console.print(_styled(line, ""))
    for line, caution in sureness(runs):
        console.print(_styled(line, "yellow" if caution else ""))
    console.print(comparison_table(metrics))
    if len(metrics) > 1:
        console.print(_styled("* best of the row (within 0.5 %)", "dim"))
    for sentence in verdicts(metrics):
        console.print(_bullet(sentence))


def _bullet(sentence: str) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(_styled("•", ""), _styled(sentence, ""))
    return grid


def _cell(score: Score, index: int) -> Text:
    best = index in score.best
    mark = "*" if best else " "
    return _styled(score.texts[index] + mark, "bold green" if best else "")


def heading(name: str) -> Text:
    """Return a name on as many lines as it has words, so that a column stays narrow."""
    return _styled(name.replace("-", "-\n"), "bold")


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)
