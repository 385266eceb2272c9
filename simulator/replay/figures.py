"""The figures of a replay: whole distributions, and the engine's state over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import PALETTE, Panel, compact, style
from simulator.replay.replay import Replay
from simulator.replay.seconds import TITLES, Audit
from traces.workload import FloatColumn

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LINES = {"real": {"color": PALETTE[0], "width": 2}, "simulated": {"color": PALETTE[1], "width": 1.8, "dash": "dash"}}
PERCENTS = np.linspace(0, 100, 201)
NAMES = {"TTFT": "time to first token", "TPOT": "time per output token", "Latency": "end-to-end latency"}


def panels(replay: Replay) -> list[Panel]:
    """Return the figures in the order in which the report shows them."""
    return [distribution_panel(replay), *([] if replay.audit is None else [seconds_panel(replay.audit)])]


def distribution_panel(replay: Replay) -> Panel:
    """Return the cumulative distributions of the three latencies, real and simulated."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(NAMES), subplot_titles=[f"{name} (s)" for name in NAMES.values()])
    for name, latencies in (("real", replay.measured.named()), ("simulated", replay.simulated.named())):
        for column, metric in enumerate(NAMES, 1):
            shares = np.percentile(latencies[metric], PERCENTS) if len(latencies[metric]) else np.zeros(0)
            _add_line(figure, name, (1, column), shares, PERCENTS, "%{y:.1f} % up to %{x:.4g} s")
    figure.update_yaxes(title="share of requests (%)", range=[0, 101], col=1)
    style(figure, height=430, top=84)
    caption = "The share of requests with at most that latency: the real engine solid, the simulation dashed."
    return Panel(name="distributions", title="Latencies", caption=caption, figure=figure)


def seconds_panel(audit: Audit) -> Panel:
    """Return each quantity at every second, real and simulated."""
    from plotly.subplots import make_subplots

    count = len(audit.series)
    titles = [TITLES[series.name] for series in audit.series]
    figure = make_subplots(rows=count, cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.22 / count)
    for row, series in enumerate(audit.series, 1):
        for name, values in (("real", series.measured), ("simulated", series.simulated)):
            _add_line(figure, name, (row, 1), audit.at_s, values, "%{y:.4g} at %{x:.0f} s")
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(title="seconds since the run began", row=count, col=1)
    style(figure, height=90 + 190 * count, top=84)
    caption = "What the engine reported every second, and what the simulation has at that moment."
    return Panel(name="seconds", title="Second by second", caption=caption, figure=figure)


def _add_line(figure: Figure, name: str, place: tuple[int, int], x: FloatColumn, y: FloatColumn, hover: str) -> None:
    """Add the real or the simulated line of the panel at (row, column); the first panel's stand in the legend."""
    figure.add_scatter(
        x=compact(x),
        y=compact(y),
        name=name,
        legendgroup=name,
        showlegend=place == (1, 1),
        mode="lines",
        line=LINES[name],
        hovertemplate=hover + "<extra>%{fullData.name}</extra>",
        row=place[0],
        col=place[1],
    )
