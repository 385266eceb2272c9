"""Capacities as a table on the terminal, and the cells that the report shows too."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.capacity.capacity import Capacity
from simulator.capacity.slo import Slo
from simulator.capacity.verdict import verdicts
from simulator.interval import COVERAGE
from simulator.scoreboard import three_digits
from traces.command_line import new_console, new_table

HEAD = ("policy", "requests/s", f"{100 * COVERAGE:g} % interval", "ends by", "saturates at", "simulations")


def rows(capacities: Mapping[str, Capacity]) -> list[tuple[str, ...]]:
    """Return the cells, a row a policy."""
    return [(label, *_cells(capacity)) for label, capacity in capacities.items()]


def _cells(capacity: Capacity) -> tuple[str, ...]:
    limit = capacity.service_limit_per_s
    known = three_digits(limit) if limit else "–"
    if capacity.unmet:
        return "0", "–", f"{capacity.bound_by}, at any rate", known, str(capacity.trials)
    if capacity.unlimited:
        return f"≥ {three_digits(capacity.rate_per_s)}", "–", "too few requests", known, str(capacity.trials)
    low, high = three_digits(capacity.low_per_s), three_digits(capacity.high_per_s)
    return three_digits(capacity.rate_per_s), f"{low} to {high}", capacity.bound_by, known, str(capacity.trials)


def print_capacities(capacities: Mapping[str, Capacity], slo: Slo, headline: str) -> None:
    """Print what was asked, the table, and under it what it means."""
    from rich.text import Text

    console = new_console()
    console.print(Text(headline))
    console.print(Text(f"SLO: {slo}"))
    table = new_table("", *HEAD)
    for row in rows(capacities):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    for sentence in verdicts(capacities):
        console.print(Text(f"• {sentence}"))
