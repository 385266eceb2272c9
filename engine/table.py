"""The metrics of one run as a table on the terminal."""

from __future__ import annotations

import math

from traces.metrics import Metrics
from traces.percentiles import Distribution

FIGURES = ("mean", "p50", "p90", "p99", "max")
LATENCIES = (
    ("TTFT", "ttft_s"),
    ("TBT", "tbt_s"),
    ("TPOT", "tpot_s"),
    ("End-to-end", "end_to_end_s"),
    ("Scheduling delay", "scheduling_delay_s"),
)


def print_metrics(title: str, metrics: Metrics) -> None:
    """Print latencies in milliseconds, and under them what else a run was worth."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ms", no_wrap=True)
    for figure in FIGURES:
        table.add_column(figure.replace("p", "P"), justify="right", no_wrap=True)
    for name, field in LATENCIES:
        table.add_row(name, *_milliseconds(getattr(metrics, field)))
    console = Console(highlight=False)
    console.print(table)
    for line in _facts(metrics):
        console.print(line, markup=False, soft_wrap=True)


def _milliseconds(distribution: Distribution) -> list[str]:
    values = [1e3 * getattr(distribution, figure) for figure in FIGURES]
    return ["–" if math.isnan(value) else f"{value:,.2f}" for value in values]


def _facts(metrics: Metrics) -> list[str]:
    through = metrics.throughput
    lines = [
        f"Requests          {metrics.finished:,} finished in {metrics.makespan_s:,.2f} s",
        f"Throughput        {through.requests_per_s:,.2f} requests/s, {through.output_tokens_per_s:,.1f} output "
        f"tokens/s, {through.total_tokens_per_s:,.1f} tokens/s in all",
        f"Batches           {metrics.batch.tokens.mean:,.1f} tokens, {metrics.batch.decodes.mean:,.1f} decodes (means)",
        f"KV cache          {metrics.kv_use.mean:.1%} used (mean), {metrics.kv_use.max:.1%} (most), "
        f"{metrics.preemptions:,} preemptions, {metrics.cached_share:.1%} of prompt tokens cached",
    ]
    if (goodput := metrics.goodput) is not None:
        lines.append(f"Goodput           {goodput.share:.1%} of requests, {goodput.requests_per_s:,.2f} requests/s")
    return lines
