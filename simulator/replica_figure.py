"""The figure of how a router spread the load over the replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import Panel, Stroke, compact, shown, strokes, style
from simulator.provenance import group_name
from traces.replica_load import ReplicaLoad, replica_load
from traces.run_record import RunRecord
from traces.workload import FloatColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Runs = Mapping[str, RunRecord]
MOST_BARS = 32
"""Replicas of a run; with more, their distribution is drawn."""
PERCENTS = np.linspace(0, 100, 201)
NAMES = ("requests", "busy time (%)")


def replica_panels(runs: Runs) -> list[Panel]:
    """Return the requests and the busy time of each replica, of the runs that have several; none where no run has."""
    from plotly.subplots import make_subplots

    several = {label: run for label, run in runs.items() if run.meta.replicas > 1}
    if not several:
        return []
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    lines, loads = strokes(runs), {label: replica_load(run) for label, run in several.items()}
    few = max(run.meta.replicas for run in several.values()) <= MOST_BARS
    for label, load in loads.items():
        for column, values in enumerate((load.requests.astype(np.float64), 100 * load.busy_share), 1):
            (_add_bars if few else _add_curve)(figure, column, label, lines[label], values)
    for column, name in enumerate(NAMES, 1):
        figure.update_xaxes(title="replica" if few else f"{name} of a replica", row=1, col=column)
        figure.update_yaxes(title=name if few else "share of replicas (%)", rangemode="tozero", row=1, col=column)
    style(figure, height=380, barmode="group")
    how = "of each replica" if few else "of the replicas: the share of them with at most that many, or that much"
    return [
        Panel(
            name="replicas",
            title="How the load was spread",
            caption=(
                f"Requests and busy time {how}. Busy time is that of all stages, over the makespan less the time that "
                f"the replica was down. {' '.join(_spread(label, run, loads[label]) for label, run in several.items())}"
            ),
            figure=figure,
        )
    ]


def _spread(label: str, run: RunRecord, load: ReplicaLoad) -> str:
    groups = ", then ".join(map(group_name, run.meta.groups))
    order = f" Its replicas are {groups}." if len(run.meta.groups) > 1 else ""
    return f"{label}: {load.requests.min():,} to {load.requests.max():,} requests a replica.{order}"


def _add_bars(figure: Figure, column: int, label: str, stroke: Stroke, values: FloatColumn) -> None:
    figure.add_bar(
        x=np.arange(len(values), dtype=np.int32),
        y=compact(values),
        name=shown(label),
        legendgroup=label,
        showlegend=column == 1,
        marker={"color": stroke.colour},
        hovertemplate="replica %{x}: %{y:.4g}",
        row=1,
        col=column,
    )


def _add_curve(figure: Figure, column: int, label: str, stroke: Stroke, values: FloatColumn) -> None:
    known = values[~np.isnan(values)]
    figure.add_scatter(
        x=compact(np.percentile(known, PERCENTS, method="inverted_cdf")) if len(known) else [],
        y=compact(PERCENTS),
        name=shown(label),
        legendgroup=label,
        showlegend=column == 1,
        mode="lines",
        line={**stroke.line(), "shape": "hv"},
        hovertemplate="%{y:.4g} % up to %{x:.4g}",
        row=1,
        col=column,
    )
