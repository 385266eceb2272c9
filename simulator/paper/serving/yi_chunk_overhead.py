"""What chunks add to the prefill of a prompt: Yi-34B, TP2 on two A100 PCIe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel
from simulator.figure_style import INK, PALETTE, Panel, style
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI_SERVE, Change, Experiment, Finding, Findings, Table
from simulator.paper.marks import HEIGHT, curve, published, ticks_axis
from simulator.paper.serving.authors_engine import told
from simulator.paper.serving.setup import YI_34B
from simulator.paper.serving.yi_models import Models
from simulator.trials.plan import Plan

PROMPTS = (2047, 4095, 8191, 16_383)
CHUNKS = (512, 1024, 2048, 4096)
PUBLISHED = {
    512: (1.1522, 1.1889, 1.1165, 0.9951),
    1024: (1.1746, 1.2022, 1.1095, 0.9609),
    2048: (0.9989, 1.0238, 0.9368, 0.8052),
}
"""Time of a prompt of :data:`PROMPTS` tokens in chunks over its time whole: the artifact's chunking-overhead.csv."""
MOST = 1.25
"""Section 5.4.1: what chunks of 512 tokens cost at most."""
REASON = (
    "Cut into chunks their longest prompts got faster, which no work does by being cut: whole, their attention was "
    "slow (see yi-iterations)."
)
Prefill = Callable[[int, int], float]
"""Seconds of a prompt of so many tokens in chunks of so many."""


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Predict prompts whole and in chunks."""
    yield from ()
    models = Models.load()
    ours = _in_chunks(models.plain, models.plain)
    changed = {
        told(): _in_chunks(models.base, models.base),
        models.slow: _in_chunks(models.attention, models.plain),
        "both": _in_chunks(models.both, models.base),
    }
    most = max(_overhead(ours, prompt, CHUNKS[0]) for prompt in PROMPTS)
    findings = (
        Finding(name="chunks of 512, at most", published=MOST, ours=most, unit="x", source="section 5.4.1"),
        *(_finding(chunk, place, ours) for chunk in PUBLISHED for place in range(len(PROMPTS))),
    )
    return Findings(
        findings=findings,
        panels=(_panel(ours, changed["both"]),),
        stands_on=(basis(YI_34B.deployment),),
        changes=tuple(
            Change(finding=_name(chunk, prompt), what=what, ours=_overhead(prefill, prompt, chunk))
            for chunk, each in PUBLISHED.items()
            for prompt, theirs in zip(PROMPTS, each, strict=True)
            if _judged(chunk, prompt, theirs, ours).missed
            for what, prefill in changed.items()
        ),
        tables=(_table(ours),),
        notes=(
            "The artifact's requests hold one output token, so that prompts are one short of 2,048, 4,096 and so on.",
        ),
    )


def _in_chunks(whole: CostModel, chunked: CostModel) -> Prefill:
    """Return times where prompts that run whole cost what ``whole`` says, chunks what ``chunked`` does."""

    def time_s(prompt: int, chunk: int) -> float:
        if chunk >= prompt:
            return whole.iteration_time(Aggregates.of(prompt))
        starts = range(0, prompt, chunk)
        return sum(chunked.iteration_time(Aggregates.of(min(chunk, prompt - past), past=past)) for past in starts)

    return time_s


def _overhead(prefill: Prefill, prompt: int, chunk: int) -> float:
    return prefill(prompt, chunk) / prefill(prompt, prompt)


def _name(chunk: int, prompt: int) -> str:
    return f"chunks of {chunk:,}, prompt of {prompt:,}"


def _judged(chunk: int, prompt: int, theirs: float, ours: Prefill) -> Finding:
    return Finding(
        name=_name(chunk, prompt),
        published=theirs,
        ours=_overhead(ours, prompt, chunk),
        unit="x",
        source="artifact, figure 9",
    )


def _finding(chunk: int, place: int, ours: Prefill) -> Finding:
    prompt, theirs = PROMPTS[place], PUBLISHED[chunk][place]
    found = _judged(chunk, prompt, theirs, ours)
    if not found.missed:
        return found
    return replace(found, cause="their attention of whole prompts was slow", reason=REASON)


def _table(ours: Prefill) -> Table:
    rows = [
        (
            f"{prompt:,}",
            f"{1e3 * ours(prompt, prompt):,.0f}",
            *(f"{_overhead(ours, prompt, chunk):.3f}" for chunk in CHUNKS),
        )
        for prompt in PROMPTS
    ]
    head = ("prompt", "whole (ms)", *(f"chunks of {chunk:,}" for chunk in CHUNKS))
    return Table(title="Time of a prompt over its time whole, ours", head=head, rows=tuple(rows))


def _panel(ours: Prefill, theirs: Prefill) -> Panel:
    from plotly.subplots import make_subplots

    titles = [f"<b>chunks of {chunk:,}</b>" for chunk in PUBLISHED]
    figure = make_subplots(cols=len(PUBLISHED), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.04)
    lines = (
        ("ours", ours, PALETTE[0], "solid"),
        ("with their base iteration and attention", theirs, PALETTE[1], "dash"),
    )
    for col, (chunk, points) in enumerate(PUBLISHED.items(), 1):
        for name, prefill, colour, dash in lines:
            times = [_overhead(prefill, prompt, chunk) for prompt in PROMPTS]
            curve(figure, PROMPTS, times, name, colour, dash=dash, row=1, col=col, showlegend=col == 1)
        published(figure, PROMPTS, points, row=1, col=col)
    style(figure, height=HEIGHT, top=84)
    ticks_axis(figure, "tokens of the prompt", [2048, 4096, 8192, 16_384])
    figure.add_hline(y=1.0, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_yaxes(tickformat=".1f")
    figure.update_yaxes(title="time in chunks over time whole", col=1)
    return Panel(
        name="serving-yi-chunk-overhead",
        title="Chunks of 512 tokens cost a prefill up to a quarter, of 2,048 next to nothing",
        caption=(
            "Yi-34B, TP2 on two A100 PCIe. Small chunks use the GPUs less, and read the weights more often. The "
            "published points sink below one for long prompts, since whole ones were slow there; the dashed curve "
            "takes that over from the artifact's other times."
        ),
        figure=figure,
    )


EXPERIMENT = Experiment(
    name="yi-chunk-overhead",
    title="What chunks cost a prefill of Yi-34B",
    paper=SARATHI_SERVE,
    shows="Chunks of 512 tokens make a prefill at most 25 % slower, chunks of 2,048 hardly at all.",
    about_s=1,
    plan=plan,
)
