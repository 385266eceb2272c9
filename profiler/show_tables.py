"""The tables of ``profiler show``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from traces.command_line import new_console, new_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

GIB = 2**30


def print_report(report: Mapping[str, Any], *, intervals: bool) -> None:
    """Print what :func:`profiler.show.describe` returned."""
    console = new_console()
    console.print(f"[bold]{report['title']}[/bold]")
    console.print(_provenance(report["cost_model"]))
    for line in _sources(report["origin"]):
        console.print(line, style="dim")
    console.print(_errors(report["cost_model"]["errors"]))
    for line in _measured(report["measured"], report["cost_model"]):
        console.print(line, highlight=False)
    console.print(_memory(report["memory"]))
    console.print(_iterations(report["iterations"], intervals))
    for said in dict.fromkeys(row["outside"] for row in report["iterations"] if row["outside"] is not None):
        console.print(f"* {said}", style="yellow", highlight=False)
    if intervals and any(row["outside"] is not None for row in report["iterations"]):
        console.print(
            "Bands are those of what was measured: for iterations with a * they may be too narrow.", style="dim"
        )
    if report["published"]:
        _print_published(console, report["published"])


def _provenance(known: Mapping[str, Any]) -> str:
    if known["transferred"]:
        there = f"only {', '.join(known['measured'])}" if known["measured"] else "nothing"
        line = f"[yellow]transferred from {known['from']}[/yellow]: {there} was measured on {known['device']}"
    else:
        line = f"measured on {known['device']}"
    others = ", ".join(f"{op} from {source}" for op, source in known["borrowed"].items())
    line += f"; borrowed: {others}" if others else ""
    return f"{line}; {_beside_kernels(known)}"


def _beside_kernels(known: Mapping[str, Any]) -> str:
    engine = known["engine"]
    if engine is None:
        return f"{known['overhead_s'] * 1e3:.2f} ms a stage beside kernels"
    factors = ", ".join(f"{group} x{factor:.2f}" for group, factor in engine["factors"].items())
    costs = ", ".join(f"{engine[f'{name}_s'] * 1e6:,.0f} us a {name}" for name in ("chunk", "decode", "token"))
    return f"{engine['rows']} whole iterations: {factors}; {engine['iteration_s'] * 1e3:.2f} ms each, {costs}"


def _sources(origin: Mapping[str, Any]) -> list[str]:
    measurements = origin.get("measurements", [])
    listed = measurements if isinstance(measurements, list) else [measurements]
    return [str(entry.get("source", entry)) for entry in listed]


def _errors(errors: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    table = new_table("Errors on held-out rows of the source, %", "op", "rows", "median", "P90", "by time")
    for op, kinds in errors.items():
        for kind, values in kinds.items():
            shares = [f"{100 * values[key]:.2f}" for key in ("median", "p90", "time_weighted")]
            table.add_row(f"{op}, {kind}", f"{int(values['rows']):,}", *shares)
    return table


def _memory(memory: Mapping[str, Any]) -> str:
    weights = ", ".join(f"{size / GIB:.2f}" for size in dict.fromkeys(memory["weight_bytes"]))
    activations = max(memory["activation_bytes"]) / GIB
    return (
        f"memory a GPU: {memory['memory_bytes'] / GIB:.2f} GiB; weights {weights}, activations {activations:.2f}, "
        f"reserve {memory['reserve_bytes'] / GIB:.2f} GiB; {memory['kv_blocks']:,} KV blocks "
        f"= {memory['kv_tokens']:,} tokens; longest request {memory['context_limit']:,}"
    )


def _measured(ranges: Mapping[str, Mapping[str, list[float]] | None], known: Mapping[str, Any]) -> list[str]:
    """Say what each op was measured on: beyond it, times are extrapolated."""
    lines = []
    for op, limits in ranges.items():
        device = known["device"] if op in known["measured"] else known["borrowed"].get(op, known["from"])
        told = [f"{name.replace('_', ' ')} {_span(*span)}" for name, span in (limits or {}).items()]
        lines.append(f"{op.replace('_', ' ')} measured on {device}: {', '.join(told) or 'its fit does not say'}")
    return lines


def _span(least: float, most: float) -> str:
    return _count(least) if least == most else f"{_count(least)} - {_count(most)}"


def _count(value: float) -> str:
    return f"{value:,.7g}" if value < 1e7 else f"{value:.2g}"


def _iterations(rows: list[dict[str, Any]], intervals: bool) -> Table:
    groups = list(rows[0]["parts_s"])
    names = ["batch", "ms", *(["90 % band"] if intervals else []), *groups]
    table = new_table("Iterations (decodes at 1,024 tokens of context), ms", *names)
    for row in rows:
        band = [_band(row["time_s"], row["low_s"], row["high_s"])] if intervals else []
        parts = [f"{row['parts_s'][group] * 1e3:.2f}" for group in groups]
        mark = "" if row["outside"] is None else " *"
        table.add_row(row["batch"] + mark, f"{row['time_s'] * 1e3:.2f}", *band, *parts)
    return table


def _band(time_s: float, low_s: float, high_s: float) -> str:
    return f"{100 * (low_s / time_s - 1):+.0f} {100 * (high_s / time_s - 1):+.0f} %"


def _print_published(console: Console, rows: list[dict[str, Any]]) -> None:
    for source in dict.fromkeys(row["source"] for row in rows):
        table = new_table(f"{source}: predicted / published, ms", "batch", "linear", "attention", "total", "off by")
        for row in rows:
            if row["source"] == source:
                table.add_row(row["batch"], *_beside(row["predicted"], row["published"]))
        console.print(table)
    for line in _effects(rows):
        console.print(line)


def _beside(predicted: Mapping[str, float], published: Mapping[str, float | None]) -> list[str]:
    cells = []
    for key in ("linear_s", "attention_s", "total_s"):
        known = published[key]
        cells.append(f"{predicted[key] * 1e3:.2f} / " + ("-" if known is None else f"{known * 1e3:.2f}"))
    total = published["total_s"]
    return [*cells, "-" if total is None else f"{100 * (predicted['total_s'] / total - 1):+.1f} %"]


def _effects(rows: list[dict[str, Any]]) -> list[str]:
    """Say what the tables show: what a decode costs alone and beside a prefill, and what one token more costs."""
    totals = {row["batch"]: (row["predicted"]["total_s"], row["published"]["total_s"]) for row in rows}
    lines = []
    if {"prefill 1024", "decode 4", "prefill 1021 + decode 3"} <= totals.keys():
        pairs = zip(totals["prefill 1024"], totals["decode 4"], totals["prefill 1021 + decode 3"], strict=True)
        costs = [(alone * 1e3 / 4, (mixed - whole) * 1e3 / 3) for whole, alone, mixed in pairs]
        shown = [f"{alone:.2f} ms alone, {beside:.2f} ms beside a prefill" for alone, beside in costs]
        lines.append(f"a token of decode: predicted {shown[0]}; published {shown[1]}")
    if {"prefill 256", "prefill 257"} <= totals.keys():
        edges = zip(totals["prefill 256"], totals["prefill 257"], strict=True)
        steps = [f"{100 * (longer / shorter - 1):+.0f} %" for shorter, longer in edges]
        lines.append(f"256 -> 257 tokens: predicted {steps[0]}, published {steps[1]}")
    return lines
