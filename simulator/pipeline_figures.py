"""Figures of the pipeline: its stages batch by batch, where their time went, and what each request waited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.figure_style import (
    GREY,
    KIND_COLOURS,
    KIND_NAMES,
    PALE,
    PALETTE,
    Panel,
    compact,
    log_axis,
    row_titles,
    shown,
    strokes,
    style,
)
from simulator.pipeline_stretch import Stretch, usual_stretch
from simulator.scoreboard import duration
from traces.metrics import Metrics
from traces.run_record import RunRecord
from traces.utilisation import KINDS, iteration_kinds
from traces.workload import FloatColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Runs = Mapping[str, RunRecord]
PERCENTS = np.linspace(0, 100, 201)
BUSY, BUBBLE = PALETTE[5], PALETTE[1]
STAGE_TIMES = {"busy": BUSY, "bubble": BUBBLE, "idle": PALE}
HOVER = (
    "%{customdata[0]} prompt tokens, %{customdata[1]} decodes<br>%{x:.4g} s from %{base:.4g} s"
    "%{customdata[2]}<extra>%{y}</extra>"
)


def pipeline_panels(runs: Runs, metrics: Mapping[str, Metrics]) -> list[Panel]:
    """Return the figures of the runs with more than one pipeline stage; none where there is no such run."""
    staged = {label: run for label, run in runs.items() if run.meta.stages > 1 and len(run.iterations)}
    if not staged:
        return []
    measured = {label: metrics[label] for label in staged}
    return [pipeline_panel(staged, measured), stage_time_panel(measured), request_bubble_panel(staged)]


def pipeline_panel(runs: Runs, metrics: Mapping[str, Metrics]) -> Panel:
    """Return a stretch of the replica with most bubbles in each run, batch by batch, one row a stage."""
    from plotly.subplots import make_subplots

    replicas = {label: _most_bubbles(metrics[label]) for label in runs}
    stretches = {label: usual_stretch(run, replicas[label]) for label, run in runs.items()}
    stages = [stretch.bubble_s.shape[1] for stretch in stretches.values()]
    figure = make_subplots(rows=len(runs), cols=1, vertical_spacing=0.36 / (len(runs) + 1), row_heights=stages)
    for kind, name in enumerate(KINDS):
        for row, (label, run) in enumerate(runs.items(), 1):
            _add_batches(figure, row, run, stretches[label], kind, name)
    for row, (label, run) in enumerate(runs.items(), 1):
        begin_s = stretches[label].start_s - run.start_s
        figure.update_xaxes(range=[begin_s, begin_s + stretches[label].length_s], row=row, col=1)
        order = [f"stage {stage}" for stage in range(stages[row - 1])][::-1]
        figure.update_yaxes(categoryorder="array", categoryarray=order, range=[-0.6, len(order) - 0.4], row=row, col=1)
    figure.update_xaxes(title="time since the first arrival (s)", row=len(runs), col=1)
    style(figure, height=120 + 30 * sum(stages) + 48 * len(runs), barmode="overlay", bargap=0.25)
    row_titles(figure, runs, strokes(runs))
    return Panel(
        name="pipeline",
        title="The pipeline, stage by stage",
        caption=_pipeline_caption(runs, replicas),
        figure=figure,
    )


def _most_bubbles(metrics: Metrics) -> int:
    """Return the replica of several stages with the most bubbles."""
    sums: dict[int, float] = {}
    for each in metrics.bubbles:
        sums[each.replica] = sums.get(each.replica, 0.0) + each.in_flight_s
    return max(sums, key=lambda replica: sums[replica])


def _add_batches(figure: Figure, row: int, run: RunRecord, stretch: Stretch, kind: int, name: str) -> None:
    mine = iteration_kinds(run.iterations)[stretch.rows] == kind
    rows = stretch.rows[mine]
    if not len(rows):
        return
    names, starts, times, details = [], [], [], []
    for stage in range(stretch.bubble_s.shape[1]):
        names += [f"stage {stage}"] * len(rows)
        starts.append(run.iterations.stage_start_s[rows, stage] - run.start_s)
        times.append(run.iterations.stage_time_s[rows, stage])
        prompts, decodes = run.iterations.prefill_tokens[rows], run.iterations.decodes[rows]
        before = _before(stretch, np.flatnonzero(mine), stage)
        details += list(zip(prompts.tolist(), decodes.tolist(), before, strict=True))
    figure.add_bar(
        orientation="h",
        y=names,
        base=np.concatenate(starts),
        x=np.concatenate(times),
        customdata=details,
        name=KIND_NAMES[name],
        legendgroup=name,
        showlegend=all(trace.legendgroup != name for trace in figure.data),
        marker={"color": KIND_COLOURS[name], "line": {"color": "white", "width": 0.6}},
        hovertemplate=HOVER,
        row=row,
        col=1,
    )


def _before(stretch: Stretch, batches: npt.NDArray[np.intp], stage: int) -> list[str]:
    """Say of each batch how it came to a stage, and how long that had waited for it."""
    texts = []
    for batch in batches.tolist():
        wait_s, bubble_s = float(stretch.wait_s[batch, stage]), float(stretch.bubble_s[batch, stage])
        queued = " and its turn" if stretch.queued[batch, stage] else ""
        came = f"<br>handed over{queued} after {duration(wait_s)}" if stage else ""
        texts.append(came + (f"<br>bubble before it: {duration(bubble_s)}" if bubble_s > 0 else ""))
    return texts


def _pipeline_caption(runs: Runs, replicas: Mapping[str, int]) -> str:
    many = [f"{label}: replica {replicas[label]}" for label, run in runs.items() if run.meta.replicas > 1]
    where = f" (of the replica with the most, {', '.join(many)})" if many else ""
    return (
        f"The stretch of each run in which its bubbles are nearest to their mean{where}, as long as 16 of its batches: "
        "mind the scales. A batch passes the stages from top to bottom. A gap in a row is a bubble, time in which that "
        "stage waits while a batch is in flight elsewhere, or, where all rows have it, time with nothing to run. Hover "
        "over a batch to see what it held, how long its hand-off from the stage before took, and the bubble before it."
    )


def stage_time_panel(metrics: Mapping[str, Metrics]) -> Panel:
    """Return the share of busy, bubble and idle time of each stage, one bar a run and stage."""
    from plotly.graph_objects import Figure

    figure = Figure()
    names, shares = _stage_shares(metrics)
    for kind, colour in STAGE_TIMES.items():
        figure.add_bar(
            orientation="h",
            y=names,
            x=shares[kind],
            name=kind,
            marker={"color": colour},
            text=[f"{share:.0f} %" if share >= 4 else "" for share in shares[kind]],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"{kind} for %{{x:.2f}} % of the time<extra>%{{y}}</extra>",
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="share of the makespan (%)", range=[0, 100])
    style(figure, height=130 + 26 * len(names), barmode="stack", bargap=0.2, legend_traceorder="normal")
    return Panel(
        name="stage-time",
        title="Where each stage's time went",
        caption=(
            "From the first arrival to the last token, of all replicas with several stages that ran anything: busy "
            "with a batch; in a bubble, waiting while a batch was in flight on other stages or between them; idle, "
            "with none in flight. Bubbles come from batches of unequal times in a row, and from too few batches to "
            "fill the stages."
        ),
        figure=figure,
    )


def _stage_shares(metrics: Mapping[str, Metrics]) -> tuple[list[str], dict[str, list[float]]]:
    """Return the rows of the figure, and the share of each kind of time in each, in per cent."""
    names: list[str] = []
    shares: dict[str, list[float]] = {kind: [] for kind in STAGE_TIMES}
    for label, measured in metrics.items():
        pipelined = {each.replica for each in measured.bubbles if each.stage > 0}
        stages = [each for each in measured.bubbles if each.replica in pipelined]
        for stage in sorted({each.stage for each in stages}):
            mine = [each for each in stages if each.stage == stage]
            whole_s = measured.makespan_s * len(mine) or 1.0
            busy = 100 * sum(each.busy_s for each in mine) / whole_s
            bubble = 100 * sum(each.in_flight_s for each in mine) / whole_s
            names.append(f"{shown(label)} · stage {stage}")
            for kind, share in zip(STAGE_TIMES, (busy, bubble, max(0.0, 100 - busy - bubble)), strict=True):
                shares[kind].append(share)
    return names, shares


def request_bubble_panel(runs: Runs) -> Panel:
    """Return the cumulative distribution of the bubble time of a request, one curve a run."""
    from plotly.graph_objects import Figure

    figure = Figure()
    lines = strokes(runs)
    known = {label: run.requests.bubble_s[~np.isnan(run.requests.finished_s)] for label, run in runs.items()}
    for label, bubble_s in known.items():
        figure.add_scatter(
            x=compact(np.percentile(bubble_s, PERCENTS)) if len(bubble_s) else [None],
            y=compact(PERCENTS),
            name=shown(label),
            line=lines[label].line(),
            mode="lines",
            hovertemplate="%{y:.4g} % up to %{x:.4g} s",
        )
    figure.add_hline(y=50, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="bubble time of a request (log scale)")
    log_axis(figure, "x", list(known.values()))
    figure.update_yaxes(title="share of requests (%)", range=[0, 101])
    style(figure, height=400)
    return Panel(
        name="request-bubbles",
        title="Bubble time of a request",
        caption=_bubble_caption(known),
        figure=figure,
    )


def _bubble_caption(known: Mapping[str, FloatColumn]) -> str:
    medians = ", ".join(f"{label} {duration(float(np.median(each)))}" for label, each in known.items() if len(each))
    return (
        "The share of requests with at most that bubble time: the bubbles of all stages before each batch that held "
        "the request, summed over its batches (SARATHI, section 5.3). Further left is better. The dotted line is at "
        f"the median: {medians}."
    )
