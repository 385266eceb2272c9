"""The figure of a search's prediction: every interval as a bar, the measured value as a point in it or beside it."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from simulator.figure_style import GREY, PALETTE, Panel, log_axis, shown, style
from simulator.validation.policy_order import HIGHER
from simulator.validation.policy_validation import JudgedSetting, PolicyValidation, Promise

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, GREEN, AMBER = PALETTE[0], "#0A7A4B", "#D97706"
COLUMNS = 2
BAR, PACED_BAR = 12, 4
ROW_HEIGHT = 26
LOWER_Y = 0.28
"""How far below the bar of the prediction that of the prediction at the machine's pace lies, in rows."""


def interval_panel(validation: PolicyValidation) -> Panel:
    """Return every metric of every setting, predicted and measured."""
    from plotly.subplots import make_subplots

    metrics = list(dict.fromkeys(each.metric for setting in validation.settings for each in setting.promises))
    rows = -(-len(metrics) // COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=COLUMNS,
        subplot_titles=metrics,
        shared_yaxes=True,
        vertical_spacing=0.4 / rows,
        horizontal_spacing=0.04,
    )
    for index, metric in enumerate(metrics):
        _add_metric(figure, validation, metric, index // COLUMNS + 1, index % COLUMNS + 1)
    _add_legend(figure)
    style(figure, height=110 + rows * (72 + ROW_HEIGHT * len(validation.settings)), top=84)
    return Panel(
        name="intervals",
        title="Predicted intervals, and what was measured",
        caption=(
            "A bar is the interval that was predicted, the line across it the predicted value. A thin bar below it is "
            "what would have been predicted for the pace that the machine had. The dot is measured: green within the "
            "predicted interval, amber beyond. Small dots are single replays."
        ),
        figure=figure,
    )


def _add_metric(figure: Figure, validation: PolicyValidation, metric: str, row: int, column: int) -> None:
    here, places = {"row": row, "col": column}, list(range(len(validation.settings)))
    found = [_promise(setting, metric) for setting in validation.settings]
    for place, promise in zip(places, found, strict=True):
        if promise is not None:
            _add_bars(figure, promise, -place, here)
    labels = [shown(setting.label) for setting in validation.settings]
    figure.update_yaxes(tickvals=[-place for place in places], ticktext=labels, tickfont={"size": 11}, **here)
    figure.update_yaxes(range=[-len(places) + 0.3, 0.7], **here)
    if metric not in HIGHER:
        _add_axis(figure, [each for each in found if each is not None], here)


def _promise(setting: JudgedSetting, metric: str) -> Promise | None:
    return next((each for each in setting.promises if each.metric == metric), None)


def _add_bars(figure: Figure, promise: Promise, y: float, here: dict[str, int]) -> None:
    predicted, unit = promise.predicted, "" if promise.metric in HIGHER else " s"
    _add_bar(figure, (predicted.low, predicted.high), y, BAR, 0.35, here)
    if promise.at_pace is not None:
        _add_bar(figure, (promise.at_pace.low, promise.at_pace.high), y - LOWER_Y, PACED_BAR, 0.8, here)
    told = f"predicted {predicted.value:.4g}{unit} [{predicted.low:.4g}, {predicted.high:.4g}]"
    figure.add_scatter(
        x=[predicted.value],
        y=[y],
        mode="markers",
        marker={"symbol": "line-ns", "size": BAR, "line": {"width": 2, "color": BLUE}},
        showlegend=False,
        hovertemplate=f"{told}<extra></extra>",
        **here,
    )
    if not promise.known:
        return
    colour = GREEN if promise.place == "inside" else AMBER
    if len(promise.measured) > 1:
        dots = {"size": 4, "color": colour, "opacity": 0.6}
        figure.add_scatter(
            x=promise.measured, y=[y] * len(promise.measured), mode="markers", marker=dots, showlegend=False, **here
        )
    figure.add_scatter(
        x=[promise.value],
        y=[y],
        mode="markers",
        marker={"size": 9, "color": colour, "line": {"width": 1, "color": "white"}},
        showlegend=False,
        hovertemplate=f"measured {promise.value:.4g}{unit}<br>{told}<extra>{promise.place}</extra>",
        **here,
    )


def _add_bar(
    figure: Figure, ends: tuple[float, float], y: float, width: int, opacity: float, here: dict[str, int]
) -> None:
    figure.add_scatter(
        x=ends,
        y=[y, y],
        mode="lines",
        line={"color": BLUE, "width": width},
        opacity=opacity,
        showlegend=False,
        hoverinfo="skip",
        **here,
    )


def _add_axis(figure: Figure, found: list[Promise], here: dict[str, int]) -> None:
    ends = [end for each in found for end in (each.predicted.low, each.predicted.high, each.value)]
    ends += [end for each in found if each.at_pace for end in (each.at_pace.low, each.at_pace.high)]
    values = np.asarray([end for end in ends if not isnan(end)])
    if len(values) and values.min() > 0:
        log_axis(figure, "x", [values], **here)


def _add_legend(figure: Figure) -> None:
    entries = (
        ("predicted interval", {"symbol": "square", "size": 12, "color": BLUE, "opacity": 0.35}),
        ("at the machine's pace", {"symbol": "line-ew", "size": 12, "line": {"width": PACED_BAR, "color": BLUE}}),
        ("measured, inside", {"symbol": "circle", "size": 9, "color": GREEN}),
        ("measured, beyond", {"symbol": "circle", "size": 9, "color": AMBER}),
    )
    for name, marker in entries:
        figure.add_scatter(x=[None], y=[None], name=name, mode="markers", marker={"color": GREY, **marker})
