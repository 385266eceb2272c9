"""Capacity against the limit on the P99 TBT, a field a model: the paper's figure 12."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.figure_style import PALETTE, Panel, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 420
STROKES = (("dot", "triangle-up"), ("dash", "square"), ("solid", "circle"))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Capacities of one setting of a system.

    Attributes
    ----------
    label
        What the legend calls it.
    family, member
        Which system, which gives the colour, and which of its settings, the last of them solid.
    rates_per_s
        One a limit.
    """

    label: str
    family: int
    member: int
    rates_per_s: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One model: limits on the P99 TBT in seconds, and a curve over them a setting."""

    title: str
    limits_s: Sequence[float]
    curves: Sequence[Curve]


def sweep_panel(fields: Sequence[Field]) -> Panel:
    """Return the curves of all models side by side."""
    from plotly.subplots import make_subplots

    titles = [f"<b>{field.title}</b>" for field in fields]
    figure = make_subplots(cols=len(fields), subplot_titles=titles, horizontal_spacing=0.09)
    for col, field in enumerate(fields, 1):
        _add(figure, col, field)
    figure.update_yaxes(title="capacity (requests/s)", col=1)
    figure.update_yaxes(rangemode="tozero")
    style(figure, height=HEIGHT, top=84)
    return Panel(
        name="serving-slo-sweep",
        title="Capacity against the latency target, chat",
        caption=(
            "Highest rate at which the P99 TBT keeps a limit. On the left of each field the three curves of vLLM are "
            "one: stalls behind whole prompts cap it, whatever its batch cap. Sarathi-Serve with a budget of 512 "
            "serves its full rate there; the larger budget needs room for longer iterations, and serves a little more "
            "where it has it."
        ),
        figure=figure,
    )


def _add(figure: Figure, col: int, field: Field) -> None:
    for curve in field.curves:
        dash, symbol = STROKES[curve.member]
        figure.add_scatter(
            x=[1e3 * limit for limit in field.limits_s],
            y=list(curve.rates_per_s),
            name=curve.label,
            legendgroup=curve.label,
            showlegend=col == 1,
            mode="lines+markers",
            line={"color": PALETTE[curve.family], "dash": dash, "width": 2.2},
            marker={"symbol": symbol, "size": 8},
            hovertemplate="%{y:.2f} requests/s within %{x:.0f} ms<extra>" + curve.label + "</extra>",
            row=1,
            col=col,
        )
    figure.update_xaxes(
        title="limit on the P99 TBT (ms)", tickvals=[1e3 * limit for limit in field.limits_s], row=1, col=col
    )
