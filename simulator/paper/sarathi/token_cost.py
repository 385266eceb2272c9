"""What a token of prefill and one of decode cost in batches of several sizes (section 3.1, figures 3 and 4)."""

from __future__ import annotations

from math import ceil, log10
from pathlib import Path

from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel
from simulator.figure_style import GREY, PALETTE, Panel, style
from simulator.paper import marks
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI, Change, Experiment, Finding, Findings, Table
from simulator.paper.sarathi.decoding import alone_s
from simulator.paper.sarathi.engine import Engine
from simulator.paper.sarathi.published_linears import WHAT, PublishedLinears
from simulator.trials.plan import Plan

LENGTH = 1024
PUBLISHED_RATIOS = {1: 200.0, 2: 100.0, 18: 16.7}
SATURATED = "throughput of a layer's prefill at its peak"
PUBLISHED_PEAK = 180.0
"""Tokens a millisecond, from 512 tokens on; of one layer (table 2: 1,024 tokens in 234.8 ms, in 40 layers)."""
SHARES = {256: 0.875, 512: 1.0}
"""Of the peak's throughput, by tokens of a prefill (section 4.2)."""
BATCHES = tuple(range(1, 19))
LENGTHS = (32, 64, 128, 256, 384, 512, 768, 1024, 2048)


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Predict prefills and decodes of several batches."""
    yield from ()
    engine = Engine()
    costs, theirs = engine.costs, PublishedLinears()
    reason = _reason(theirs)
    return Findings(
        findings=(*(_ratio(batch, costs, reason) for batch in PUBLISHED_RATIOS), *_saturation(engine)),
        panels=(_panel(costs),),
        stands_on=(basis(engine.deployment),),
        changes=tuple(
            Change(finding=_name(batch), what=WHAT, ours=decode_over_prefill(theirs, batch))
            for batch in PUBLISHED_RATIOS
        ),
        tables=(_table(costs),),
        notes=(
            "A prefill is of 1,024 tokens, decodes are at 1,024 tokens of context.",
            "180 tokens/ms is what one layer does: by table 2 all 40 take 234.8 ms for 1,024 tokens, 4.4 tokens/ms.",
        ),
    )


def decode_over_prefill(costs: CostModel, batch: int) -> float:
    """Return what a token of a batch of decodes costs, in tokens of a prefill."""
    return alone_s(costs, batch, LENGTH) / _prefill_s(costs, 1)


def _prefill_s(costs: CostModel, batch: int) -> float:
    """Return the seconds a token of a batch of whole prompts."""
    return costs.iteration_time(Aggregates.of(*[LENGTH] * batch)) / (batch * LENGTH)


def _name(batch: int) -> str:
    return f"decode over prefill, batch {batch}"


def _reason(theirs: CostModel) -> str:
    left = max(abs(decode_over_prefill(theirs, batch) / ratio - 1) for batch, ratio in PUBLISHED_RATIOS.items())
    return (
        "Today's linear layers read weights faster in decodes, and compute slower in this prefill, than those of the "
        f"paper. At the pace of the iterations that it prints all three ratios lie within {ceil(100 * left)} %."
    )


def _ratio(batch: int, costs: CostModel, reason: str) -> Finding:
    return Finding(
        name=_name(batch),
        published=PUBLISHED_RATIOS[batch],
        ours=decode_over_prefill(costs, batch),
        unit="x",
        source="section 3.1, figure 3",
        cause="kernels: the paper's read weights slower",
        reason=reason,
    )


def _saturation(engine: Engine) -> tuple[Finding, ...]:
    costs, layers = engine.costs, engine.deployment.spec.layers
    peak = 1e-3 / _prefill_s(costs, 1)
    return (
        Finding(
            name=SATURATED,
            published=PUBLISHED_PEAK,
            ours=layers * peak,
            unit="tokens/ms",
            source="section 3.1, figure 4",
        ),
        *(
            Finding(
                name=f"throughput of {tokens} tokens over the peak",
                published=share,
                ours=_throughput(costs, tokens) / peak,
                unit="x",
                source="section 4.2",
            )
            for tokens, share in SHARES.items()
        ),
    )


def _throughput(costs: CostModel, tokens: int) -> float:
    """Return tokens a millisecond of one prefill."""
    return tokens / (1e3 * costs.iteration_time(Aggregates.of(tokens)))


def _table(costs: CostModel) -> Table:
    rows = [(f"{tokens:,}", f"{_throughput(costs, tokens):.2f}") for tokens in LENGTHS]
    return Table(title="Prefill saturates from 512 tokens", head=("tokens", "tokens/ms"), rows=tuple(rows))


def _panel(costs: CostModel) -> Panel:
    from plotly.subplots import make_subplots

    titles = ["<b>A token of decode, in tokens of prefill</b>", "<b>Prefill</b>"]
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12, subplot_titles=titles)
    ratios = [decode_over_prefill(costs, batch) for batch in BATCHES]
    marks.curve(figure, BATCHES, ratios, "ours", PALETTE[0], row=1, col=1)
    texts = [f"{ratio:g}x" for ratio in PUBLISHED_RATIOS.values()]
    marks.published(figure, list(PUBLISHED_RATIOS), list(PUBLISHED_RATIOS.values()), texts=texts, row=1, col=1)
    figure.data[-1].textposition = ["middle right", "middle right", "top center"]
    tokens = list(range(16, LENGTHS[-1] + 1, 16))
    throughput = [_throughput(costs, each) for each in tokens]
    marks.curve(figure, tokens, throughput, "ours", PALETTE[0], row=1, col=2, showlegend=False)
    line = {"color": GREY, "width": 1.2, "dash": "dot"}
    figure.add_vline(x=512, line=line, annotation_text=" 512 tokens", annotation_position="bottom right", row=1, col=2)
    style(figure, height=marks.HEIGHT, top=80)
    ticks = [10, 20, 50, 100, 200]
    figure.update_yaxes(type="log", tickvals=ticks, range=[log10(9), log10(260)], row=1, col=1)
    figure.update_yaxes(title="cost over that of a prefill token (x, log)", row=1, col=1)
    figure.update_yaxes(title="throughput (tokens/ms)", rangemode="tozero", row=1, col=2)
    figure.update_xaxes(title="decodes in the batch", tickvals=[1, 2, 4, 6, 8, 10, 12, 14, 16, 18], row=1, col=1)
    figure.update_xaxes(title="tokens of the prefill", tickvals=[256, 512, 1024, 1536, 2048], row=1, col=2)
    return Panel(
        name="sarathi-token-cost",
        title="A token of decode costs as much as a paragraph of prompt",
        caption=(
            "LLaMA-13B on one A6000, 1,024 tokens a request. Left: the weights that are read for a batch of decodes "
            "are shared by few tokens. Right: one prompt of 512 tokens already keeps the device busy; the teeth are "
            "its tiles of 128."
        ),
        figure=figure,
    )


EXPERIMENT = Experiment(
    name="token-cost",
    title="Cost of a token, prefill and decode",
    paper=SARATHI,
    shows="A token of decode costs 200 times one of prefill in a batch of 1, and still 17 times in a batch of 18.",
    about_s=1,
    plan=plan,
)
