"""Capacities as grouped bars, a group a latency target, a field a dataset: the paper's figures 10 and 11."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulator.figure_style import INK, Panel, style
from simulator.paper.marks import COLOURS
from simulator.paper.serving.claim import Claim
from simulator.paper.serving.grid import Cell, Grid, gain
from simulator.paper.serving.setup import DATASETS, ORCA, SYSTEMS, TARGETS, TITLES, VLLM, Setup

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 420


def capacity_panel(name: str, setup: Setup, grid: Grid, claims: Sequence[Claim]) -> Panel:
    """Return the capacities of a model, with our gains above Sarathi-Serve's bars and those published of them."""
    from plotly.subplots import make_subplots

    datasets = [dataset for dataset in DATASETS if any(cell.dataset == dataset for cell in grid)]
    titles = [f"<b>{TITLES[dataset]}</b>" for dataset in datasets]
    figure = make_subplots(cols=len(datasets), subplot_titles=titles, horizontal_spacing=0.09)
    for col, dataset in enumerate(datasets, 1):
        _add_bars(figure, col, dataset, grid)
        _add_gains(figure, col, dataset, grid, claims)
        most = max(each.rate_per_s for cell, each in grid.items() if cell.dataset == dataset)
        figure.update_yaxes(range=[0, 1.42 * most], col=col)
    figure.update_yaxes(title="capacity (requests/s)", col=1)
    style(figure, height=HEIGHT, top=68, barmode="group", bargap=0.22, bargroupgap=0.06)
    return Panel(name=name, title=f"Capacity: {setup.title}", caption=_caption(setup), figure=figure)


def _add_bars(figure: Figure, col: int, dataset: str, grid: Grid) -> None:
    for system in SYSTEMS:
        rates = [grid[Cell(dataset, target, system)].rate_per_s for target in TARGETS]
        figure.add_bar(
            x=list(TARGETS),
            y=rates,
            name=TITLES[system],
            legendgroup=system,
            showlegend=col == 1,
            marker={"color": COLOURS[system]},
            text=[f"{rate:.2f}" if rate >= 0.095 else f"{rate:.3f}" for rate in rates],
            textposition="outside",
            textfont={"size": 11},
            cliponaxis=False,
            hovertemplate="%{y:.3f} requests/s<extra>" + TITLES[system] + "</extra>",
            row=1,
            col=col,
        )


def _add_gains(figure: Figure, col: int, dataset: str, grid: Grid, claims: Sequence[Claim]) -> None:
    """Write over each group how many times the others' capacity Sarathi-Serve's is, here and in the paper."""
    for index, target in enumerate(TARGETS):
        ours = ", ".join(f"{gain(grid, dataset, target, over):.2f}x {TITLES[over]}" for over in (ORCA, VLLM))
        known = {claim.over: claim.published for claim in claims if (claim.dataset, claim.target) == (dataset, target)}
        whom = {over: f" {TITLES[over]}" * (len(known) == 1) for over in known}
        printed = ", ".join(f"{ratio:g}x{whom[over]}" for over, ratio in known.items())
        published = f"<br><span style='color:{INK}'><b>published {printed}</b></span>" if printed else ""
        most = max(grid[Cell(dataset, target, system)].rate_per_s for system in SYSTEMS)
        figure.add_annotation(
            text=f"{ours}{published}",
            x=index,
            y=most,
            yshift=20,
            yanchor="bottom",
            showarrow=False,
            font={"size": 12},
            row=1,
            col=col,
        )


def _caption(setup: Setup) -> str:
    strict, relaxed = (1e3 * setup.tbt_s[target] for target in TARGETS)
    return (
        f"Highest rate with a P99 TBT of at most {strict:,.0f} ms (strict) or {relaxed:,.0f} ms (relaxed) and a median "
        "scheduling delay of at most 2 s. Over each group: how many times the capacity of Orca and of vLLM that of "
        "Sarathi-Serve is, published ones in the same order. The tighter the target, the more it gains: the others "
        "miss it long before the device is full."
    )
