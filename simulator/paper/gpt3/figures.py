"""The figures of GPT-3 on 64 GPUs: bubbles a request, requests done over time, a stretch of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import (
    GREY,
    INK,
    KIND_COLOURS,
    KIND_NAMES,
    PALETTE,
    Panel,
    Stroke,
    compact,
    log_axis,
    row_titles,
    style,
)
from simulator.paper.gpt3.setup import ORCA, SARATHI, TP, bubble_s, completion_s
from simulator.paper.marks import COLOURS, HEIGHT
from traces.run_record import RunRecord
from traces.utilisation import KINDS, iteration_kinds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Runs = Mapping[str, RunRecord]
PERCENTS = np.linspace(0, 100, 201)
STRETCH_S = 1.0
LINES = {
    ORCA: Stroke(colour=COLOURS["orca"], dash="solid"),
    SARATHI: Stroke(colour=COLOURS["sarathi"], dash="solid"),
    TP: Stroke(colour=PALETTE[7], dash="solid"),
}
"""Of the paper's ways to serve."""


def bubble_panel(runs: Runs, published: float) -> Panel:
    """Return the cumulative distribution of the bubble time of a request, one curve a pipelined run; the paper's
    medians lie ``published`` times apart."""
    from plotly.graph_objects import Figure

    figure, medians_s = Figure(), {way: bubble_s(runs[way]) for way in (ORCA, SARATHI)}
    bubbles = {way: runs[way].requests.bubble_s for way in medians_s}
    for way, median_s in medians_s.items():
        times_s = compact(np.percentile(bubbles[way], PERCENTS))
        figure.add_scatter(x=times_s, y=PERCENTS, name=way, mode="lines", line=LINES[way].line(2.5), showlegend=False)
        figure.add_annotation(
            text=f"<b>{way}</b><br>median {median_s:.3g} s",
            x=np.log10(median_s),
            y=50,
            ax=-16 if way == ORCA else 16,
            ay=0,
            xanchor="right" if way == ORCA else "left",
            font={"color": LINES[way].colour},
            showarrow=True,
            arrowcolor=LINES[way].colour,
            bgcolor="white",
        )
    figure.add_hline(y=50, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="bubble time of a request (log scale)")
    log_axis(figure, "x", [np.percentile(each, PERCENTS[1:]) for each in bubbles.values()])
    figure.update_yaxes(title="share of requests (%)", range=[0, 101])
    style(figure, height=HEIGHT, top=24)
    return Panel(
        name="gpt3-bubbles",
        title="Bubble time of a request",
        caption="The bubbles of all stages before each batch that held a request, summed over its batches: SARATHI's "
        f"equal batches leave little of them. The medians lie {medians_s[ORCA] / medians_s[SARATHI]:.1f}x apart, the "
        f"published ones {published:g}x.",
        figure=figure,
    )


def completion_panel(runs: Runs, published: Mapping[str, float]) -> Panel:
    """Return how many requests are done by when, and when the last would be by the ratios published.

    ``published`` are completion times over that of SARATHI, by way.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    for way, run in runs.items():
        done_s = np.sort(run.requests.finished_s)
        counts = np.linspace(0, len(done_s), 201)
        times_s = compact(np.interp(counts, np.arange(len(done_s) + 1), np.append(0.0, done_s)))
        figure.add_scatter(x=times_s, y=counts, name=way, mode="lines", line=LINES[way].line(2.5))
    base_s, most = completion_s(runs[SARATHI]), len(runs[SARATHI].requests)
    figure.add_scatter(
        x=[base_s * ratio for ratio in published.values()],
        y=[most] * len(published),
        name="published",
        mode="markers+text",
        text=[f"{ratio:g}x" for ratio in published.values()],
        textposition="top center",
        textfont={"color": INK, "size": 12},
        marker={
            "symbol": "diamond-open",
            "size": 12,
            "line": {"width": 2.2},
            "color": [LINES[way].colour for way in published],
        },
    )
    last_s = max(completion_s(run) for run in runs.values())
    figure.update_xaxes(title="time (s)", range=[0, 1.03 * last_s])
    figure.update_yaxes(title="requests done", range=[0, 1.16 * most])
    style(figure, height=HEIGHT)
    return Panel(
        name="gpt3-completion",
        title="Requests done over time",
        caption="Same 64 GPUs, same requests, all there at the start: the pipeline is the slowest way under Orca and "
        "the fastest under SARATHI. Open diamonds: where the curve of that colour would end if it took the published "
        "multiple of SARATHI's time.",
        figure=figure,
    )


def timeline_panel(runs: Runs) -> Panel:
    """Return a second from the middle of both pipelined runs: what each stage does when."""
    from plotly.subplots import make_subplots

    shown = {way: runs[way] for way in (ORCA, SARATHI)}
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.16, shared_xaxes=True)
    for row, run in enumerate(shown.values(), 1):
        _add_stretch(figure, run, row)
        stages = run.iterations.stage_time_s.shape[1]
        figure.update_yaxes(
            tickvals=[0, stages - 1], ticktext=["stage 1", f"stage {stages}"], range=[stages - 0.4, -0.6], row=row
        )
        figure.update_xaxes(range=[0, STRETCH_S], row=row)
    figure.update_xaxes(title="time from the middle of the run (s)", row=2)
    style(figure, height=HEIGHT, barmode="overlay", bargap=0.15)
    row_titles(figure, shown, LINES)
    return Panel(
        name="gpt3-timeline",
        title="The pipeline for a second",
        caption="Each block is a batch on a stage, white is a bubble. Under Orca one whole prompt holds up, stage "
        "after stage, the short decode batches behind it; under SARATHI all batches take about the same time.",
        figure=figure,
    )


def _add_stretch(figure: Figure, run: RunRecord, row: int) -> None:
    """Draw the batches that overlap the stretch in the middle of a run."""
    batches, begin_s = run.iterations, completion_s(run) / 2
    inside = np.flatnonzero((batches.end_s > begin_s) & (batches.start_s < begin_s + STRETCH_S))
    kinds, stages = iteration_kinds(batches)[inside], np.arange(batches.stage_time_s.shape[1])
    for kind, name in enumerate(KINDS):
        rows = inside[kinds == kind]
        if len(rows):
            figure.add_bar(
                orientation="h",
                y=np.repeat(stages, len(rows)),
                base=(batches.stage_start_s[rows] - begin_s).T.ravel(),
                x=batches.stage_time_s[rows].T.ravel(),
                name=KIND_NAMES[name],
                legendgroup=name,
                showlegend=all(trace.legendgroup != name for trace in figure.data),
                marker={"color": KIND_COLOURS[name], "line": {"color": "white", "width": 0.5}},
                row=row,
                col=1,
            )
