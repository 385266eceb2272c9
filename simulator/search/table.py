"""What a search found, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.scoreboard import duration, three_digits
from simulator.search.estimate import Estimate
from simulator.search.search import Found, Task
from simulator.search.space import Selection
from traces.command_line import new_console, new_table

if TYPE_CHECKING:
    from rich.console import Console

READING = "capacity: with its interval over draws of the requests; TTFT, TBT: at the highest rate that was seen to hold"


def print_search(
    task: Task, selection: Selection, found: Found, sentences: Sequence[str], console: Console | None = None
) -> None:
    """Print what was searched, the finalists, how the others were sorted out, and why the winner won."""
    from rich.text import Text

    console = console or new_console()
    console.print(Text(headline(task, selection)))
    head, rows = finalists(task, found)
    table = new_table("", *head)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    console.print(Text(READING, style="dim"))
    for line in sorting(found, selection):
        console.print(Text(line, style="dim"))
    for sentence in sentences:
        console.print(Text(f"• {sentence}"))


def headline(task: Task, selection: Selection) -> str:
    """Return what was searched, in a line."""
    demand = f"{task.ladder[-1].requests:,} requests of {Path(task.demand.source).name}"
    tried = f"{len(selection.candidates):,} of {selection.size:,} settings{shared_hardware(task)}"
    rate = task.objective.request_rate_per_s
    at = "" if rate is None else f", at {rate:g} requests/s"
    return f"{tried} for {task.objective.name}{at}: {demand}, {task.slo}"


def shared_hardware(task: Task) -> str:
    """Return the end of all labels, " on a100-sxm TP 1 PP 1", where all candidates run on the same; else ""."""
    ends = {f" on {candidate.hardware}" for candidate in task.candidates.values()}
    return ends.pop() if len(ends) == 1 else ""


def finalists(task: Task, found: Found) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heading and the rows of the table of those on the last rung."""
    head = ("", task.objective.unit, "capacity", "90 %", "TTFT P99", "TBT P99", "GPUs")
    rows = [_row(task, place, label, each) for place, (label, each) in enumerate(found.finals.items(), start=1)]
    return head, rows


def _row(task: Task, place: int, label: str, estimate: Estimate) -> tuple[str, ...]:
    candidate, metrics = task.candidates[label], estimate.metrics
    times = (duration(metrics[name]) if name in metrics else "–" for name in ("TTFT P99", "TBT P99"))
    low, high = three_digits(estimate.low_per_s), three_digits(estimate.high_per_s)
    return (
        f"{place}. {label.removesuffix(shared_hardware(task))}",
        three_digits(task.objective.value_of(candidate, estimate)),
        f"{three_digits(estimate.rate_per_s)}/s",
        f"{low} or more" if isinf(estimate.high_per_s) else f"{low} to {high}",
        *times,
        str(sum(candidate.gpus.values())),
    )


def sorting(found: Found, selection: Selection) -> list[str]:
    """Return how candidates were sorted out, a line for each rung."""
    lines = []
    if selection.impossible:
        first = next(iter(selection.impossible.items()))
        lines.append(f"{len(selection.impossible):,} cannot run and were not tried, such as {first[0]}: {first[1]}")
    for number, step in enumerate(found.steps[:-1], start=1):
        out = len(step.estimates) - len(step.kept)
        text = f"rung {number}: {step.rung.requests:,} requests, {len(step.estimates):,} candidates, {out:,} out"
        if step.dominated:
            text += f", {len(step.dominated):,} of them clearly worse than another on no more of the same devices"
        lines.append(text)
    refused = [reason for step in found.steps for reason in step.refused.items()]
    if refused:
        lines.append(f"{len(refused):,} could not be simulated, such as {refused[0][0]}: {refused[0][1]}")
    return lines
