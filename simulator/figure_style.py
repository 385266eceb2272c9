"""How the figures of the report look: colours that also the colour-blind tell apart, fonts, axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#AA3377", "#E69F00", "#56B4E9", "#7F3C8D", "#4D4D4D")
DASHES = ("solid", "dash", "dot", "dashdot")
KIND_COLOURS = {"prefill": "#EE7733", "mixed": "#8E6BBF", "decode": "#9CC5E0"}
KIND_NAMES = {"prefill": "prefill only", "mixed": "prefill and decodes", "decode": "decodes only"}
STALL_COLOUR = "#B00020"
GREY, PALE, INK = "#8A94A0", "#E4E8EC", "#1B232C"
LEGEND_LINE, LEGEND_WIDTH = 20, 960
FONT = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A figure of the report, with its title and a caption that says what to see."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """The line of one run, the same in every figure."""

    colour: str
    dash: str

    def line(self, width: float = 2.0) -> dict[str, Any]:
        """Return the plotly line."""
        return {"color": self.colour, "dash": self.dash, "width": width}


def strokes(labels: Iterable[str]) -> dict[str, Stroke]:
    """Return a line for each run: eight colours, then the same ones dashed."""
    return {
        label: Stroke(colour=PALETTE[index % len(PALETTE)], dash=DASHES[index // len(PALETTE) % len(DASHES)])
        for index, label in enumerate(labels)
    }


def shown(label: str) -> str:
    """Return a label for plotly, which reads some HTML."""
    return escape(label, quote=False)


def compact(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return values in single precision: half the bytes, and more digits than a screen shows."""
    return np.asarray(values, dtype=np.float32)


def style(figure: Figure, *, height: int, top: int = 56, **layout: Any) -> Figure:
    """Give a figure the report's fonts, margins, grid and a legend above it, which adds to ``height``."""
    more = LEGEND_LINE * (_legend_lines(figure) - 1)
    figure.update_layout(
        height=height + more,
        margin={"l": 72, "r": 24, "t": top + more, "b": 52},
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"font": {"family": FONT, "size": 12}},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 1.0,
            "yanchor": "top",
            "x": 0,
            "xanchor": "left",
            "font": {"size": 13},
        },
    )
    figure.update_layout(**layout)
    axis = {
        "gridcolor": PALE,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": GREY,
        "ticklen": 4,
        "zeroline": False,
        "exponentformat": "none",
        "separatethousands": True,
        "automargin": True,
        "title": {"font": {"size": 13}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def log_axis(figure: Figure, axis: str, values: Iterable[npt.NDArray[np.floating]], **where: int) -> None:
    """Make an axis of seconds logarithmic, with ticks as people say times: 20 ms, 0.5 s.

    ``axis`` is "x" or "y"; it spans ``values``, float64 [samples] each; ``where`` picks the subplot.
    """
    known = [each[np.isfinite(each) & (each > 0)] for each in values]
    known = [each for each in known if len(each)]
    low = 0.85 * min((float(each.min()) for each in known), default=0.1)
    high = 1.18 * max((float(each.max()) for each in known), default=1.0)
    decades = np.log10(high / low) + (1.0 if axis == "y" else 0.0)
    steps = (1, 2, 5) if decades < 2.5 else (1, 3) if decades < 4.0 else (1,)
    ticks = [step * 10.0**power for power in range(-9, 9) for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    span = [float(np.log10(low)), float(np.log10(high))]
    update(type="log", range=span, tickvals=ticks, ticktext=[_time(tick) for tick in ticks], **where)


def _time(time_s: float) -> str:
    for unit_s, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if time_s >= 0.99 * unit_s:
            return f"{time_s / unit_s:,.0f} {unit}"
    return f"{time_s * 1e9:,.0f} ns"


def _legend_lines(figure: Figure) -> int:
    """Lines that the legend takes on a page of the usual width."""
    names = [trace.name or "" for trace in figure.data if trace.showlegend is not False]
    return 1 + int(sum(8 * len(name) + 50 for name in names) / LEGEND_WIDTH)


def row_titles(figure: Figure, labels: Iterable[str], lines: dict[str, Stroke], *, axes: int = 1) -> None:
    """Write each run's name at the top left of its row of a figure with one row, ``axes`` y axes, a run."""
    for row, label in enumerate(labels):
        suffix, y_suffix = (str(row + 1), str(axes * row + 1)) if row else ("", "")
        figure.add_annotation(
            text=f"<b>{shown(label)}</b>",
            font={"color": lines[label].colour, "size": 13},
            x=0,
            xref=f"x{suffix} domain",
            xanchor="left",
            y=1.0,
            yref=f"y{y_suffix} domain",
            yanchor="bottom",
            showarrow=False,
        )
