"""The gain over the ratio of prompt to output tokens (section 5.1.3, figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiler.cost_model import CostModel
from simulator.figure_style import PALETTE, Panel, style
from simulator.paper import marks
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI, Change, Experiment, Finding, Findings, Table
from simulator.paper.sarathi import drawing
from simulator.paper.sarathi.engine import Engine
from simulator.paper.sarathi.offline import Load, baseline, sarathi, tokens_per_s
from simulator.paper.sarathi.published_linears import WHAT, PublishedLinears
from simulator.paper.sarathi.speedup import LARGEST
from simulator.trials.plan import Plan

SOURCE = "section 5.1.3, figure 9"
CHUNKS = (128, 256, 512)
RATIOS = (1.0, 200.0)
POINTS = 18
NEAR = (0.82, 0.88, 0.94, 1.0, 1.06)
"""Ratios about the expected peak, as shares of it, at which there are more points."""
PEAKS = {(1024, 256): 14.0, (1024, 512): 28.0}
"""Where section 5.1.3 puts the peak, by length and chunk."""
GAINS = {(1024, 256): 1.27, (1024, 512): 1.23}
Curve = Mapping[float, float]
"""Gain over the baseline by P:D, ascending."""
Curves = Mapping[tuple[int, int], Curve]
"""By length and chunk."""


def expected_peak(chunk: int, seats: int) -> float:
    """Return the P:D at which prompts have as many chunks as their outputs need iterations: the paper's C/(B-1)."""
    return chunk / (seats - 1)


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Simulate every length, chunk and ratio."""
    yield from ()
    engine = Engine()
    ours = {length: curves(engine.costs, length) for length in LARGEST}
    both = {(length, chunk): curve for length, own in ours.items() for chunk, curve in own.items()}
    return Findings(
        findings=(*(_place(both, *key) for key in _judged()), *(_gain(both, *key) for key in GAINS)),
        panels=(_panel(both),),
        stands_on=(basis(engine.deployment),),
        changes=tuple(_with_their_linears(*key) for key in GAINS),
        tables=(_table(both),),
        notes=(
            "The chunk gives way to the decodes beside it (section 4.4), so prompts need a few more of them than P/C: "
            "the peak lies at (C-B+1)/(B-1), a little below C/(B-1). The curves have teeth where a prompt needs one "
            "chunk more.",
            "With chunks of 128 the paper gains much less than with 256 and 512, here as much as with 256: its "
            "iteration of 128 tokens took longer (tile-quantisation). With its linear layers 128 gains "
            f"{_highest_with_theirs(1024, CHUNKS[0]):.2f}x at 1K.",
        ),
    )


def curves(costs: CostModel, length: int) -> dict[int, Curve]:
    """Return the gain over P:D of each chunk, for the largest batch at this length."""
    seats = LARGEST[length]
    wide = {Load.at(float(ratio), length=length, seats=seats) for ratio in np.geomspace(*RATIOS, POINTS)}
    return gains(costs, CHUNKS, sorted(wide.union(*(_near(chunk, length) for chunk in CHUNKS)), key=_ratio))


def gains(costs: CostModel, chunks: Sequence[int], loads: Sequence[Load]) -> dict[int, Curve]:
    """Return the gain over the baseline by P:D, in order of ``loads``, of each chunk."""
    base = {load: tokens_per_s(costs, load, baseline(load)) for load in loads}
    return {
        chunk: {load.ratio: tokens_per_s(costs, load, sarathi(load, chunk)) / base[load] for load in loads}
        for chunk in chunks
    }


def _near(chunk: int, length: int) -> list[Load]:
    """Return loads about the one where chunks and decodes balance, and that one."""
    seats = LARGEST[length]
    about = [Load.at(expected_peak(chunk, seats) * share, length=length, seats=seats) for share in NEAR]
    return [Load.balanced(chunk, length=length, seats=seats), *about]


def _ratio(load: Load) -> float:
    return load.ratio


def _with_their_linears(length: int, chunk: int) -> Change:
    """Return the gain at the peak with the paper's linear layers."""
    return Change(finding=_gain_name(length, chunk), what=WHAT, ours=_highest_with_theirs(length, chunk))


def _highest_with_theirs(length: int, chunk: int) -> float:
    (curve,) = gains(PublishedLinears(), [chunk], _near(chunk, length)).values()
    return max(curve.values())


def peak(curve: Curve) -> float:
    """Return the ratio with the highest gain."""
    return max(curve, key=lambda ratio: curve[ratio])


def _judged() -> list[tuple[int, int]]:
    return [(length, chunk) for length in LARGEST for chunk in CHUNKS if chunk != CHUNKS[0]]


def _place(curves: Curves, length: int, chunk: int) -> Finding:
    printed = PEAKS.get((length, chunk))
    return Finding(
        name=f"P:D at the peak, {length // 1024}K, chunk {chunk}",
        published=round(expected_peak(chunk, LARGEST[length]), 1) if printed is None else printed,
        ours=peak(curves[length, chunk]),
        unit="",
        source=SOURCE if printed is not None else "section 5.1.3, C/(B-1)",
        headline=printed is not None,
    )


def _gain_name(length: int, chunk: int) -> str:
    return f"gain at the peak, {length // 1024}K, chunk {chunk}"


def _gain(curves: Curves, length: int, chunk: int) -> Finding:
    return Finding(
        name=_gain_name(length, chunk),
        published=GAINS[length, chunk],
        ours=max(curves[length, chunk].values()),
        unit="x",
        source=SOURCE,
    )


def _table(curves: Curves) -> Table:
    rows = [
        (
            f"{length // 1024}K",
            str(LARGEST[length]),
            str(chunk),
            f"{expected_peak(chunk, LARGEST[length]):.1f}",
            f"{peak(curve):.1f}",
            f"{max(curve.values()):.3f}",
        )
        for (length, chunk), curve in curves.items()
    ]
    head = ("length", "batch", "chunk", "C/(B-1)", "P:D at the peak", "gain there")
    return Table(title="Peaks", head=head, rows=tuple(rows))


def _panel(curves: Curves) -> Panel:
    from plotly.subplots import make_subplots

    titles = [f"<b>{length // 1024}K tokens, batch {batch}</b>" for length, batch in LARGEST.items()]
    figure = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles)
    for (length, chunk), curve in curves.items():
        column, colour = list(LARGEST).index(length) + 1, PALETTE[CHUNKS.index(chunk)]
        shared: dict[str, Any] = {"showlegend": column == 1, "row": 1, "col": column}
        marks.curve(figure, list(curve), list(curve.values()), f"chunk {chunk}", colour, **shared)
        line = {"color": colour, "width": 1.2, "dash": "dot"}
        figure.add_vline(x=expected_peak(chunk, LARGEST[length]), line=line, row=1, col=column)
    marks.published(figure, list(PEAKS.values()), list(GAINS.values()), row=1, col=1)
    drawing.even_line(figure)
    style(figure, height=marks.HEIGHT, top=80)
    marks.ticks_axis(figure, "P:D (log)", (1, 2, 5, 10, 20, 50, 100, 200))
    figure.update_yaxes(range=[0.65, 1.35])
    figure.update_yaxes(title="throughput over the baseline (x)", row=1, col=1)
    return Panel(
        name="sarathi-pd-ratio",
        title="The gain peaks where chunks and decodes balance",
        caption=(
            "LLaMA-13B on one A6000. The peak lies where a prompt has as many chunks as its output needs iterations; "
            "the dotted lines are the paper's C/(B-1). Left of it prefills run out, right of it decodes do, and small "
            "chunks then only make prefills slower."
        ),
        figure=figure,
    )


EXPERIMENT = Experiment(
    name="pd-ratio",
    title="The gain over P:D",
    paper=SARATHI,
    shows="The gain peaks at P:D = C/(B-1): 1.27x at 14 with chunk 256, 1.23x at 28 with chunk 512.",
    about_s=5,
    plan=plan,
)
