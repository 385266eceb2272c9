"""Strokes that the figures of SARATHI have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.figure_style import INK
from simulator.paper.marks import Values

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LABELLED = 1.02
"""Bars from here on are tall enough for a label inside."""


def gains(figure: Figure, x: Sequence[Any], y: Values, colour: Any, **where: Any) -> None:
    """Draw bars from 1x, no gain, to each value, which is written at their feet, or above low ones."""
    tall = [value >= LABELLED for value in y]
    figure.add_bar(
        x=list(x),
        y=[value - 1 for value in y],
        base=1,
        text=[f"{value:.2f}x" for value in y],
        textposition=["inside" if each else "outside" for each in tall],
        insidetextanchor="start",
        textangle=0,
        insidetextfont={"size": 13, "color": "white"},
        outsidetextfont={"size": 12, "color": INK},
        marker={"color": colour},
        **where,
    )


def even_line(figure: Figure) -> None:
    """Draw the baseline's own throughput, 1x."""
    figure.add_hline(y=1.0, line={"color": INK, "width": 1, "dash": "dot"})


def level(figure: Figure, value: float, name: str, position: str = "top right") -> None:
    """Draw one published value, which the paper gives for no one point, across the figure."""
    line, font = {"color": INK, "width": 1.2, "dash": "dash"}, {"size": 12, "color": INK}
    figure.add_hline(y=value, line=line, annotation_text=name, annotation_position=position, annotation_font=font)
