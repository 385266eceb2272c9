"""Experiments on the terminal: which there are, and what they found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from simulator.paper.blocks import text_columns
from simulator.paper.cells import FINDING_HEAD, change_rows, finding_cells, seconds
from simulator.paper.experiment import Experiment, Finding
from simulator.paper.result import Result, misses, tally
from traces.command_line import new_console, new_table

if TYPE_CHECKING:
    from rich import table as rich_table
    from rich.console import Console
    from rich.text import Text

HOW_TO_RUN = (
    "Run some: python -m simulator paper NAME...    all: python -m simulator paper --all\n"
    "The page of all is made again by: python -m simulator paper --all --output docs"
)


def print_experiments(experiments: Sequence[Experiment]) -> None:
    """Print which experiments there are, what each shows, about how long it takes, and how to run them."""
    console = new_console()
    for paper in dict.fromkeys(each.paper for each in experiments):
        rows = [
            [_text(each.name, "bold"), _text(each.shows), _text(seconds(each.about_s))]
            for each in experiments
            if each.paper == paper
        ]
        console.print(_grid(paper, ("experiment", "what it shows", "takes about"), rows))
    console.print(_text(HOW_TO_RUN))


def print_results(results: Sequence[Result]) -> None:
    """Print what each experiment found, and at the end what is missed and how much is not."""
    console = new_console()
    for result in results:
        _print_result(console, result)
    for result, finding in misses(results):
        published, ours, deviation, *_ = finding_cells(finding)
        what = f"missed{' (headline)' * finding.headline}: {result.experiment.name}, {finding.name}"
        console.print(_text(f"{what}: published {published}, ours {ours} ({deviation})", "bold red"))
    console.print(_text(tally(results), "bold"))


def _print_result(console: Console, result: Result) -> None:
    experiment, found = result.experiment, result.found
    console.print(_text(f"{experiment.title} ({experiment.name}) · {experiment.paper}", "bold"))
    if found.findings:
        console.print(_findings(found.findings))
    for why, names in result.reasons.items():
        console.print(_text(f"• {'; '.join(names)}: {why}"))
    if found.changes:
        head, rows = change_rows(found)
        console.print(_grid("With one thing changed", head, _texts(rows)))
    for table in found.tables:
        console.print(_grid(table.title, table.head, _texts(table.rows)))
    for note in (*found.notes, *found.stands_on):
        console.print(_text(f"• {note}", "dim"))
    console.print()


def _findings(findings: Sequence[Finding]) -> rich_table.Table:
    """Return findings as a table: bold what a paper is known for, red what is missed."""
    rows = []
    for finding in findings:
        *figures, verdict = finding_cells(finding)
        name = _text(finding.name, "bold" if finding.headline else "")
        rows.append([name, *map(_text, figures), _text(verdict, "bold red" if finding.missed else "")])
    return _grid("", FINDING_HEAD, rows)


def _grid(title: str, head: Sequence[str], rows: Sequence[Sequence[Text]]) -> rich_table.Table:
    table = new_table(title, *head)
    for column, is_text in zip(
        table.columns, text_columns(len(head), [[str(cell) for cell in row] for row in rows]), strict=True
    ):
        column.justify = "left" if is_text else "right"
    for row in rows:
        table.add_row(*row)
    return table


def _texts(rows: Iterable[Sequence[str]]) -> list[list[Text]]:
    return [[_text(cell) for cell in row] for row in rows]


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)
