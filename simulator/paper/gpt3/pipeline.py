"""SARATHI's section 5.3: GPT-3 on 64 A100, pipelined under Orca and under SARATHI, and as replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI as PAPER
from simulator.paper.experiment import Change, Experiment, Finding, Findings, Table
from simulator.paper.gpt3.changes import (
    AGAINST_TP,
    ATTENTION,
    BOTH,
    BUBBLES,
    EQUAL,
    FEWER,
    ONE_ADAPTER,
    PIPELINED_BATCH,
    PIPELINES,
    REPLICA_BATCH,
    THOUSANDS,
    TP_AHEAD,
    WHOLE_CHUNK,
    batch_changes,
    changed,
    ratios,
)
from simulator.paper.gpt3.figures import bubble_panel, completion_panel, timeline_panel
from simulator.paper.gpt3.setup import ORCA, STAGES, TP, Setup, bubble_s, busy_share, completion_s
from simulator.trials.plan import Plan, in_steps
from traces.run_record import RunRecord

SECTION = "section 5.3"
PUBLISHED_BATCH, PUBLISHED_REPLICA_BATCH = 27, 11
PUBLISHED = {BUBBLES: 6.29, PIPELINES: 1.91, AGAINST_TP: 1.48, TP_AHEAD: 1.28}
Moved = Mapping[str, Mapping[str, float]]
"""The findings, by what was changed."""
NOTES = (
    "Memory: weights, KV of 4K tokens a sequence, activations of one whole prompt beside the decodes, 1 GiB for "
    "context and NCCL, of 85 % of what the driver leaves. SARATHI names no share; this one the same authors set for "
    "their next engine, and with vLLM's 90 % the batch of TP8 would be missed (see the changes).",
    "Orca's best case is SARATHI with chunks as long as any prompt: one whole prompt at most in a batch (section 5.2).",
    "Micro-batches stay together; requests enter and leave them one by one (figure 5 and section 4.1).",
    "Lengths: totals of any number of tokens from 1,024 to 4,096, the shortest the most frequent, as the generator in "
    "the authors' public code draws them; one part in eleven is output, rounded up.",
    "The engine launches its kernels one by one (section 4.5): 5 µs a kernel beside its own time, assumed.",
    "Each GPU sends what the next stage needs by a network adapter of its own, 200 Gbit/s, as in a DGX A100.",
)


def plan(_scratch: Path) -> Plan[Findings]:
    """Serve 10,000 requests in the three ways, and 3,000 with one thing changed at a time."""
    setup = Setup()
    runs = yield from in_steps(setup.three_ways())
    moved = {}
    for what, each in changed().items():
        moved[what] = ratios((yield from in_steps(each.three_ways())))
    ours = ratios(runs)
    return Findings(
        findings=tuple(_findings(setup, ours, moved)),
        panels=(
            bubble_panel(runs, PUBLISHED[BUBBLES]),
            completion_panel(runs, {ORCA: PUBLISHED[PIPELINES], TP: PUBLISHED[AGAINST_TP]}),
            timeline_panel(runs),
        ),
        stands_on=(basis(setup.deployment(STAGES)), basis(setup.deployment(1))),
        changes=(*batch_changes(), *_changes(moved)),
        tables=(_table(runs),),
        notes=NOTES,
    )


def _findings(setup: Setup, ours: Mapping[str, float], moved: Moved) -> Iterable[Finding]:
    batches = ((PIPELINED_BATCH, PUBLISHED_BATCH, STAGES), (REPLICA_BATCH, PUBLISHED_REPLICA_BATCH, 1))
    for name, published, stages in batches:
        limit = setup.batch_limit(stages)
        yield Finding(name=name, published=published, ours=limit, unit="sequences", source=SECTION, headline=True)
    for name, value in PUBLISHED.items():
        found = Finding(
            name=name, published=value, ours=ours[name], unit="x", source=SECTION, headline=name != TP_AHEAD
        )
        if found.missed:
            found = replace(found, cause=CAUSES.get(name, ""), reason=_reason(name, moved))
        yield found


CAUSES = {
    BUBBLES: "how often whole prompts meet in the pipeline, and how small SARATHI's bubbles are; part unexplained",
    PIPELINES: "how often whole prompts meet in the pipeline: the requests' lengths, by a guess",
    TP_AHEAD: "how often whole prompts meet in the pipeline: the requests' lengths, by a guess",
}


def _reason(name: str, moved: Moved) -> str:
    """Say what the deviation comes from, in the figures of the changes."""
    if name == BUBBLES:
        ours = [moved[what][BUBBLES] for what in (ATTENTION, WHOLE_CHUNK, ONE_ADAPTER)]
        return (
            "Orca's bubbles hang on what its completion time hangs on (see there). SARATHI's own are a few per cent of "
            "the time here, so whatever makes its batches less equal or its hand-offs slower halves the ratio: slower "
            "prefill attention, chunks of 256 beside all decodes, or one adapter a node each leave "
            f"{min(ours):.0f} to {max(ours):.0f}. With totals in whole thousands and the slower attention it is "
            f"{moved[BOTH][BUBBLES]:.1f}; the rest is unexplained."
        )
    alike, thousands, any_length = (f"{moved[what][PIPELINES]:.2f}" for what in (EQUAL, THOUSANDS, FEWER))
    return (
        "What whole prompts cost the pipeline depends on whether those of different micro-batches run side by side. "
        f"With all requests alike they always do: Orca takes {alike} times as long as SARATHI. With totals in whole "
        f"thousands they often do ({thousands}), with totals of any length hardly ever ({any_length}). The paper's "
        "figure lies between: its prompts seem to have met more often than lengths drawn as its text says let them, "
        "but that is a guess. How micro-batches are formed matters less."
    )


def _changes(moved: Moved) -> Iterable[Change]:
    for what, figures in moved.items():
        for name, value in figures.items():
            yield Change(finding=name, what=what, ours=value)


def _table(runs: Mapping[str, RunRecord]) -> Table:
    rows = [
        (way, f"{completion_s(run):,.0f}", f"{bubble_s(run):.2f}", f"{100 * busy_share(run):.0f} %")
        for way, run in runs.items()
    ]
    head = ("way to serve", "all done (s)", "median bubble time of a request (s)", "stages busy")
    return Table(title="Completion, bubbles and use of the 64 GPUs", head=head, rows=tuple(rows))


EXPERIMENT = Experiment(
    name="gpt3-pipeline",
    title="GPT-3 on 64 GPUs: pipeline bubbles and completion times",
    paper=PAPER,
    shows="Equal batches take the bubbles out of a pipeline, which then beats replicas of tensor parallelism alone.",
    about_s=50,
    plan=plan,
)
