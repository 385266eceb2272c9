"""The figure of the error of iteration times as a run goes on: it shows what drifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import GREY, Panel, Stroke, compact, shown, strokes, style
from simulator.validation.judgement import Trial
from simulator.validation.verdict import LIMITS
from traces.workload import FloatColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BINS = 80


def error_panel(trials: Sequence[Trial]) -> Panel:
    """Return the median error of the iterations over the time of each run, one row a load."""
    from plotly.subplots import make_subplots

    loads = list(dict.fromkeys(trial.load for trial in trials))
    figure = make_subplots(
        rows=len(loads),
        cols=1,
        subplot_titles=[f"load {shown(load)}" for load in loads],
        vertical_spacing=0.42 / (len(loads) + 1),
    )
    lines = strokes(dict.fromkeys(trial.policy for trial in trials))
    for row, load in enumerate(loads, 1):
        mine = [trial for trial in trials if trial.load == load]
        far = max(_add_error(figure, trial, lines[trial.policy], row) for trial in mine)
        limit = 100 * LIMITS.iteration
        figure.add_hrect(y0=-limit, y1=limit, fillcolor=GREY, opacity=0.18, line_width=0, row=row, col=1)
        far = max(1.1 * far, 1.5 * limit)
        figure.update_yaxes(range=[-far, far], row=row, col=1)
    figure.update_yaxes(title="error (%)")
    figure.update_xaxes(title="time since the first arrival (s)", row=len(loads), col=1)
    style(figure, height=110 + 230 * len(loads), top=84)
    return Panel(
        name="error",
        title="The error as the run goes on",
        caption=(
            f"Median of predicted / measured - 1 over the iterations of each of {BINS} spans of a run; the band is "
            f"±{100 * LIMITS.iteration:.0f} %. A line that wanders while the batches stay alike shows a machine "
            "that drifts; below 0 the engine was slower than predicted."
        ),
        figure=figure,
    )


def _add_error(figure: Figure, trial: Trial, stroke: Stroke, row: int) -> float:
    """Draw a run; return how far from 0 it goes, in percent."""
    time_s, error = error_over_time(trial)
    figure.add_scatter(
        x=compact(time_s),
        y=compact(100 * error),
        name=shown(trial.policy),
        legendgroup=trial.policy,
        showlegend=row == 1,
        mode="lines+markers",
        line=stroke.line(1.5),
        marker={"size": 3},
        hovertemplate="%{y:+.2f} % at %{x:.4g} s",
        row=row,
        col=1,
    )
    return float(np.abs(100 * error).max(initial=0.0))


def error_over_time(trial: Trial) -> tuple[FloatColumn, FloatColumn]:
    """Return the middle of each span of a run that has iterations, seconds, and their median error there."""
    error = trial.audit.error
    known = ~np.isnan(error)
    begun_s = trial.measured.iterations.start_s - trial.measured.start_s
    edges_s = np.linspace(0.0, max(1e-9, float(begun_s.max(initial=0.0))), BINS + 1)
    span = np.clip(np.searchsorted(edges_s, begun_s, side="right") - 1, 0, BINS - 1)
    filled = np.unique(span[known])
    middles_s = (edges_s[filled] + edges_s[filled + 1]) / 2
    return middles_s, np.array([float(np.median(error[known & (span == each)])) for each in filled])
