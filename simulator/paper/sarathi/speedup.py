"""How much cheaper decodes become beside a prefill, over batch and length (section 5.1.1, figure 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from profiler.cost_model import CostModel
from simulator.figure_style import PALETTE, Panel, style
from simulator.paper import marks
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI, Change, Experiment, Finding, Findings, Table
from simulator.paper.sarathi import drawing
from simulator.paper.sarathi.batch_limit import by_formula, largest_batch
from simulator.paper.sarathi.decoding import decode_speedup
from simulator.paper.sarathi.engine import Engine
from simulator.paper.sarathi.published_linears import WHAT, PublishedLinears
from simulator.trials.plan import Plan

CHUNK = 256
LARGEST = {1024: 18, 2048: 10, 3072: 6}
"""Largest batch by length, as the paper has it."""
SOURCE = "section 5.1.1, figure 8"
HIGHEST, LOWEST = 10.0, 2.8
TOP, BOTTOM = "highest decode speedup", "lowest decode speedup"
FALLS = "neighbours in batch and length between which it falls"
AT_LONGEST = 2.51
"""Table 4 at batch 6 and 3K, below what section 5.1.1 calls the lowest of all cases."""
Curves = Mapping[int, Mapping[int, float]]
"""Decode speedups by length and batch."""


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Predict the batches of all lengths and sizes."""
    yield from ()
    engine = Engine()
    ours, theirs = curves(engine.costs), curves(PublishedLinears())
    return Findings(
        findings=(*_range(ours, theirs), *(_limit(engine, length) for length in LARGEST)),
        panels=(_panel(ours),),
        stands_on=(basis(engine.deployment),),
        changes=(
            Change(finding=TOP, what=WHAT, ours=_values(theirs)[-1]),
            Change(finding=BOTTOM, what=WHAT, ours=_values(theirs)[0]),
            *(change for length in LARGEST for change in _limit_changes(engine, length)),
        ),
        tables=(_table(ours),),
        notes=(
            "A decode costs what an iteration of the whole batch takes over its size; with SARATHI what the batch "
            "with decodes takes more than a prefill of the chunk alone, over the decodes. Contexts are as long as a "
            "request may become.",
        ),
    )


def curves(costs: CostModel) -> Curves:
    """Return decode speedups by length and batch, batches in steps of two up to the largest."""
    return {
        length: {
            batch: decode_speedup(costs, chunk=CHUNK, batch=batch, context=length) for batch in range(2, largest + 1, 2)
        }
        for length, largest in LARGEST.items()
    }


def falling(speedups: Curves) -> float:
    """Return the share of neighbours, in batch and in length, between which the speedup falls."""
    pairs = [pair for curve in speedups.values() for pair in pairwise(curve.values())]
    for short, long in pairwise(speedups.values()):
        pairs += [(short[batch], long[batch]) for batch in long]
    return sum(after < before for before, after in pairs) / len(pairs)


def _values(speedups: Curves) -> list[float]:
    return sorted(speedup for curve in speedups.values() for speedup in curve.values())


def _range(ours: Curves, theirs: Curves) -> tuple[Finding, Finding, Finding]:
    own = _values(ours)
    reason = (
        f"It is that of the longest requests, for which table 4 prints {AT_LONGEST}x, less than the 2.8x that section "
        f"5.1.1 calls the lowest. The batches of 1K alone end at {min(ours[1024].values()):.2f}x. With linear layers "
        f"as the paper's iterations have them it is {_values(theirs)[0]:.2f}x: there reading the weights for a batch "
        "of decodes took longer, so sharing them gained more."
    )
    return (
        Finding(name=TOP, published=HIGHEST, ours=own[-1], unit="x", source=SOURCE, headline=True),
        Finding(
            name=BOTTOM,
            published=LOWEST,
            ours=own[0],
            unit="x",
            source=SOURCE,
            headline=True,
            cause=f"the paper's own table 4 prints {AT_LONGEST}x for that batch; kernels",
            reason=reason,
        ),
        Finding(name=FALLS, published=100.0, ours=100 * falling(ours), unit="%", source=SOURCE, headline=True),
    )


def _limit_name(length: int) -> str:
    return f"largest batch at {length // 1024}K"


def _limit(engine: Engine, length: int) -> Finding:
    return Finding(
        name=_limit_name(length),
        published=float(LARGEST[length]),
        ours=float(largest_batch(engine.deployment, length)),
        unit="sequences",
        source="sections 3.1 and 5.1.1",
    )


def _limit_changes(engine: Engine, length: int) -> tuple[Change, Change]:
    all_of_it = replace(engine.deployment, gpu_memory_utilization=1.0)
    name, share = _limit_name(length), engine.deployment.gpu_memory_utilization
    return (
        Change(
            finding=name,
            what=f"all memory of the card in place of {100 * share:.0f} % of it",
            ours=float(largest_batch(all_of_it, length)),
        ),
        Change(
            finding=name,
            what="the formula of section 4.3.1, in which weights and KV cache alone take room",
            ours=float(by_formula(engine.deployment, length)),
        ),
    )


def _table(ours: Curves) -> Table:
    batches = list(ours[1024])
    rows = [
        (f"{length // 1024}K", *(f"{curve[batch]:.2f}" if batch in curve else "" for batch in batches))
        for length, curve in ours.items()
    ]
    head = ("length", *(f"batch {batch}" for batch in batches))
    return Table(title="Decode speedup, chunk 256", head=head, rows=tuple(rows))


def _panel(ours: Curves) -> Panel:
    from plotly.graph_objects import Figure

    figure = Figure()
    for (length, curve), colour in zip(ours.items(), PALETTE, strict=False):
        marks.curve(figure, list(curve), list(curve.values()), f"{length // 1024}K tokens", colour)
        figure.data[-1].mode = "lines+markers"
    drawing.level(figure, HIGHEST, f"published highest: {HIGHEST:g}x")
    drawing.level(figure, LOWEST, f"published lowest: {LOWEST:g}x", "bottom right")
    style(figure, height=marks.HEIGHT)
    figure.update_xaxes(title="batch size (requests)", tickvals=list(ours[1024]), range=[1.5, 19])
    figure.update_yaxes(title="decode speedup (x)", range=[0, 11.5])
    return Panel(
        name="sarathi-decode-speedup",
        title="Decodes up to ten times cheaper",
        caption=(
            "LLaMA-13B on one A6000, chunk 256: a decode beside a prefill against one in a batch of decodes. The gain "
            "falls with batch and length, since only the linear layers are shared; attention costs the same in both."
        ),
        figure=figure,
    )


EXPERIMENT = Experiment(
    name="decode-speedup",
    title="Decode speedup over batch and length",
    paper=SARATHI,
    shows="Decodes beside prefills are 2.8 to 10 times cheaper, less so in large batches and long requests.",
    about_s=1,
    plan=plan,
)
