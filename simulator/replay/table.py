"""A replay on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.provenance import sureness
from simulator.replay.replay import Replay
from simulator.replay.seconds import TITLES
from simulator.scoreboard import three_digits
from traces.command_line import new_table

if TYPE_CHECKING:
    from rich.console import Console


def print_replay(replay: Replay, console: Console) -> None:
    """Print what was simulated, the errors, and the audit; it fits 100 columns."""
    from rich.text import Text

    for line in headlines(replay):
        console.print(Text(line))
    for note, warns in sureness({"simulated": replay.run}):
        console.print(Text(note, style="yellow" if warns else ""))
    table = new_table("", "ms", "real", "simulated", "our error", "published simulator's")
    for row in replay.rows:
        other = "–" if row.other_error is None else percent(row.other_error)
        figures = (f"{1e3 * row.measured_s:,.1f}", f"{1e3 * row.simulated_s:,.1f}")
        table.add_row(" ".join(row.key), *figures, percent(row.error), other, end_section=row.key[1] == "P99")
    console.print(table)
    if replay.audit is not None:
        table = new_table("Second by second", "", "real, mean", "mean deviation")
        for series in replay.audit.series:
            table.add_row(TITLES[series.name], three_digits(series.mean), three_digits(series.deviation))
        console.print(table)
    for caution in replay.cautions:
        console.print(Text(f"! {caution}", style="yellow"))


def headlines(replay: Replay) -> list[str]:
    """Say what ran, with which settings, and how much was preempted."""
    meta, settings, iterations = replay.run.meta, replay.settings, replay.run.iterations
    blocks = "derived from the card's memory" if replay.derived_blocks else "as the run reports"
    return [
        f"{replay.published.model} on {replay.published.hardware}: {len(replay.run.requests)} requests, "
        f"{int(replay.run.requests.prompt_tokens.sum()):,} prompt and "
        f"{int(replay.run.requests.output_tokens.sum()):,} output tokens",
        f"max_num_seqs {settings.max_num_seqs}, max_num_batched_tokens {settings.max_num_batched_tokens}, "
        f"async_scheduling {'on' if settings.async_scheduling else 'off'}, CUDA graphs up to "
        f"{max(settings.cudagraph_capture_sizes, default=0)} tokens",
        f"{meta.kv_blocks:,} KV blocks of {meta.block_size} ({blocks}); "
        f"{int(iterations.preemptions.sum())} preemptions in {len(iterations.end_s):,} iterations",
    ]


def percent(share: float) -> str:
    """Return a signed relative error, ``"+0.8 %"``."""
    return f"{100 * share:+.1f} %"
