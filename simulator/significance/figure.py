"""The figure of the verdicts: differences with their intervals, a line a metric."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import TYPE_CHECKING, Any

from simulator.figure_style import GREY, Panel, shown, strokes, style
from simulator.significance.rows import rows
from simulator.significance.significance import Significance
from simulator.significance.verdict import Verdict

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FAR = tuple(10.0**power * digit for power in range(-4, 4) for digit in (1.0, 2.0, 5.0))
NEAR = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4, 1.6, 2.0)
WIDE = 3.0
"""Ratios beyond this factor get an axis of factors, others one of percentages."""


def significance_panel(significance: Significance) -> Panel:
    """Return the differences of every policy from the baseline, as ratios on a logarithmic axis.

    Full dots: one of the two is better; rings: they cannot be told apart. Metrics that are compared by plain
    differences, for a value of theirs is none, are in the table alone.
    """
    from plotly.graph_objects import Figure

    figure, lines = Figure(), strokes(significance.runs)
    drawn = {
        label: {name: verdict for name, verdict in verdicts.items() if verdict.ratio}
        for label, verdicts in significance.verdicts.items()
    }
    names = list(dict.fromkeys(name for verdicts in drawn.values() for name in verdicts))
    for index, (label, verdicts) in enumerate(drawn.items()):
        shift = 0.5 * ((index + 0.5) / len(drawn) - 0.5)
        texts = {row.name: f"{row.difference} ({row.interval}): {row.verdict}" for row in rows(significance, label)}
        places = {name: -float(names.index(name)) - shift for name in verdicts}
        figure.add_scatter(**_dots(label, verdicts, texts, places, lines[label].colour))
    _frame(figure, names, significance, len(drawn))
    return Panel(
        name="significance",
        title=f"How far the others are from {significance.baseline}",
        caption=(
            f"Each metric as a multiple of that of {significance.baseline}, with the 95 % interval for the difference "
            "on the machine. A full dot: one of the two is better; a ring: they cannot be told apart. Latencies are "
            "better to the left, rates to the right. Between the grey lines values count as equal."
        ),
        figure=figure,
    )


def _dots(
    label: str, verdicts: Mapping[str, Verdict], texts: Mapping[str, str], places: Mapping[str, float], colour: str
) -> dict[str, Any]:
    """Return what draws the verdicts on one policy."""
    middles = [exp(verdict.difference) for verdict in verdicts.values()]
    bars = [(exp(verdict.low), exp(verdict.high)) for verdict in verdicts.values()]
    symbols = ["circle" if verdict.winner else "circle-open" for verdict in verdicts.values()]
    return {
        "x": middles,
        "y": list(places.values()),
        "name": shown(label),
        "mode": "markers",
        "marker": {"color": colour, "size": 9, "symbol": symbols},
        "error_x": {
            "type": "data",
            "array": [high - middle for middle, (_, high) in zip(middles, bars, strict=True)],
            "arrayminus": [middle - low for middle, (low, _) in zip(middles, bars, strict=True)],
            "color": colour,
            "thickness": 2,
            "width": 4,
        },
        "customdata": [[shown(name), shown(texts[name])] for name in verdicts],
        "hovertemplate": "%{customdata[0]} %{customdata[1]}<extra>" + shown(label) + "</extra>",
    }


def _frame(figure: Figure, names: list[str], significance: Significance, policies: int) -> None:
    edge = 1 + significance.least_difference
    for place in (1 / edge, edge):
        figure.add_vline(x=place, line={"color": GREY, "width": 1})
    ticks = _ticks(significance)
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[_tick(tick) for tick in ticks])
    places = [-index for index in range(len(names))]
    figure.update_yaxes(tickvals=places, ticktext=[shown(name) for name in names], range=[0.6 - len(names), 0.6])
    figure.update_layout(showlegend=True)
    style(figure, height=140 + len(names) * (18 + 14 * policies))


def _ticks(significance: Significance) -> tuple[float, ...]:
    every = [verdict for verdicts in significance.verdicts.values() for verdict in verdicts.values() if verdict.ratio]
    farthest = max((max(abs(verdict.low), abs(verdict.high)) for verdict in every), default=0.0)
    return FAR if exp(farthest) > WIDE else NEAR


def _tick(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.0f} %" if 0.5 < ratio < 2 else f"x{ratio:g}"
