"""The figures of GPT-3 on 64 GPUs of today."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.figure_style import Panel, strokes, style
from simulator.paper.marks import HEIGHT


def ways_panel(times_s: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]) -> Panel:
    """Return the completion times of all ways on all devices (``times_s[device][way]``), one group of bars a device."""
    from plotly.graph_objects import Figure

    figure = Figure()
    for way in next(iter(times_s.values())):
        values = [each[way] for each in times_s.values()]
        figure.add_bar(
            x=list(times_s),
            y=values,
            name=way,
            marker={"color": colours[way]},
            text=[f"{value:,.0f}" for value in values],
            textposition="outside",
            textfont={"size": 11},
        )
    figure.update_yaxes(title="time until all are done (s)", rangemode="tozero")
    style(figure, height=HEIGHT, barmode="group", bargap=0.2, bargroupgap=0.06)
    return Panel(
        name="gpt3-today-ways",
        title="The same requests on 64 GPUs, then and now",
        caption="Lower is better. " + "; ".join(_fastest(device, each) for device, each in times_s.items()) + ".",
        figure=figure,
    )


def _fastest(device: str, times_s: Mapping[str, float]) -> str:
    first, second = sorted(times_s, key=times_s.__getitem__)[:2]
    return f"{device}: fastest is {first}, then {second} ({times_s[second] / times_s[first]:.2f} times as long)"


def chunk_panel(times_s: Mapping[str, Mapping[int, float]]) -> Panel:
    """Return the completion time by the tokens of a batch (``times_s[device][tokens]``), one curve a device."""
    from plotly.graph_objects import Figure

    figure, lines = Figure(), strokes(times_s)
    for device, by_tokens in times_s.items():
        least_s = min(by_tokens.values())
        figure.add_scatter(
            x=list(by_tokens),
            y=[time_s / least_s for time_s in by_tokens.values()],
            name=device,
            mode="lines+markers",
            line=lines[device].line(2.5),
            marker={"size": 8},
        )
    best = ", ".join(f"{device} {min(each, key=each.__getitem__)}" for device, each in times_s.items())
    tokens = list(next(iter(times_s.values())))
    labels = [f"{each:,}" for each in tokens[:-1]] + [f"{tokens[-1]:,}<br>(Orca's best case)"]
    figure.update_xaxes(title="tokens of a batch (log scale)", type="log", tickvals=tokens, ticktext=labels)
    figure.update_yaxes(title="completion time over that of the best chunk", rangemode="tozero")
    style(figure, height=HEIGHT)
    return Panel(
        name="gpt3-today-chunks",
        title="Which chunk the pipeline wants",
        caption=f"Beyond the best chunk ({best}) batches differ more and more: bubbles cost more than larger products "
        "save, up to Orca's best case, which runs prompts whole.",
        figure=figure,
    )
