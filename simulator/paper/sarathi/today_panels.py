"""Figures of SARATHI on today's devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simulator.figure_style import PALETTE, Panel, style
from simulator.paper import marks
from simulator.paper.sarathi import drawing
from simulator.paper.sarathi.engine import Engine

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ByEngine = Mapping[Engine, Mapping[int, float]]


def speedup_panel(speedups: ByEngine) -> Panel:
    """Return decode speedups over the batch, by device and engine."""
    figure = _lines(speedups)
    marks.ticks_axis(figure, "batch size (requests, log)", (2, 4, 8, 16, 32, 64, 96))
    figure.update_yaxes(title="decode speedup (x)", rangemode="tozero")
    return Panel(
        name="sarathi-today-decodes",
        title="Decodes are still cheaper beside a prefill",
        caption=(
            "LLaMA-13B, 1,024 tokens of context, chunk 256; solid: CUDA graphs, dashed: kernels launched one by one. "
            "The gain falls with the batch on every device, and the newer ones have memory for larger batches."
        ),
        figure=figure,
    )


def chunk_panel(peaks: ByEngine) -> Panel:
    """Return the highest gain of each chunk, by device and engine."""
    figure = _lines(peaks)
    drawing.even_line(figure)
    marks.ticks_axis(figure, "tokens of a chunk (log)", (128, 256, 512, 1024, 2048))
    figure.update_yaxes(title="throughput over the baseline (x)")
    return Panel(
        name="sarathi-today-chunks",
        title="Hopper wants larger chunks than Ampere",
        caption=(
            "LLaMA-13B, 2K tokens a request, batch 10, each chunk at the P:D that suits it best; solid: CUDA graphs, "
            "dashed: kernels launched one by one. Chunks of 256 are best on the A6000 and the A100, of 512 on the "
            "H100 and the H200; launches hardly matter. Whole prompts, at the right end, gain least."
        ),
        figure=figure,
    )


def ratio_panel(curves: Mapping[str, Mapping[int, Mapping[float, float]]], chunks: Sequence[int]) -> Panel:
    """Return the gain over P:D of the best chunk at each, by device."""
    from plotly.graph_objects import Figure

    figure = Figure()
    for (device, by_chunk), colour in zip(curves.items(), PALETTE, strict=False):
        ratios = list(by_chunk[chunks[0]])
        best = [max(by_chunk[chunk][ratio] for chunk in chunks) for ratio in ratios]
        marks.curve(figure, ratios, best, _title(Engine(device=device)), colour)
        figure.data[-1].mode = "lines+markers"
    drawing.even_line(figure)
    style(figure, height=marks.HEIGHT)
    marks.ticks_axis(figure, "P:D (log)", (2, 5, 10, 20, 50, 100, 200))
    figure.update_yaxes(title="throughput over the baseline (x)")
    return Panel(
        name="sarathi-today-ratios",
        title="What is left of the gain, over P:D",
        caption=(
            "LLaMA-13B, 2K tokens a request, batch 10, CUDA graphs, the best of five chunks at each P:D. The gain is "
            "there on every device; where it peaks moves with the chunk that its device wants."
        ),
        figure=figure,
    )


def _lines(values: ByEngine) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    devices = list(dict.fromkeys(engine.device for engine in values))
    for engine, curve in values.items():
        colour, dash = PALETTE[devices.index(engine.device)], "dash" if engine.eager else "solid"
        shown: dict[str, Any] = {"dash": dash, "showlegend": not engine.eager}
        marks.curve(figure, list(curve), list(curve.values()), _title(engine), colour, **shown)
    style(figure, height=marks.HEIGHT)
    return figure


def _title(engine: Engine) -> str:
    return engine.deployment.hardware.title.removeprefix("NVIDIA ")
