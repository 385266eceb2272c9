"""SARATHI between the best and the worst that iteration-level batching comes to (section 5.2, figure 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from policies.catalog import PolicyChoice
from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel
from simulator.figure_style import PALETTE, Panel, style
from simulator.paper import marks
from simulator.paper.basis import basis
from simulator.paper.experiment import SAME, SARATHI, Change, Experiment, Finding, Findings
from simulator.paper.sarathi import drawing
from simulator.paper.sarathi.engine import Engine
from simulator.paper.sarathi.offline import Load, gain, orca_best, orca_worst, sarathi
from simulator.paper.sarathi.published_linears import WHAT, PublishedLinears
from simulator.paper.sarathi.speedup import CHUNK, LARGEST
from simulator.trials.plan import Plan

SOURCE = "section 5.2, figure 11"
POLICIES: Mapping[str, Callable[[Load], PolicyChoice]] = {
    "SARATHI": lambda load: sarathi(load, CHUNK),
    "Orca, best case": orca_best,
    "Orca, worst case": orca_worst,
}
PUBLISHED: Mapping[str, Mapping[int, float]] = {
    "SARATHI": {1024: 1.27, 2048: 1.25, 3072: 1.23},
    "Orca, best case": {1024: 1.11},
    "Orca, worst case": {},
}
"""Gains over the baseline by length; of the others the paper says that they are close to the baseline."""
CLOSE = 1.0
SWEPT: Mapping[str, Callable[[Load], PolicyChoice]] = {
    "SARATHI, chunk 256": lambda load: sarathi(load, 256),
    "SARATHI, chunk 512": lambda load: sarathi(load, 512),
    "Orca, best case": orca_best,
    "Orca, worst case": orca_worst,
}
PUBLISHED_PEAKS = {"SARATHI, chunk 256": 1.27, "SARATHI, chunk 512": 1.23, "Orca, best case": 1.11}
COLOURS = (marks.COLOURS["sarathi"], marks.COLOURS["orca"], PALETTE[7])
"""Of :data:`POLICIES`."""
RATIOS = tuple(np.geomspace(1.0, 200.0, 26))
Gains = Mapping[str, Mapping[int, float]]
"""Gains over the baseline by policy and length."""


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Simulate the policies at all lengths, and at 1K over P:D."""
    yield from ()
    engine = Engine()
    ours, theirs = bounds(engine.costs), bounds(PublishedLinears())
    swept = sweep(engine.costs)
    keys = [(policy, length) for policy in POLICIES for length in LARGEST]
    return Findings(
        findings=(*(_bound(ours, *key) for key in keys), _peak(swept)),
        panels=(_bounds_panel(ours), _sweep_panel(swept)),
        stands_on=(basis(engine.deployment),),
        changes=tuple(Change(finding=_name(*key), what=WHAT, ours=theirs[key[0]][key[1]]) for key in keys),
        notes=(
            "P:D is where chunks of 256, less the decodes beside them, and decodes balance: "
            f"{', '.join(f'{balanced(length).ratio:.1f}' for length in LARGEST)}.",
            "Orca's best case is SARATHI with chunks as long as a request, as the paper has it; its worst case is "
            f"Orca's own rule with all requests there at once. {_tiles(engine.costs)}",
        ),
    )


def balanced(length: int) -> Load:
    """Return the load of the largest batch in which chunks of 256 tokens and decodes balance."""
    return Load.balanced(CHUNK, length=length, seats=LARGEST[length])


def bounds(costs: CostModel) -> Gains:
    """Return the gains of all policies at all lengths."""
    return {
        name: {length: gain(costs, balanced(length), choice(balanced(length))) for length in LARGEST}
        for name, choice in POLICIES.items()
    }


def sweep(costs: CostModel) -> Mapping[str, Mapping[float, float]]:
    """Return the gains at 1K over P:D, by policy."""
    seats = LARGEST[1024]
    balanced = {Load.balanced(chunk, length=1024, seats=seats) for chunk in (256, 512, 1024)}
    loads = sorted(
        balanced | {Load.at(ratio, length=1024, seats=seats) for ratio in RATIOS}, key=lambda load: load.ratio
    )
    return {name: {load.ratio: gain(costs, load, choice(load)) for load in loads} for name, choice in SWEPT.items()}


def _tiles(costs: CostModel) -> str:
    """Return why the gain of Orca's best case is small at 1K."""
    load = balanced(1024)
    prompt, decodes = load.prompt_tokens, load.seats - 1
    together_s = costs.iteration_time(Aggregates.of(*[prompt] * load.seats))
    alone_s = load.seats * costs.iteration_time(Aggregates.of(prompt))
    return (
        f"A prompt of {prompt} tokens with {decodes} decodes leaves part of its last tile empty: {load.seats} prompts "
        f"one by one take {alone_s:.2f} s, in one batch, as the baseline runs them, {together_s:.2f} s. That is most "
        "of what sharing iterations with decodes saves."
    )


def _name(policy: str, length: int) -> str:
    return f"{policy}, {length // 1024}K"


def _bound(ours: Gains, policy: str, length: int) -> Finding:
    printed = PUBLISHED[policy].get(length)
    return Finding(
        name=_name(policy, length),
        published=CLOSE if printed is None else printed,
        ours=ours[policy][length],
        unit="x",
        source=f"{SOURCE}: close to the baseline" if printed is None else SOURCE,
        limit=None if printed is None else SAME,
    )


def _peak(swept: Mapping[str, Mapping[float, float]]) -> Finding:
    return Finding(
        name="Orca, best case over all P:D, 1K",
        published=PUBLISHED_PEAKS["Orca, best case"],
        ours=max(swept["Orca, best case"].values()),
        unit="x",
        source=SOURCE,
    )


def _bounds_panel(ours: Gains) -> Panel:
    from plotly.graph_objects import Figure

    figure = Figure()
    labels = [f"{length // 1024}K tokens, batch {batch}" for length, batch in LARGEST.items()]
    width = 0.26
    for index, ((policy, values), colour) in enumerate(zip(ours.items(), COLOURS, strict=True)):
        x = [place + (index - 1) * width for place in range(len(labels))]
        drawing.gains(figure, x, list(values.values()), colour, name=policy, width=width * 0.92)
        marks.published(figure, x, list(PUBLISHED[policy].values()))
    drawing.even_line(figure)
    style(figure, height=marks.HEIGHT)
    figure.update_xaxes(tickvals=list(range(len(labels))), ticktext=labels)
    figure.update_yaxes(title="throughput over the baseline (x)", range=[0.98, 1.32])
    return Panel(
        name="sarathi-orca-bounds",
        title="Prompts in chunks against whole prompts beside decodes",
        caption=(
            "LLaMA-13B on one A6000, where chunks of 256 and decodes balance. In Orca's best case a whole "
            "prompt shares one iteration with decodes, and in the many that follow they run alone; chunks share all. "
            "Without a diamond the paper prints no number, but that it is close to the baseline."
        ),
        figure=figure,
    )


def _sweep_panel(swept: Mapping[str, Mapping[float, float]]) -> Panel:
    from plotly.graph_objects import Figure

    figure = Figure()
    sarathi, *orca = COLOURS
    for (name, curve), colour in zip(swept.items(), (sarathi, PALETTE[5], *orca), strict=True):
        marks.curve(figure, list(curve), list(curve.values()), name, colour)
    for name, value in PUBLISHED_PEAKS.items():
        drawing.level(figure, value, f"published peak of {name}: {value:g}x")
    drawing.even_line(figure)
    style(figure, height=marks.HEIGHT)
    marks.ticks_axis(figure, "P:D (log)", (1, 2, 5, 10, 20, 50, 100, 200))
    figure.update_yaxes(title="throughput over the baseline (x)", range=[0.85, 1.32])
    return Panel(
        name="sarathi-orca-over-pd",
        title="Chunks win where outputs are long, whole prompts where they are short",
        caption=(
            "LLaMA-13B on one A6000, 1K tokens, batch 18. Orca's best case peaks lower and at a higher P:D than "
            "SARATHI; its worst case is the baseline. Beyond P:D 50 there are too few decodes to pay for small chunks."
        ),
        figure=figure,
    )


EXPERIMENT = Experiment(
    name="orca-bounds",
    title="Between the bounds of Orca",
    paper=SARATHI,
    shows="SARATHI gains 1.23 to 1.27x over the baseline, Orca 1.11x in its best case at 1K and nothing beyond.",
    about_s=4,
    plan=plan,
)
