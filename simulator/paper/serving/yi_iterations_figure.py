"""The figure of Yi-34B's iterations: theirs as points, kernels alone and with what was added as curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiler.aggregates import Aggregates
from profiler.published import CONTEXT
from simulator.figure_style import PALETTE, Panel, style
from simulator.paper.marks import HEIGHT, curve, published, ticks_axis
from simulator.paper.serving.authors_engine import curve_of, told
from simulator.paper.serving.yi_models import Models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PREFILLS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
DECODES = (1, 2, 4, 8, 16, 32, 64, 128)


def iterations_panel(models: Models) -> Panel:
    """Return prefills over their tokens, and decodes over their number."""
    from plotly.subplots import make_subplots

    titles = ["<b>prefill of one prompt</b>", f"<b>decodes at {CONTEXT:,} tokens of context</b>"]
    figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.1)
    lines = (
        ("kernels alone (ours)", models.plain, PALETTE[0], "solid"),
        ("+ their base iteration", models.base, PALETTE[1], "dash"),
        ("+ their prefill attention", models.both, PALETTE[2], "dot"),
    )
    for name, model, colour, dash in lines:
        prefills = [1e3 * model.iteration_time(Aggregates.of(tokens)) for tokens in PREFILLS]
        curve(figure, PREFILLS, prefills, name, colour, dash=dash, row=1, col=1)
        if model is not models.both:
            times = [1e3 * model.iteration_time(Aggregates.of(decodes=count, context=CONTEXT)) for count in DECODES]
            curve(figure, DECODES, times, name, colour, dash=dash, row=1, col=2, showlegend=False)
    for col, rows in enumerate((curve_of(decodes=False), curve_of(decodes=True)), 1):
        x = [row.batch.decodes or row.batch.prefill_tokens for row in rows]
        published(figure, x, [1e3 * row.total_s for row in rows], row=1, col=col)
    _axes(figure)
    return Panel(
        name="serving-yi-iterations",
        title="Yi-34B: the authors' iterations are kernels, a base, and a little for each sequence",
        caption=(
            "Yi-34B, TP2 on two A100 PCIe. Left: kernels alone say the time of a prompt up to 4,096 tokens; then the "
            "attention of whole prompts was slower there. Right: a decode takes two to four times as long as its "
            f"kernels, and {told()} is most of that."
        ),
        figure=figure,
    )


def _axes(figure: Figure) -> None:
    style(figure, height=HEIGHT, top=84)
    ticks_axis(figure, "tokens of the prompt", [128, 512, 2048, 8192], row=1, col=1)
    ticks_axis(figure, "decodes of the batch", DECODES, row=1, col=2)
    ticks = [20, 50, 100, 200, 500, 1000, 2000, 5000]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    figure.update_yaxes(title="time of an iteration (ms)", col=1)
