"""The figure of single iterations: predicted against measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import GREY, KIND_COLOURS, KIND_NAMES, Panel, compact, log_axis, style
from simulator.validation.audit import kinds
from simulator.validation.judgement import Trial
from simulator.validation.verdict import LIMITS
from traces.utilisation import KINDS
from traces.workload import FloatColumn, IntColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 4000
PALE_GREY = "rgba(138, 148, 160, 0.22)"


def iteration_panel(trials: Sequence[Trial]) -> Panel:
    """Return predicted against measured times of single iterations, by kind of batch, and the limit around them."""
    from plotly.graph_objects import Figure

    figure = Figure()
    measured_s, predicted_s, kind = _points(trials)
    step = max(1, -(-len(kind) // MOST_POINTS))
    _add_band(figure, measured_s)
    for index, name in sorted(enumerate(KINDS), reverse=True):
        mine = np.flatnonzero(kind[::step] == index) * step
        figure.add_scatter(
            x=compact(measured_s[mine]),
            y=compact(predicted_s[mine]),
            name=KIND_NAMES[name],
            mode="markers",
            marker={"color": KIND_COLOURS[name], "size": 5, "opacity": 0.65, "line": {"color": "white", "width": 0.3}},
            hovertemplate="measured %{x:.4g} s<br>predicted %{y:.4g} s<extra>%{fullData.name}</extra>",
        )
    log_axis(figure, "x", [measured_s])
    log_axis(figure, "y", [measured_s, predicted_s])
    figure.update_xaxes(title="measured (log)")
    figure.update_yaxes(title="predicted (log)")
    style(figure, height=560, legend_itemsizing="constant")
    which = f"one in {step} of {len(kind):,} is drawn" if step > 1 else f"{len(kind):,} in all"
    return Panel(
        name="iterations",
        title="Iteration times: predicted against measured",
        caption=(
            f"Each dot is an iteration of the engine ({which}): what it took, and what the cost model gives for the "
            f"very same batch. The band is ±{100 * LIMITS.iteration:.0f} %; a dot under it took longer than predicted."
        ),
        figure=figure,
    )


def _points(trials: Sequence[Trial]) -> tuple[FloatColumn, FloatColumn, IntColumn]:
    """Measured seconds, predicted seconds and kinds of the iterations whose batches are the same."""
    audits = [trial.audit for trial in trials]
    known = ~np.isnan(np.concatenate([audit.error for audit in audits]))
    measured_s = np.concatenate([audit.measured_s for audit in audits])[known]
    predicted_s = np.concatenate([audit.predicted_s for audit in audits])[known]
    return measured_s, predicted_s, np.concatenate([kinds(audit) for audit in audits])[known]


def _add_band(figure: Figure, measured_s: FloatColumn) -> None:
    if not len(measured_s):
        return
    ends = np.array([0.5 * measured_s.min(), 2 * measured_s.max()])
    limit = LIMITS.iteration
    figure.add_scatter(
        x=np.concatenate([ends, ends[::-1]]),
        y=np.concatenate([ends * (1 + limit), ends[::-1] * (1 - limit)]),
        fill="toself",
        fillcolor=PALE_GREY,
        mode="none",
        name=f"±{100 * limit:.0f} %",
        hoverinfo="skip",
    )
    line = {"color": GREY, "width": 1}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip")
