"""Figures of the load: where the time went, what the batches held, queue and KV cache over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import (
    KIND_COLOURS,
    KIND_NAMES,
    PALE,
    STALL_COLOUR,
    Panel,
    compact,
    row_titles,
    shown,
    strokes,
    style,
)
from simulator.time_bins import BINS, TimeBins
from traces.metrics import Metrics
from traces.run_record import RunRecord
from traces.step_function import blocks_in_use, queue_length
from traces.workload import FloatColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Runs = Mapping[str, RunRecord]
DECODE_LINE = "#1F4E79"


def time_share_panel(metrics: Mapping[str, Metrics]) -> Panel:
    """Return the share of stage time that each kind of batch took, one bar a run."""
    from plotly.graph_objects import Figure

    figure = Figure()
    labels = [shown(label) for label in metrics]
    kinds = ["prefill", "mixed", "decode", "idle"]
    kinds += ["down"] if any(each.batch.down_share > 0 for each in metrics.values()) else []
    for kind in kinds:
        shares = [100 * getattr(each.batch, f"{kind}_share") for each in metrics.values()]
        figure.add_bar(
            orientation="h",
            y=labels,
            x=shares,
            name=KIND_NAMES.get(kind, kind),
            marker={"color": KIND_COLOURS.get(kind, STALL_COLOUR if kind == "down" else PALE)},
            text=[f"{share:.0f} %" if share >= 4 else "" for share in shares],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate="%{x:.2f} % of the time<extra>%{y}</extra>",
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="share of the makespan of all stages (%)", range=[0, 100])
    style(figure, height=130 + 42 * len(labels), barmode="stack", bargap=0.3, legend_traceorder="normal")
    return Panel(
        name="time-share",
        title="Where the time went",
        caption=(
            "The stages' time from the first arrival to the last token, by what the batch held. Time in "
            "prefill-only batches is time in which no running sequence gets a token. Idle is time without a "
            f"batch.{' Down is the time of replicas that had failed.' if 'down' in kinds else ''}"
        ),
        figure=figure,
    )


def composition_panel(runs: Runs) -> Panel:
    """Return the mean number of prompt tokens and decodes an iteration over time, one row a run."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=len(runs),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.22 / (len(runs) + 1),
        specs=[[{"secondary_y": True}]] * len(runs),
    )
    bins = TimeBins.of_runs(runs)
    held = {label: _held(run, bins) for label, run in runs.items()}
    for row, (prompts, decodes) in enumerate(held.values(), 1):
        _add_composition(figure, row, bins, prompts, decodes)
    top, cut = _top([prompts + decodes for prompts, decodes in held.values()])
    most_decodes = max(float(decodes.max()) for _, decodes in held.values())
    figure.update_yaxes(title="tokens", range=[0, top], secondary_y=False)
    right = {"showgrid": False, "tickmode": "auto", "nticks": 5}
    figure.update_yaxes(title="decodes", range=[0, 1.05 * most_decodes], secondary_y=True, **right)
    figure.update_xaxes(range=[0, bins.end_s])
    figure.update_xaxes(title="time since the first arrival (s)", row=len(runs), col=1)
    style(figure, height=120 + 150 * len(runs))
    row_titles(figure, runs, strokes(runs), axes=2)
    return Panel(
        name="composition",
        title="What the batches held",
        caption=(
            "Prompt tokens and decodes of an iteration, the mean over the iterations that started in each of "
            f"{BINS} bins of {float(bins.edges_s[1]):.3g} s, stacked (left axis). The line shows the decodes "
            "alone (right axis): few of them beside a long queue mean that memory or the rule of admission "
            f"keeps batches small.{cut}{bins.cut(runs)}"
        ),
        figure=figure,
    )


def _top(tokens: list[FloatColumn]) -> tuple[float, str]:
    """Upper end of the axis, and what to say where single bins reach beyond it."""
    most = max(float(each.max()) for each in tokens)
    usual = 2.0 * max(float(np.percentile(each, 98)) for each in tokens)
    if most <= usual or usual == 0:
        return 1.05 * max(most, 1.0), ""
    return usual, f" Bins above {usual:,.0f} tokens are cut off there; the highest has {most:,.0f}."


def _held(run: RunRecord, bins: TimeBins) -> tuple[FloatColumn, FloatColumn]:
    """Mean prompt tokens and decodes of the iterations that started in each bin."""
    started_s = run.iterations.start_s - run.start_s
    prompts = bins.mean(started_s, run.iterations.prefill_tokens)
    return np.nan_to_num(prompts), np.nan_to_num(bins.mean(started_s, run.iterations.decodes))


def _add_composition(figure: Figure, row: int, bins: TimeBins, prompts: FloatColumn, decodes: FloatColumn) -> None:
    for name, values, kind in (("decodes", decodes, "decode"), ("prompt tokens", prompts, "prefill")):
        figure.add_scatter(
            x=compact(bins.centres_s),
            y=compact(values),
            name=name,
            legendgroup=name,
            showlegend=row == 1,
            mode="lines",
            stackgroup="batch",
            line={"width": 0.5, "color": KIND_COLOURS[kind]},
            fillcolor=KIND_COLOURS[kind],
            hovertemplate=f"%{{y:.4g}} {name}<extra></extra>",
            row=row,
            col=1,
        )
    figure.add_scatter(
        x=compact(bins.centres_s),
        y=compact(decodes),
        name="decodes (right axis)",
        legendgroup="right",
        showlegend=row == 1,
        mode="lines",
        line={"width": 1.4, "color": DECODE_LINE},
        hoverinfo="skip",
        row=row,
        col=1,
        secondary_y=True,
    )


def queue_panel(runs: Runs) -> Panel:
    """Return queue length and KV use over time, all runs in one plot each."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    lines = strokes(runs)
    bins = TimeBins.of_runs(runs)
    for label, run in runs.items():
        edges_s = bins.edges_s + run.start_s
        series = (queue_length(run).means(edges_s), 100 * blocks_in_use(run).means(edges_s) / run.meta.kv_blocks)
        for row, values in enumerate(series, 1):
            figure.add_scatter(
                x=compact(bins.centres_s),
                y=compact(values),
                name=shown(label),
                legendgroup=label,
                showlegend=row == 1,
                mode="lines",
                line=lines[label].line(1.8),
                hovertemplate="%{y:.4g}" + ("" if row == 1 else " %"),
                row=row,
                col=1,
            )
    figure.update_yaxes(title="requests waiting", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="KV blocks in use (%)", range=[0, 102], row=2, col=1)
    figure.update_xaxes(range=[0, bins.end_s])
    figure.update_xaxes(title="time since the first arrival (s)", row=2, col=1)
    style(figure, height=560, hovermode="x unified")
    return Panel(
        name="queue",
        title="Queue and KV cache",
        caption=(
            f"Means over time in {BINS} bins of {float(bins.edges_s[1]):.3g} s. A queue that grows to the "
            "end says that the policy does not keep up with the arrivals; a full KV cache beside it says "
            f"why. Blocks that are reserved count as in use.{bins.cut(runs)}"
        ),
        figure=figure,
    )
