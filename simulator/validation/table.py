"""The validation on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.validation.policy_sheet import order_sheet as policy_order_sheet
from simulator.validation.policy_sheet import setting_sheet
from simulator.validation.policy_validation import PolicyValidation
from simulator.validation.sheet import Sheet, iteration_sheet, kind_sheet, metric_sheet, order_sheet, winner_sheet
from simulator.validation.validation import Finding, Validation
from traces.command_line import new_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

LOADS_ABREAST = 3
MARKS = {True: "holds", False: "falls short", None: "•"}
STYLES = {True: "bold green", False: "bold yellow", None: "dim"}


def print_validation(validation: Validation, console: Console) -> None:
    """Print what was measured and predicted, and last what holds; it fits 100 columns with three loads.

    Figures that fall short of what was promised are yellow and marked ``!``.
    """
    for policy in validation.policies:
        for first in range(0, len(validation.loads), LOADS_ABREAST):
            loads = validation.loads[first : first + LOADS_ABREAST]
            print_sheet(metric_sheet(validation, policy, loads), console)
    for sheet in (iteration_sheet(validation), kind_sheet(validation), order_sheet(validation)):
        print_sheet(sheet, console)
    print_sheet(winner_sheet(validation), console)
    console.print(findings_grid(validation.verdict))


def print_policy_validation(validation: PolicyValidation, console: Console) -> None:
    """Print every setting's metrics, predicted beside measured, and last what holds; it fits 100 columns."""
    for setting in validation.settings:
        print_sheet(setting_sheet(setting), console)
    if validation.preferences:
        print_sheet(policy_order_sheet(validation), console)
    console.print(findings_grid(validation.verdict))


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print a table; figures that fall short are yellow and marked ``!``."""
    table = new_table(sheet.title, sheet.columns[0], *sheet.columns[1:])
    table.padding = 0
    table.columns[0].no_wrap = True
    for column in table.columns:
        column.vertical = "bottom"
    for row, cells in enumerate(sheet.rows):
        table.add_row(*[_cell(text, (row, column) in sheet.short) for column, text in enumerate(cells)])
    console.print(table)
    if sheet.note:
        console.print(_text(sheet.note, "dim"))
        console.print()


def findings_grid(verdict: tuple[Finding, ...]) -> Table:
    """Return the sentences of a verdict, each with whether it holds."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    for finding in verdict:
        grid.add_row(_text(MARKS[finding.holds], STYLES[finding.holds]), _text(_sentence(finding), ""))
    return grid


def _sentence(finding: Finding) -> str:
    return f"{finding.subject}: {finding.text}"


def _cell(text: str, short: bool) -> Text:
    return _text(f"{text}!" if short else text, "bold yellow" if short else "")


def _text(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)
