"""Figures of the latencies: their distributions, and the gaps between tokens over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import (
    GREY,
    STALL_COLOUR,
    Panel,
    Stroke,
    compact,
    log_axis,
    row_titles,
    shown,
    strokes,
    style,
)
from simulator.time_bins import BINS, TimeBins
from traces.metrics import Latencies
from traces.percentiles import counted_percentiles
from traces.run_columns import RunRecord, SmallColumn
from traces.stalls import find_stalls, stall_threshold
from traces.workload import FloatColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Runs = Mapping[str, RunRecord]
Samples = tuple[FloatColumn, SmallColumn]
"""Values, and how often each occurred."""
PERCENTS = np.unique(np.concatenate([np.linspace(0, 99, 199), np.linspace(99, 100, 51)]))
WIDE = 8.0
MOST_STALLS = 250
NOWHERE = [None]
"""A point that is not drawn, so that the legend has an entry also where the first run has no stall."""
LATENCIES = (
    ("TTFT", "ttft_s"),
    ("TBT", "tbt_s"),
    ("TPOT", "tpot_s"),
    ("End-to-end latency", "end_to_end_s"),
)


def latency_panel(runs: Runs) -> Panel:
    """Return the cumulative distributions of TTFT, TBT, TPOT and end-to-end latency."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=2, subplot_titles=[name for name, _ in LATENCIES], vertical_spacing=0.16)
    lines = strokes(runs)
    samples = {label: _samples(run) for label, run in runs.items()}
    for index, (name, key) in enumerate(LATENCIES):
        curves = {label: samples[label][key] for label in runs if len(samples[label][key][0])}
        _add_curves(figure, index, name, curves, lines)
    figure.update_yaxes(title="share of samples (%)", col=1)
    style(figure, height=760, top=84)
    return Panel(
        name="latency",
        title="Latency distributions",
        caption=(
            "The share of requests (of tokens, for TBT) with at most that latency; further left is better. "
            "The dotted line is P99. TBT is every gap between two tokens of a request: a curve that bends to "
            "the right near the top makes some tokens wait. Each curve is drawn through 249 percentiles, one "
            "every half percent, and above P99 every fiftieth of a percent. Click a name to hide it."
        ),
        figure=figure,
    )


def _add_curves(
    figure: Figure, index: int, name: str, curves: Mapping[str, Samples], lines: Mapping[str, Stroke]
) -> None:
    """Draw one of the four distributions; in seconds on a logarithmic axis where the runs lie far apart."""
    row, column = index // 2 + 1, index % 2 + 1
    values = [each for each, _ in curves.values()]
    log = name == "TBT" or _is_wide(values)
    unit = "s" if log or any(float(each.max()) > 2 for each in values) else "ms"
    for label, curve in curves.items():
        _add_curve(figure, row, column, label, lines[label], curve, unit)
    figure.update_xaxes(title=f"{name} ({'log scale' if log else unit})", row=row, col=column)
    if log:
        log_axis(figure, "x", values, row=row, col=column)
    figure.update_yaxes(range=[0, 101], row=row, col=column)
    figure.add_hline(y=99, line={"color": GREY, "width": 1, "dash": "dot"}, row=row, col=column)


def _samples(run: RunRecord) -> dict[str, Samples]:
    latencies = Latencies.of(run.requests)
    samples = {"tbt_s": (run.iterations.gap_s, run.iterations.gap_count)}
    for _, key in LATENCIES:
        if key != "tbt_s":
            known = getattr(latencies, key)
            known = known[~np.isnan(known)]
            samples[key] = known, np.ones(len(known), np.int32)
    return samples


def _is_wide(samples: list[FloatColumn]) -> bool:
    """Whether the middle of the slowest run lies far beyond the middle of the fastest, all above 0."""
    middles = [float(np.median(values)) for values in samples if values.min() > 0]
    return len(middles) == len(samples) > 0 and max(middles) > WIDE * min(middles)


def _add_curve(figure: Figure, row: int, column: int, label: str, stroke: Stroke, samples: Samples, unit: str) -> None:
    figure.add_scatter(
        x=compact(counted_percentiles(*samples, PERCENTS) * (1 if unit == "s" else 1e3)),
        y=compact(PERCENTS),
        name=shown(label),
        legendgroup=label,
        showlegend=row == column == 1,
        line=stroke.line(),
        mode="lines",
        hovertemplate=f"%{{y:.4g}} % up to %{{x:.4g}} {unit}",
        row=row,
        col=column,
    )


def tbt_panel(runs: Runs) -> Panel:
    """Return the gaps between tokens over time, the generation stalls marked, one row a run."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=len(runs), cols=1, shared_xaxes=True, shared_yaxes="all", vertical_spacing=0.22 / (len(runs) + 1)
    )
    lines = strokes(runs)
    bins = TimeBins.of_runs(runs)
    threshold_s = stall_threshold(runs.values())
    for row, (label, run) in enumerate(runs.items(), 1):
        _add_gaps(figure, row, run, lines[label], bins)
        _add_stalls(figure, row, run, bins.end_s, threshold_s)
    log_axis(figure, "y", [run.iterations.gap_s for run in runs.values()])
    figure.update_yaxes(title="TBT (log)")
    figure.update_xaxes(range=[0, bins.end_s])
    figure.update_xaxes(title="time since the first arrival (s)", row=len(runs), col=1)
    style(figure, height=120 + 170 * len(runs))
    row_titles(figure, runs, lines)
    width_s = float(bins.edges_s[1])
    return Panel(
        name="tbt",
        title="Time between tokens, and generation stalls",
        caption=(
            f"Median, P99 and maximum of the TBT in each of {BINS} bins of {width_s:.3g} s. A red cross is a "
            f"generation stall: running sequences got no token for more than {1e3 * threshold_s:.3g} ms, 4 times the "
            f"median TBT (the median over the runs), while prompts were processed (the longest {MOST_STALLS} of each "
            f"run are drawn). A policy that never stalls has no crosses and a flat maximum.{bins.cut(runs)}"
        ),
        figure=figure,
    )


def _add_gaps(figure: Figure, row: int, run: RunRecord, stroke: Stroke, bins: TimeBins) -> None:
    gaps = run.iterations
    place = np.repeat(bins.place(gaps.end_s - run.start_s), np.diff(gaps.gap_offsets))
    styles = (
        ("maximum", 1.0, {"color": GREY, "width": 1}),
        ("P99", 0.99, stroke.line(1.8)),
        ("median", 0.5, {"color": stroke.colour, "width": 1.2, "dash": "dot"}),
    )
    quantiles = bins.quantiles(place, gaps.gap_s, gaps.gap_count, [share for _, share, _ in styles])
    for (name, _, line), values in zip(styles, quantiles, strict=True):
        figure.add_scatter(
            x=compact(bins.centres_s),
            y=compact(values),
            name=name,
            legendgroup=name,
            showlegend=row == 1,
            mode="lines",
            line=line,
            hovertemplate=f"{name} %{{y:.4g}} s at %{{x:.4g}} s<extra></extra>",
            row=row,
            col=1,
        )


def _add_stalls(figure: Figure, row: int, run: RunRecord, until_s: float, threshold_s: float) -> None:
    stalls = find_stalls(run, threshold_s)
    seen = np.flatnonzero(stalls.end_s - run.start_s <= until_s)
    longest = np.sort(seen[np.argsort(-stalls.length_s[seen], kind="stable")[:MOST_STALLS]])
    details = np.stack([stalls.sequences[longest], stalls.prefill_tokens[longest]], axis=1)
    figure.add_scatter(
        x=compact(stalls.end_s[longest] - run.start_s) if len(longest) else NOWHERE,
        y=compact(stalls.length_s[longest]) if len(longest) else NOWHERE,
        customdata=details.astype(np.int32),
        name="generation stall",
        legendgroup="stall",
        showlegend=row == 1,
        mode="markers",
        marker={"symbol": "x-thin", "size": 7, "line": {"color": STALL_COLOUR, "width": 1.5}},
        hovertemplate=(
            "stall of %{y:.4g} s<br>%{customdata[0]} sequences waited<br>"
            "%{customdata[1]} prompt tokens ran<extra></extra>"
        ),
        row=row,
        col=1,
    )
