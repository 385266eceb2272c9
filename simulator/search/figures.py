"""The figures of the report of a search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simulator.figure_style import GREY, PALETTE, Panel, log_axis, shown, style
from simulator.search.points import Point, front, points, priced
from simulator.search.search import Found, Task

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")

WIDE = 5.0
"""Costs of which the highest is more than so many times the lowest are drawn on a logarithmic axis."""


def panels(task: Task, found: Found) -> Iterator[Panel]:
    """Yield the Pareto figure, the latencies, and how the rungs sorted candidates out."""
    made = points(task, found)
    cost = "USD for a million output tokens" if priced(task) else "GPUs"
    yield Panel(
        name="pareto",
        title=f"{'Cost' if priced(task) else 'GPUs'} against capacity",
        caption=f"Each point is a candidate at its capacity within {task.slo}. Large points came to the last rung, "
        "on all requests; faint ones were sorted out on fewer. The line joins finalists of which none is both dearer "
        "and slower than another; the star won.",
        figure=_scatter(found, made, cost, "capacity, requests/s", _capacity),
    )
    yield Panel(
        name="latency",
        title=f"{'Cost' if priced(task) else 'GPUs'} against time to first token",
        caption="P99 of TTFT at the highest rate that was seen to keep the SLO.",
        figure=_scatter(found, [each for each in made if _ttft(each) == _ttft(each)], cost, "P99 TTFT", _ttft),
    )
    yield Panel(
        name="rungs",
        title="How candidates were sorted out",
        caption="The capacity that each rung found; a line ends where its candidate was left out. Short runs look "
        "better than long ones, all alike.",
        figure=_ladder(task, found),
    )


def _capacity(point: Point) -> float:
    return point.capacity_per_s


def _ttft(point: Point) -> float:
    return point.estimate.metrics.get("TTFT P99", float("nan"))


def _scatter(found: Found, made: list[Point], x_title: str, y_title: str, value: Any) -> Figure:
    import numpy as np
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    last = len(found.steps)
    if value is _capacity:
        ahead = front(made, last)
        figure.add_trace(
            Scatter(
                x=[point.cost for point in ahead],
                y=[value(point) for point in ahead],
                mode="lines",
                name="front of the finalists",
                line={"color": GREY, "dash": "dot", "shape": "hv"},
                hoverinfo="skip",
            )
        )
    policies = list(dict.fromkeys(point.policy for point in made))
    first = {point.label: point.policy for point in made}.get(found.winner)
    for index, policy in sorted(enumerate(policies), key=lambda each: each[1] == first):  # the star over all others
        own = [point for point in made if point.policy == policy]
        figure.add_trace(
            Scatter(
                x=[point.cost for point in own],
                y=[value(point) for point in own],
                mode="markers",
                name=shown(policy),
                text=[_hover(point) for point in own],
                hovertemplate="%{text}<extra></extra>",
                marker={
                    "color": PALETTE[index % len(PALETTE)],
                    "symbol": [
                        "star" if point.label == found.winner else SYMBOLS[index % len(SYMBOLS)] for point in own
                    ],
                    "size": [16 if point.label == found.winner else 11 if point.rung == last else 7 for point in own],
                    "opacity": [1.0 if point.rung == last else 0.45 for point in own],
                },
            )
        )
    style(figure, height=460, xaxis_title=x_title, yaxis_title=y_title)
    figure.update_yaxes(rangemode="tozero")
    costs = [point.cost for point in made]
    if costs and max(costs) > WIDE * min(costs):
        ticks = [step * 10.0**power for power in range(-6, 7) for step in (1, 2, 5)]
        ticks = [tick for tick in ticks if 0.5 * min(costs) <= tick <= 2 * max(costs)]
        figure.update_xaxes(
            type="log", title_text=f"{x_title} (log)", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
        )
    if value is _ttft:
        log_axis(figure, "y", [np.asarray([value(point) for point in made])])
    return figure


def _hover(point: Point) -> str:
    estimate = point.estimate
    lines = [
        f"<b>{shown(point.label)}</b>",
        f"capacity {estimate.rate_per_s:.3g}/s ({estimate.low_per_s:.3g} to {estimate.high_per_s:.3g}), "
        f"{estimate.requests:,} requests",
        f"beyond it: {shown(estimate.bound_by)}",
    ]
    for name in ("TTFT P99", "TBT P99"):
        if name in estimate.metrics:
            lines.append(f"{name} {1e3 * estimate.metrics[name]:,.0f} ms")
    return "<br>".join(lines)


def _ladder(task: Task, found: Found) -> Figure:
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    policies = list(dict.fromkeys(each.choice.name for each in task.candidates.values()))
    named: set[str] = set()
    for label, candidate in task.candidates.items():
        rates = [step.estimates[label].rate_per_s for step in found.steps if label in step.estimates]
        if not rates:
            continue
        policy, winner = candidate.choice.name, label == found.winner
        figure.add_trace(
            Scatter(
                x=list(range(1, len(rates) + 1)),
                y=rates,
                mode="lines+markers",
                name=shown(policy),
                legendgroup=policy,
                showlegend=policy not in named,
                opacity=1.0 if winner else 0.5,
                line={"color": PALETTE[policies.index(policy) % len(PALETTE)], "width": 4 if winner else 1},
                marker={"size": 9 if winner else 5},
                hovertemplate=f"{shown(label)}<br>%{{y:.3g}} requests/s<extra></extra>",
            )
        )
        named.add(policy)
    ticks = [f"rung {number}<br>{step.rung.requests:,} requests" for number, step in enumerate(found.steps, start=1)]
    style(figure, height=420, yaxis_title="capacity, requests/s")
    figure.update_xaxes(tickvals=list(range(1, len(ticks) + 1)), ticktext=ticks)
    return figure
