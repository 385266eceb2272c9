"""A workload's description as people read it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from traces.command_line import new_console, new_table
from traces.sketch import arrival_counts, bars, length_counts
from traces.workload import Workload

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 64
COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")


def print_description(workload: Workload, facts: dict[str, Any], title: str = "") -> None:
    """Print what :func:`traces.description.describe` found, with sketches of arrivals and lengths.

    Parameters
    ----------
    title
        The format of the file, if it comes from one.
    """
    from rich.text import Text

    console = new_console()
    plain = not console.encoding.lower().startswith("utf")
    console.print(Text.assemble((workload.name, "bold"), f" ({title})" if title else ""))
    console.print(_summary_table(facts))
    console.print(_length_table(facts))
    for line in _sketches(workload, plain):
        console.print(line, highlight=False, markup=False, no_wrap=True, overflow="crop")


def _summary_table(facts: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("requests", f"{facts['requests']:,}")
    for name, value in _arrival_facts(facts):
        table.add_row(name, value)
    if facts["prefix_sharing"] is not None:
        share = f"{facts['prefix_sharing']:.1%} of prompt tokens were sent before (a prefix cache without end)"
        table.add_row("shared prefixes", share)
    return table


def _arrival_facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    if not facts["timed"]:
        return [("arrivals", "none: lengths only (give it a request rate, or all arrive at once)")]
    if facts["rate_per_s"] is None:
        return [("arrivals", "all at once")]
    whole = timedelta(seconds=round(facts["span_s"]))
    rows = [
        ("span", f"{whole} ({facts['span_s']:,.3f} s)"),
        ("rate", f"{facts['rate_per_s']:.4g} requests/s"),
    ]
    if facts["gap_cv"] is not None:
        alike = "" if facts["burstiness"] is None else f", as gamma gaps of burstiness {facts['burstiness']:.3g}"
        rows.append(("gaps", f"coefficient of variation {facts['gap_cv']:.3f} (Poisson: 1){alike}"))
    return rows


def _length_table(facts: dict[str, Any]) -> Table:
    table = new_table("", "tokens", *(name.replace("p", "P") for name in (*COLUMNS, "sum")))
    for title in ("prompt", "output", "total"):
        row = facts[f"{title}_tokens"]
        table.add_row(title, *(f"{row[name]:,.0f}" for name in (*COLUMNS, "sum")))
    ratio = facts["prompt_to_output"]
    cells = [f"{ratio[name]:,.1f}" for name in COLUMNS]
    table.add_row("prompt/output", *cells, f"{facts['prompt_tokens']['sum'] / facts['output_tokens']['sum']:,.2f}")
    return table


def _sketches(workload: Workload, plain: bool) -> list[str]:
    drawn = []
    if workload.timed and workload.span_s > 0:
        counts = arrival_counts(workload, WIDTH)
        seconds = workload.span_s / WIDTH
        start, end = f"{workload.arrival_s[0]:,.0f} s", f"{workload.arrival_s[-1]:,.0f} s"
        label = f"arrivals in each {seconds:,.3g} s, from {counts.min():,} to {counts.max():,}"
        drawn += _sketch(label, bars(counts, plain=plain), start, end)
    for title, lengths in (("prompt", workload.prompt_tokens), ("output", workload.output_tokens)):
        counts = length_counts(lengths, WIDTH)
        drawn += _sketch(f"{title} lengths", bars(counts, plain=plain), "0", f"{lengths.max():,} tokens")
    return drawn


def _sketch(label: str, drawing: str, start: str, end: str) -> list[str]:
    return ["", label, f"|{drawing}|", f" {start}{end:>{WIDTH - len(start)}}"]
