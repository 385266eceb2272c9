"""Strokes that the figures of SARATHI have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.figure_style import INK, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 480
PUBLISHED = "published"
LABELLED = 1.02
"""Bars from here on are tall enough for a label."""
Values = Sequence[float]


def curve(figure: Figure, x: Values, y: Values, name: str, colour: str, *, dash: str = "solid", **where: Any) -> None:
    """Draw a curve of ours; ``where`` are further arguments of plotly, such as ``row`` and ``col``."""
    line = {"color": colour, "dash": dash, "width": 2.5}
    figure.add_scatter(x=list(x), y=list(y), name=shown(name), mode="lines", line=line, **where)


def gains(figure: Figure, x: Sequence[Any], y: Values, colour: Any, **where: Any) -> None:
    """Draw bars from 1x, no gain, to each value, which is written at their feet."""
    figure.add_bar(
        x=list(x),
        y=[value - 1 for value in y],
        base=1,
        text=[f"{value:.2f}x" if value >= LABELLED else "" for value in y],
        textposition="inside",
        insidetextanchor="start",
        textangle=0,
        textfont={"size": 13, "color": "white"},
        marker={"color": colour},
        **where,
    )


def published(figure: Figure, x: Sequence[Any], y: Values, *, texts: Sequence[str] = (), **where: Any) -> None:
    """Draw what the paper prints as open markers, with ``texts`` at their right; once a figure in the legend."""
    known = any(trace.name == PUBLISHED for trace in figure.data)
    figure.add_scatter(
        x=list(x),
        y=list(y),
        name=PUBLISHED,
        legendgroup=PUBLISHED,
        showlegend=not known,
        mode="markers+text" if texts else "markers",
        text=list(texts),
        textposition="middle right",
        textfont={"size": 12, "color": INK},
        marker={"symbol": "diamond-open", "size": 12, "color": INK, "line": {"width": 2.2}},
        **where,
    )


def ratio_axis(figure: Figure, title: str, ticks: Values) -> None:
    """Make the x axis logarithmic, with plain numbers at ``ticks``."""
    figure.update_xaxes(type="log", title=title, tickvals=list(ticks), ticktext=[f"{tick:g}" for tick in ticks])


def even_line(figure: Figure) -> None:
    """Draw the baseline's own throughput, 1x."""
    figure.add_hline(y=1.0, line={"color": INK, "width": 1, "dash": "dot"})


def level(figure: Figure, value: float, name: str, position: str = "top right") -> None:
    """Draw one published value, which the paper gives for no one point, across the figure."""
    line, font = {"color": INK, "width": 1.2, "dash": "dash"}, {"size": 12, "color": INK}
    figure.add_hline(y=value, line=line, annotation_text=name, annotation_position=position, annotation_font=font)
