"""Table 4 as bars: what each technique does to the wait for the first token, and to that for the next."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.figure_style import PALETTE, Panel, style
from simulator.paper.marks import published
from simulator.paper.serving.ablation_table import HYBRID, METRICS, POLICIES, PUBLISHED, Cell
from simulator.paper.serving.setup import DATASETS, TITLES

HEIGHT = 560


def ablation_panel(ours: Mapping[Cell, float], smaller: Mapping[Cell, float], *, budgets: tuple[int, int]) -> Panel:
    """Return both metrics on both datasets, with two token budgets."""
    from plotly.subplots import make_subplots

    titles = [f"<b>{TITLES[dataset]}</b>" for dataset in DATASETS]
    figure = make_subplots(rows=2, cols=2, column_titles=titles, vertical_spacing=0.1, horizontal_spacing=0.08)
    names = list(POLICIES.values())
    for (row, metric), (col, dataset) in [
        (one, other) for one in enumerate(METRICS, 1) for other in enumerate(DATASETS, 1)
    ]:
        cells = [Cell(dataset, policy, metric) for policy in POLICIES]
        for values, budget, colour in zip((ours, smaller), budgets, (PALETTE[0], PALETTE[5]), strict=True):
            figure.add_bar(
                x=names,
                y=[values[cell] if cell.policy != HYBRID or values is ours else None for cell in cells],
                name=f"budget of {budget:,}",
                legendgroup=str(budget),
                showlegend=row == col == 1,
                marker={"color": colour},
                texttemplate="%{y:.2f}",
                textposition="auto",
                insidetextanchor="start",
                textangle=0,
                cliponaxis=False,
                row=row,
                col=col,
            )
        published(figure, names, [PUBLISHED[cell] for cell in cells], row=row, col=col)
        most = max(max(PUBLISHED[cell] for cell in cells), *(max(ours[cell], smaller[cell]) for cell in cells))
        figure.update_yaxes(range=[0, 1.18 * most], row=row, col=col)
    for row, title in enumerate(METRICS.values(), 1):
        figure.update_yaxes(title=f"{title} (s)", row=row, col=1)
    style(figure, height=HEIGHT, top=84, barmode="group", bargap=0.3, bargroupgap=0.06)
    return Panel(
        name="serving-ablation",
        title="Chunks bound the gaps between tokens, hybrid batches keep prompts from waiting; it takes both",
        caption=(
            "Yi-34B, TP2 on two A100 PCIe; hybrid batches alone have no budget. Without chunks a token waits for whole "
            "prompts; with chunks alone a prompt waits for turns of decodes. The published P99 TBT "
            "with chunks fit the budget of the artifact's script better than the one that the paper names."
        ),
        figure=figure,
    )
