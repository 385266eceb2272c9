"""Strokes that the figures of experiments have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.figure_style import INK, PALETTE, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 480
COLOURS = {
    "sarathi": PALETTE[0],
    "sarathi-serve": PALETTE[0],
    "vllm": PALETTE[1],
    "orca": PALETTE[2],
    "slack": PALETTE[3],
    "vllm-v1": PALETTE[4],
}
"""Of policies, the same in all figures."""
PUBLISHED = "published"
Values = Sequence[float]


def curve(figure: Figure, x: Values, y: Values, name: str, colour: str, *, dash: str = "solid", **where: Any) -> None:
    """Draw a curve of ours; ``where`` are further arguments of plotly, such as ``row`` and ``col``."""
    line = {"color": colour, "dash": dash, "width": 2.5}
    figure.add_scatter(x=list(x), y=list(y), name=shown(name), mode="lines", line=line, legendgroup=name, **where)


def published(figure: Figure, x: Sequence[Any], y: Values, *, texts: Sequence[str] = (), **where: Any) -> None:
    """Draw what was published as open markers, with ``texts`` at their right; once a figure in the legend."""
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
        marker={"symbol": "diamond-open", "size": 11, "color": INK, "line": {"width": 2.2}},
        **where,
    )


def ticks_axis(figure: Figure, title: str, ticks: Values, **where: Any) -> None:
    """Make the x axis logarithmic, with plain numbers at ``ticks``."""
    texts = [f"{tick:,g}" for tick in ticks]
    figure.update_xaxes(type="log", title=title, tickvals=list(ticks), ticktext=texts, **where)
