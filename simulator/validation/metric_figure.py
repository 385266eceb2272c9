"""The figure of the latencies of every case: two dots on a line, measured and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import GREY, Panel, log_axis, shown, strokes, style
from simulator.validation.agreement import LATENCIES, Case
from simulator.validation.validation import Validation

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN = tuple(f"{name} {word}" for name in LATENCIES for word in ("P50", "P99"))
WIDE = 5.0
"""Latencies that differ by more than this factor are drawn on a logarithmic axis."""
MARKERS = (
    ("measured", {"symbol": "circle", "size": 9}),
    ("predicted", {"symbol": "circle-open", "size": 9, "line": {"width": 2}}),
)


def metric_panel(validation: Validation) -> Panel:
    """Return measured and predicted medians and P99s of every case, two dots on a line each."""
    from plotly.subplots import make_subplots

    rows = len(SHOWN) // 2
    figure = make_subplots(
        rows=rows,
        cols=2,
        subplot_titles=SHOWN,
        shared_yaxes=True,
        vertical_spacing=0.36 / rows,
        horizontal_spacing=0.04,
    )
    for index, metric in enumerate(SHOWN):
        _add_dumbbells(figure, validation, metric, index // 2 + 1, index % 2 + 1)
    for name, marker in MARKERS:
        grey = {**marker, "color": GREY}
        figure.add_scatter(x=[None], y=[None], name=name, mode="markers", marker=grey, row=1, col=1)
    style(figure, height=150 + rows * (80 + 19 * len(validation.cases)), top=84)
    return Panel(
        name="metrics",
        title="Latencies of every case: measured and predicted",
        caption="A full dot is measured, a ring predicted. Where the ring encloses the dot the two agree.",
        figure=figure,
    )


def _add_dumbbells(figure: Figure, validation: Validation, metric: str, row: int, column: int) -> None:
    cases, places = validation.cases, _places(validation.cases)
    scale = _add_axis(figure, cases, metric, row, column)
    lines = strokes(validation.policies)
    for case, place in zip(cases, places, strict=True):
        figure.add_scatter(
            x=[scale * value for value in astuple(case.metrics[metric])],
            y=[place, place],
            mode="lines",
            line={"color": lines[case.policy].colour, "width": 3},
            opacity=0.45,
            showlegend=False,
            hoverinfo="skip",
            row=row,
            col=column,
        )
    for name, marker in MARKERS:
        figure.add_scatter(
            x=[scale * getattr(case.metrics[metric], name) for case in cases],
            y=places,
            mode="markers",
            marker={**marker, "color": [lines[case.policy].colour for case in cases]},
            customdata=[[getattr(case.metrics[metric], name), shown(case.name)] for case in cases],
            showlegend=False,
            hovertemplate=f"{name} %{{customdata[0]:.4g}} s<extra>%{{customdata[1]}}</extra>",
            row=row,
            col=column,
        )
    names = [f"{shown(case.load)} · {shown(case.policy)}" for case in cases]
    figure.update_yaxes(tickvals=places, ticktext=names, tickfont={"size": 11}, row=row, col=column)
    figure.update_yaxes(range=[places[-1] - 0.7, 0.7], row=row, col=column)


def _add_axis(figure: Figure, cases: Sequence[Case], metric: str, row: int, column: int) -> float:
    """Make the x axis, logarithmic where latencies lie far apart; return by what to multiply seconds."""
    values_s = np.array([value for case in cases for value in astuple(case.metrics[metric])])
    values_s = values_s[~np.isnan(values_s)]
    low_s, high_s = float(values_s.min(initial=np.inf)), float(values_s.max(initial=0.0))
    if high_s > WIDE * low_s:
        log_axis(figure, "x", [values_s], row=row, col=column)
        return 1.0
    scale, unit = (1e3, "ms") if high_s < 2 else (1.0, "s")
    figure.update_xaxes(ticksuffix=f" {unit}", nticks=8, row=row, col=column)
    return scale


def _places(cases: Sequence[Case]) -> list[float]:
    """Heights of the cases, the first on top, with a gap between loads."""
    gaps = np.cumsum([0.0] + [0.6 * (one.load != other.load) for one, other in pairwise(cases)])
    return [-float(index + gap) for index, gap in enumerate(gaps)]
