"""Figures of a search for capacities: what every trial came to, and the queue at the capacity and beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simulator.capacity.capacity import Capacity
from simulator.capacity.sample import Sample
from simulator.capacity.slo import GOODPUT, Slo
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
from simulator.scoreboard import duration, three_digits

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Capacities = Mapping[str, Capacity]


def panels(capacities: Capacities, slo: Slo) -> list[Panel]:
    """Return the figures of the report."""
    tried = {label: capacity for label, capacity in capacities.items() if capacity.samples}
    return [rate_panel(tried, slo), queue_panel(tried)] if tried else []


def rate_panel(capacities: Capacities, slo: Slo) -> Panel:
    """Return what every trial came to against its rate, a row for each part of the SLO."""
    from plotly.subplots import make_subplots

    first = next(iter(capacities.values())).samples[0]
    parts = slo.measured(first.outcome)
    figure = make_subplots(rows=len(parts), cols=1, shared_xaxes=True, vertical_spacing=0.2 / (len(parts) + 1))
    lines = strokes(capacities)
    for row, (name, (_, limit)) in enumerate(parts.items(), 1):
        for label, capacity in capacities.items():
            _add_trials(figure, row, name, label, capacity, lines[label], slo)
            _add_capacity(figure, row, capacity, lines[label])
        line = {"color": STALL_COLOUR, "width": 1.2, "dash": "dot"}
        figure.add_hline(y=_scaled(name, limit), line=line, row=row, col=1)
        if name != GOODPUT:
            values = [slo.measured(each.outcome)[name][0] for own in capacities.values() for each in own.samples]
            log_axis(figure, "y", [np.asarray([limit, *values])], row=row, col=1)
        title = "requests that miss a target (%)" if name == GOODPUT else f"{name} (log)"
        figure.update_yaxes(title=title, row=row, col=1)
    figure.update_xaxes(type="log")
    figure.update_xaxes(title="requests/s (log)", row=len(parts), col=1)
    style(figure, height=120 + 240 * len(parts))
    return Panel(
        name="rates",
        title="What each rate came to",
        caption=(
            "A point is a simulation, of one seed at one rate: filled where the rate is within the capacity of its "
            "seed, open where it is not. The dotted red line is the limit of the SLO; the vertical line is the "
            "capacity, the band its interval."
        ),
        figure=figure,
    )


def _add_trials(figure: Figure, row: int, name: str, label: str, capacity: Capacity, stroke: Stroke, slo: Slo) -> None:
    samples = sorted(capacity.samples, key=lambda sample: sample.rate_per_s)
    values = [slo.measured(sample.outcome)[name][0] for sample in samples]
    figure.add_scatter(
        x=[sample.rate_per_s for sample in samples],
        y=[_scaled(name, value) for value in values],
        customdata=[
            f"{_shown(name, value)} at {three_digits(sample.rate_per_s)} requests/s<br>"
            f"seed {sample.seed}, {'within' if sample.holds else 'beyond'} the capacity"
            for sample, value in zip(samples, values, strict=True)
        ],
        name=shown(label),
        legendgroup=label,
        showlegend=row == 1,
        mode="markers",
        marker={
            "color": stroke.colour,
            "size": 9,
            "symbol": ["circle" if sample.holds else "circle-open" for sample in samples],
        },
        hovertemplate="%{customdata}<extra></extra>",
        row=row,
        col=1,
    )


def _scaled(name: str, value: float) -> float:
    """Return a value as its axis has it: shares in percent, times in seconds."""
    return 100 * value if name == GOODPUT else value


def _shown(name: str, value: float) -> str:
    return f"{three_digits(100 * value)} %" if name == GOODPUT else duration(value)


def _add_capacity(figure: Figure, row: int, capacity: Capacity, stroke: Stroke) -> None:
    if capacity.unmet or capacity.unlimited or not 0 < capacity.low_per_s <= capacity.high_per_s < float("inf"):
        return
    band = {"fillcolor": stroke.colour, "opacity": 0.12, "line_width": 0}
    figure.add_vrect(x0=capacity.low_per_s, x1=capacity.high_per_s, row=row, col=1, **band)
    figure.add_vline(x=capacity.rate_per_s, line={"color": stroke.colour, "width": 1.5}, row=row, col=1)


def queue_panel(capacities: Capacities) -> Panel:
    """Return the requests in the system over the run, at the capacity and just beyond it, one row a policy."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=len(capacities), cols=1, shared_xaxes=True, vertical_spacing=0.22 / (len(capacities) + 1)
    )
    lines = strokes(capacities)
    for row, (label, capacity) in enumerate(capacities.items(), 1):
        first = capacity.seeds[0]
        for sample, end, line in (
            (first.below, "at the capacity", lines[label].line()),
            (first.above, "beyond it", {"color": GREY, "width": 2, "dash": "dash"}),
        ):
            if sample is not None:
                _add_queue(figure, row, sample, end, line)
    figure.update_yaxes(title="requests", rangemode="tozero")
    figure.update_xaxes(range=[0, 100])
    figure.update_xaxes(title="share of the time in which requests arrived (%)", row=len(capacities), col=1)
    style(figure, height=120 + 170 * len(capacities))
    row_titles(figure, capacities, lines)
    return Panel(
        name="queue",
        title="Does the queue grow?",
        caption=(
            "Requests that had come and not gone, of the first seed, at the highest rate that held and at the lowest "
            "one that failed. After the system has filled up the line is level where it keeps up; where it keeps "
            "rising the system is saturated, whatever latencies a run of this length shows."
        ),
        figure=figure,
    )


def _add_queue(figure: Figure, row: int, sample: Sample, end: str, line: dict[str, object]) -> None:
    windows = len(sample.outcome.present)
    figure.add_scatter(
        x=compact([100 * (place + 1) / windows for place in range(windows)]),
        y=list(sample.outcome.present),
        name=end,
        legendgroup=end,
        showlegend=row == 1,
        mode="lines",
        line=line,
        hovertemplate=f"%{{y}} requests, {three_digits(sample.rate_per_s)}/s<extra>{end}</extra>",
        row=row,
        col=1,
    )
