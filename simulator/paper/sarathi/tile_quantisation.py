"""Tile quantisation: one token more than a multiple of the tile costs as much as a tile (section 4.4, figure 7)."""

from __future__ import annotations

from pathlib import Path

from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel
from profiler.published import published_for
from simulator.figure_style import PALETTE, Panel, style
from simulator.paper import marks
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI, Change, Experiment, Finding, Findings
from simulator.paper.sarathi.engine import Engine
from simulator.trials.plan import Plan

SOURCE = "section 4.4, figure 7"
PUBLISHED_MS = {128: 55.0, 256: 69.8, 257: 92.33}
STEP = "step from 256 to 257 tokens"
PUBLISHED_STEP = 1.32
LAST = 1024
"""Tokens up to which the curve goes."""
AS_DECODES = "linear layers as much slower as those of 4 decodes are in table 2"


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Predict prefills of every length."""
    yield from ()
    engine = Engine()
    ours = {tokens: _prefill_ms(engine.costs, tokens) for tokens in PUBLISHED_MS}
    slower = _as_slow_as_decodes(engine.costs, 128)
    left = slower / PUBLISHED_MS[128] - 1
    reasons = {
        128: (
            "Few tokens wait for the weights to be read. In table 2 the paper's linear layers of 4 decodes reach less "
            "of the card's memory bandwidth than today's kernels; with 128 tokens as slow as those it deviates by "
            f"{100 * left:+.0f} %."
        )
    }
    return Findings(
        findings=(
            *(
                Finding(
                    name=_name(tokens),
                    published=theirs,
                    ours=ours[tokens],
                    unit="ms",
                    source=SOURCE,
                    cause="kernels: the paper's read weights slower" if tokens in reasons else "",
                    reason=reasons.get(tokens, ""),
                )
                for tokens, theirs in PUBLISHED_MS.items()
            ),
            Finding(name=STEP, published=PUBLISHED_STEP, ours=ours[257] / ours[256], unit="x", source=SOURCE),
        ),
        panels=(_panel(engine.costs),),
        stands_on=(basis(engine.deployment),),
        changes=(Change(finding=_name(128), what=AS_DECODES, ours=slower),),
    )


def _name(tokens: int) -> str:
    return f"prefill of {tokens} tokens"


def _prefill_ms(costs: CostModel, tokens: int) -> float:
    return 1e3 * costs.iteration_time(Aggregates.of(tokens))


def _as_slow_as_decodes(costs: CostModel, tokens: int) -> float:
    """Return the milliseconds of a prefill whose time but for attention is scaled as table 2's decodes say."""
    (decode,) = (row for row in published_for("llama-13b", "a6000", 1) if row.label == "decode 4")
    parts = costs.breakdown(decode.batch)
    factor = (decode.linear_s or 0.0) / (sum(parts.values()) - parts["decode attention"])
    attention_ms = 1e3 * costs.breakdown(Aggregates.of(tokens))["prefill attention"]
    return attention_ms + factor * (_prefill_ms(costs, tokens) - attention_ms)


def _panel(costs: CostModel) -> Panel:
    from plotly.graph_objects import Figure

    figure = Figure()
    tokens = list(range(1, LAST + 1))
    marks.curve(figure, tokens, [_prefill_ms(costs, each) for each in tokens], "ours", PALETTE[0])
    texts = [f"{each} tokens: {ms:g} ms" for each, ms in PUBLISHED_MS.items()]
    marks.published(figure, list(PUBLISHED_MS), list(PUBLISHED_MS.values()), texts=texts)
    figure.data[-1].textposition = ["bottom right", "bottom right", "top left"]
    style(figure, height=marks.HEIGHT)
    figure.update_xaxes(title="tokens of the prefill", dtick=128, range=[0, LAST + 8])
    figure.update_yaxes(title="time of the iteration (ms)", rangemode="tozero")
    return Panel(
        name="sarathi-tile-quantisation",
        title="One token too many",
        caption=(
            "LLaMA-13B on one A6000. The time goes up in steps: matrix products are cut into tiles, and a batch that "
            "needs part of a row of tiles pays for all of it. So SARATHI makes chunk and decodes together a multiple "
            "of 128 tokens. At 128 tokens ours is the foot of the step, below the published point."
        ),
        figure=figure,
    )


EXPERIMENT = Experiment(
    name="tile-quantisation",
    title="Tile quantisation",
    paper=SARATHI,
    shows="One token more than a multiple of the tile makes an iteration a third longer.",
    about_s=1,
    plan=plan,
)
