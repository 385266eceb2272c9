"""The figure of Falcon-180B on two nodes: what a decode takes, and what that leaves of the capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulator.figure_style import INK, PALETTE, Panel, style
from simulator.paper.marks import HEIGHT, curve, ticks_axis


def nodes_panel(
    decode_s: Mapping[str, Sequence[float]],
    batches: Sequence[int],
    rates_per_s: Mapping[str, float],
    *,
    published: float,
) -> Panel:
    """Return both.

    Parameters
    ----------
    decode_s
        By deployment, the time of a token at each of ``batches`` sequences.
    rates_per_s
        Two capacities, of which the second is ``published`` times the first in the paper.
    """
    from plotly.subplots import make_subplots

    titles = ["<b>decodes alone</b>", "<b>capacity, P99 TBT ≤ 1 s</b>"]
    figure = make_subplots(cols=2, subplot_titles=titles, column_widths=[0.62, 0.38], horizontal_spacing=0.12)
    for (name, times_s), colour, dash in zip(
        decode_s.items(), (PALETTE[1], PALETTE[0], PALETTE[1]), ("solid", "solid", "dot"), strict=True
    ):
        curve(figure, batches, [1e3 * each for each in times_s], name, colour, dash=dash, row=1, col=1)
    figure.add_bar(
        x=list(rates_per_s),
        y=list(rates_per_s.values()),
        marker={"color": [PALETTE[1], PALETTE[0]]},
        texttemplate="%{y:.2f}",
        textposition="outside",
        showlegend=False,
        row=1,
        col=2,
    )
    first, second = rates_per_s.values()
    figure.add_annotation(
        text=f"{second / first:.1f}x<br><b>published: {published:g}x</b>",
        x=0,
        y=0.72 * second,
        showarrow=False,
        font={"size": 13, "color": INK},
        row=1,
        col=2,
    )
    style(figure, height=HEIGHT, top=84)
    ticks_axis(figure, "sequences that decode", batches, row=1, col=1)
    figure.update_yaxes(title="time of a token (ms)", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="requests/s", range=[0, 1.2 * second], row=1, col=2)
    return Panel(
        name="serving-falcon-nodes",
        title="Across nodes tensor parallelism slows down with the batch, and prompts most of all",
        caption=(
            "Falcon-180B on two nodes of four A100 PCIe, 100 Gbit/s between them. TP8 reads half the weights a "
            "token, but each layer waits for the network: the more tokens a batch holds the longer. Prompts hold "
            "thousands, so that vLLM on TP8 keeps the target at a fraction of what Sarathi-Serve serves on a "
            "pipeline."
        ),
        figure=figure,
    )
