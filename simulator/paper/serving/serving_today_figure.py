"""Capacities of five schedulers on three devices, a field a model and a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.figure_style import Panel, style
from simulator.paper.marks import COLOURS

HEIGHT = 560


@dataclass(frozen=True, kw_only=True)
class Group:
    """Capacities on one device within one target, by policy."""

    model: str
    target: str
    device: str
    rates_per_s: Mapping[str, float]


def today_panel(groups: Sequence[Group], names: Mapping[str, str]) -> Panel:
    """Return a field a model (row) and target (column), a group of bars a device."""
    from plotly.subplots import make_subplots

    models = list(dict.fromkeys(group.model for group in groups))
    targets = list(dict.fromkeys(group.target for group in groups))
    titles = [f"<b>{model}, {target}</b>" for model in models for target in targets]
    figure = make_subplots(
        rows=len(models),
        cols=len(targets),
        subplot_titles=titles,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.16,
    )
    for row, model in enumerate(models, 1):
        for col, target in enumerate(targets, 1):
            shown = [group for group in groups if (group.model, group.target) == (model, target)]
            for policy, name in ((each, names[each]) for each in shown[0].rates_per_s):
                rates = [group.rates_per_s[policy] for group in shown]
                figure.add_bar(
                    x=[group.device.removeprefix("NVIDIA ") for group in shown],
                    y=rates,
                    name=name,
                    legendgroup=policy,
                    showlegend=row == col == 1,
                    marker={"color": COLOURS[policy]},
                    text=[f"{rate:.1f}" if rate >= 0.95 else f"{rate:.2f}" for rate in rates],
                    textposition="outside",
                    textangle=0,
                    textfont={"size": 10},
                    cliponaxis=False,
                    hovertemplate="%{y:.3f} requests/s<extra>" + name + "</extra>",
                    row=row,
                    col=col,
                )
        figure.update_yaxes(title="capacity (requests/s)", row=row, col=1)
    style(figure, height=HEIGHT, top=84, barmode="group", bargap=0.2, bargroupgap=0.06)
    return Panel(
        name="serving-today",
        title="Capacity on later devices, chat",
        caption=(
            "Highest rate within targets of 5 (strict) and 25 (relaxed) iterations of 32 decodes at 4,096 tokens of "
            f"context, each device's own. Over vLLM Sarathi-Serve gains {_gains(groups)}. vLLM v1 has one budget "
            "whatever the target, and serves little where the target leaves no room for it; Slack chooses each budget "
            "by it."
        ),
        figure=figure,
    )


def _gains(groups: Sequence[Group]) -> str:
    """Say from where to where the gains over vLLM go, by target."""
    parts = []
    for target in dict.fromkeys(group.target for group in groups):
        rates = [group.rates_per_s for group in groups if group.target == target and group.rates_per_s["vllm"]]
        gains = [each["sarathi-serve"] / each["vllm"] for each in rates]
        parts.append(f"{min(gains):.2f} to {max(gains):.2f} times within the {target} target" if gains else "")
    return " and ".join(part for part in parts if part)
