"""What a whole prompt beside decodes does to their TBT, and what a chunk of it does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log10
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from simulator.figure_style import GREY, PALETTE, Panel, style
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI_SERVE, Change, Experiment, Finding, Findings, Table
from simulator.paper.marks import HEIGHT, curve, published, ticks_axis
from simulator.paper.serving.authors_engine import explained, told, with_base
from simulator.trials.plan import Plan

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CONTEXTS, DECODES = (1024, 2048, 4096), (1, 32, 64)
"""Of figure 9: tokens of the prompt and of each decode's context, and decodes of the batch."""
LENGTHS = (512, 1024, 2048, 4096, 8192)
MOST = 28.3
"""Section 4.2: how many times as long as decodes alone a batch with a whole prompt takes, at most."""
NAME = "whole prompt beside decodes, at most"
CAUSE = "the link between GPUs, or their engine's cost beside kernels"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model of figure 9, on the machines of section 5 (four A100 PCIe, NVLink between pairs).

    Attributes
    ----------
    title
        The model in words.
    deployment
        Where it runs.
    budget
        Tokens of a batch with a chunk.
    """

    title: str
    deployment: Deployment
    budget: int

    @property
    def costs(self) -> CostModel:
        """What its iterations cost."""
        return load_cost_model(self.deployment)


MISTRAL = Case(
    title="Mistral-7B, one A100",
    deployment=Deployment(model="mistral-7b", device="a100-pcie"),
    budget=256,
)
LLAMA = Case(
    title="LLaMA2-70B, four A100",
    deployment=Deployment(model="llama-2-70b", device="a100-pcie", tensor_parallel_size=4, gpus_per_node=4),
    budget=512,
)
CASES = (MISTRAL, LLAMA)


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Predict batches of decodes, with a whole prompt and with a chunk."""
    yield from ()
    ours = _most(LLAMA.costs)
    linked = load_cost_model(replace(LLAMA.deployment, device="a100-sxm"))
    changed = {
        "A100 SXM, NVLink between all four": _most(linked),
        told(): _most(with_base(LLAMA.deployment)),
    }
    finding = Finding(name=NAME, published=MOST, ours=ours, unit="x", source="section 4.2")
    return Findings(
        findings=(replace(finding, cause=CAUSE, reason=_reason(changed)) if finding.missed else finding,),
        panels=(_panel(),),
        stands_on=tuple(basis(case.deployment) for case in CASES),
        changes=tuple(Change(finding=NAME, what=what, ours=value) for what, value in changed.items()),
        tables=(_table(),),
        notes=(
            "The prompt is as long as the contexts of the decodes; the chunk is its last one, which reads all the "
            "others' KV. The paper prints the most of all its batches, which is that of LLaMA2-70B with one decode "
            "here too.",
            explained(),
        ),
    )


def _ratio(costs: CostModel, decodes: int, length: int, budget: int | None = None) -> float:
    """Return how many times as long as decodes alone they take with a prompt, or with its last chunk in ``budget``."""
    alone = Aggregates.of(decodes=decodes, context=length)
    chunk = length if budget is None else min(length, budget - decodes)
    beside = Aggregates.of(chunk, past=length - chunk, decodes=decodes, context=length)
    return costs.iteration_time(beside) / costs.iteration_time(alone)


def _most(costs: CostModel) -> float:
    return max(_ratio(costs, decodes, length) for decodes in DECODES for length in CONTEXTS)


def _reason(changed: dict[str, float]) -> str:
    share = LLAMA.costs.breakdown(Aggregates.of(CONTEXTS[-1], decodes=1, context=CONTEXTS[-1]))
    part = share["communication"] / sum(share.values())
    return (
        f"{100 * part:.0f} % of the longest batch are all-reduces over PCIe here, where only pairs of GPUs have "
        "NVLink, as in the machines that the paper names; which ones this figure was made on it does not say. "
        f"NVLink, or what their engine cost beside kernels, each bring it within {ceil(100 * _worst(changed))} %."
    )


def _worst(changed: dict[str, float]) -> float:
    return max(abs(value / MOST - 1) for value in changed.values())


def _table() -> Table:
    rows = []
    for case in CASES:
        costs = case.costs
        for length in CONTEXTS:
            for decodes in DECODES:
                alone_ms = 1e3 * costs.iteration_time(Aggregates.of(decodes=decodes, context=length))
                ratios = (_ratio(costs, decodes, length, case.budget), _ratio(costs, decodes, length))
                shown = (f"{alone_ms:.1f}", *(f"{ratio:.1f}x" for ratio in ratios))
                rows.append((case.deployment.spec.name, f"{length:,}", str(decodes), *shown))
    head = ("model", "context", "decodes", "decodes alone (ms)", "with a chunk", "with the whole prompt")
    return Table(title="Batches of figure 9, ours", head=head, rows=tuple(rows))


def _panel() -> Panel:
    from plotly.subplots import make_subplots

    titles = [f"<b>{case.title}</b>" for case in CASES]
    figure = make_subplots(cols=len(CASES), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.05)
    for col, case in enumerate(CASES, 1):
        _add_curves(figure, col, case)
    based = [_ratio(with_base(LLAMA.deployment), 1, length) for length in LENGTHS]
    curve(figure, LENGTHS, based, "1 decode, with their base iteration", PALETTE[0], dash="dot", row=1, col=len(CASES))
    published(figure, [CONTEXTS[-1]], [MOST], row=1, col=len(CASES))
    for length, ratio, text in ((2048, 20, "whole prompt"), (2048, 2.8, "last chunk of it")):
        figure.add_annotation(x=log10(length), y=log10(ratio), text=text, font={"color": GREY}, showarrow=False)
    style(figure, height=HEIGHT, top=84)
    ticks_axis(figure, "tokens of the prompt", LENGTHS[1:-1])
    ticks = [1, 2, 5, 10, 20, 50, 100]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick}x" for tick in ticks])
    figure.update_yaxes(title="TBT over that of decodes alone", col=1)
    return Panel(
        name="serving-hybrid-tbt",
        title="A whole prompt beside decodes makes their next token wait tens of times as long",
        caption=(
            "Solid: decodes with a whole prompt; dashed: with its last chunk, in batches of up to 256 (Mistral-7B) "
            "and 512 tokens. The longer the prompt, the longer all decodes wait for it; a chunk costs the same "
            "however long the prompt is. Published is the most of all batches."
        ),
        figure=figure,
    )


def _add_curves(figure: Figure, col: int, case: Case) -> None:
    costs = case.costs
    for decodes, colour in zip(DECODES, PALETTE, strict=False):
        for budget, dash in ((None, "solid"), (case.budget, "dash")):
            ratios = [_ratio(costs, decodes, length, budget) for length in LENGTHS]
            first = col == 1 and budget is None
            name = f"{decodes} decode{'s' * (decodes > 1)}"
            curve(figure, LENGTHS, ratios, name, colour, dash=dash, row=1, col=col, showlegend=first)


EXPERIMENT = Experiment(
    name="hybrid-tbt",
    title="What a whole prompt in a batch does to the TBT",
    paper=SARATHI_SERVE,
    shows="A prompt that runs whole beside decodes makes them up to 28.3 times as slow; a chunk bounds that.",
    about_s=1,
    plan=plan,
)
