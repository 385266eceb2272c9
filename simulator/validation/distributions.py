"""The figure of whole distributions: TBT and end-to-end latency, measured and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import Panel, Stroke, compact, log_axis, shown, strokes, style
from simulator.validation.judgement import Trial
from traces.metrics import Latencies
from traces.percentiles import counted_percentiles
from traces.run_columns import RunRecord, SmallColumn
from traces.workload import FloatColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PERCENTS = np.unique(np.concatenate([np.linspace(0, 99, 100), np.linspace(99, 100, 21)]))
SHOWN = ("TBT", "End-to-end latency")


def distribution_panel(trials: Sequence[Trial]) -> Panel:
    """Return the cumulative distributions of each load: measured solid, predicted dashed."""
    from plotly.subplots import make_subplots

    loads = list(dict.fromkeys(trial.load for trial in trials))
    titles = [f"{name}, load {shown(load)}" for load in loads for name in SHOWN]
    rows = len(loads)
    figure = make_subplots(rows=rows, cols=2, subplot_titles=titles, vertical_spacing=0.28 / rows)
    lines = strokes(dict.fromkeys(trial.policy for trial in trials))
    for row, load in enumerate(loads, 1):
        mine = [trial for trial in trials if trial.load == load]
        for column, name in enumerate(SHOWN, 1):
            _add_curves(figure, mine, name, lines, row, column)
    figure.update_yaxes(title="share of samples (%)", col=1)
    figure.update_yaxes(range=[0, 101])
    style(figure, height=110 + 330 * rows, top=84)
    return Panel(
        name="distributions",
        title="Whole distributions",
        caption=(
            "The share of tokens (of requests, end to end) with at most that latency, on a log scale: measured solid, "
            "predicted dashed. Click a name to hide it."
        ),
        figure=figure,
    )


def _add_curves(
    figure: Figure, trials: Sequence[Trial], name: str, lines: dict[str, Stroke], row: int, column: int
) -> None:
    first = row == column == 1
    seen = []
    for trial in trials:
        for run, dash, what in ((trial.measured, "solid", "measured"), (trial.simulated, "dash", "predicted")):
            values, counts = _samples(run, name)
            if not len(values):
                continue
            seen.append(values)
            figure.add_scatter(
                x=compact(counted_percentiles(values, counts, PERCENTS)),
                y=compact(PERCENTS),
                name=f"{shown(trial.policy)}, {what}",
                legendgroup=f"{trial.policy} {what}",
                showlegend=first,
                mode="lines",
                line={"color": lines[trial.policy].colour, "dash": dash, "width": 2 if dash == "solid" else 1.8},
                hovertemplate="%{y:.4g} % up to %{x:.4g} s",
                row=row,
                col=column,
            )
    log_axis(figure, "x", seen, row=row, col=column)


def _samples(run: RunRecord, name: str) -> tuple[FloatColumn, SmallColumn]:
    if name == "TBT":
        return run.iterations.gap_s, run.iterations.gap_count
    known = Latencies.of(run.requests).end_to_end_s
    known = known[~np.isnan(known)]
    return known, np.ones(len(known), np.int32)
