"""GPT-3 on 64 GPUs of today: does SARATHI's gain in the pipeline survive, and what do today's schedulers make of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from policies.catalog import choose
from simulator.figure_style import PALETTE
from simulator.paper import marks
from simulator.paper.basis import basis
from simulator.paper.experiment import BEYOND, Experiment, Finding, Findings, Table
from simulator.paper.gpt3.changes import AGAINST_TP, BUBBLES, PIPELINES, ratios
from simulator.paper.gpt3.figures import LINES
from simulator.paper.gpt3.pipeline import PUBLISHED, SECTION
from simulator.paper.gpt3.setup import (
    CHUNK,
    LONGEST,
    ORCA,
    SARATHI,
    STAGES,
    TP,
    Setup,
    bubble_s,
    busy_share,
    completion_s,
)
from simulator.paper.gpt3.today_figures import chunk_panel, ways_panel
from simulator.trials.plan import Plan, in_steps
from traces.run_record import RunRecord

DEVICES = {"a100-sxm": "A100", "h100": "H100", "h200": "H200"}
REQUESTS = 3_000
CHUNKS = (256, 512, 1024, 2048)
BUDGETS = {"sarathi-serve": 512, "vllm-v1": 2048}
"""Tokens of a batch: the paper's and vLLM's own defaults."""
MOST_SEQS = 1024
MEMORY_SHARE = 0.9
NAMES = {"sarathi-serve": "TP8-PP8, Sarathi-Serve", "vllm-v1": "TP8-PP8, vLLM v1"}
VLLM_TP, BEST = "8 x TP8, vLLM v1", "TP8-PP8, SARATHI, best chunk"
COLOURS = {
    **{way: line.colour for way, line in LINES.items()},
    BEST: marks.COLOURS["sarathi"],
    NAMES["sarathi-serve"]: PALETTE[5],
    NAMES["vllm-v1"]: marks.COLOURS["vllm-v1"],
    VLLM_TP: PALETTE[6],
}
"""Of all ways to serve."""
Runs = Mapping[str, RunRecord]
NOTES = (
    "Today's engine: CUDA graphs (0.27 ms beside the kernels of a stage and iteration), 90 % of the memory used.",
    f"Sarathi-Serve and vLLM v1 take KV blocks as sequences grow, at most {MOST_SEQS} sequences, budgets of "
    f"{BUDGETS['sarathi-serve']} and {BUDGETS['vllm-v1']} tokens; their batches are formed from what is ready.",
    "Slack is not among them: it trades throughput for token deadlines, and nobody waits for tokens here.",
    "The published ratios are those on A100, with the authors' engine of 2023.",
)


def plan(_scratch: Path) -> Plan[Findings]:
    """Serve 3,000 requests on 64 GPUs of each kind, in each way."""
    setups = {name: today(device) for device, name in DEVICES.items()}
    runs = {}
    for name, setup in setups.items():
        runs[name] = yield from in_steps(ways(setup))
    return Findings(
        findings=tuple(finding for name, each in runs.items() for finding in _findings(name, each)),
        panels=(ways_panel({name: _named(each) for name, each in runs.items()}, COLOURS), chunk_panel(_sweeps(runs))),
        stands_on=tuple(basis(setup.deployment(STAGES)) for setup in setups.values()),
        tables=tuple(_table(name, setups[name], each) for name, each in runs.items()),
        notes=NOTES,
    )


def today(device: str, requests: int = REQUESTS) -> Setup:
    """Return the paper's set-up with the engine of today."""
    return Setup(device=device, requests=requests, memory_share=MEMORY_SHARE, eager=False)


def ways(setup: Setup, chunks: Iterable[int] = CHUNKS) -> dict[str, Callable[[], RunRecord]]:
    """Return what runs the paper's three scenarios, SARATHI with other chunks, and today's schedulers."""
    runs = setup.three_ways()
    for chunk in chunks:
        if chunk != setup.chunk_tokens:
            runs[_with_chunk(chunk)] = partial(setup.run, setup.choice(STAGES, chunk), STAGES)
    for policy, budget in BUDGETS.items():
        choice = choose(policy, max_num_seqs=MOST_SEQS, max_num_batched_tokens=budget)
        runs[NAMES[policy]] = partial(setup.run, choice, STAGES, seqs=MOST_SEQS)
    choice = choose("vllm-v1", max_num_seqs=MOST_SEQS // STAGES, max_num_batched_tokens=BUDGETS["vllm-v1"])
    return {**runs, VLLM_TP: partial(setup.run, choice, 1, seqs=MOST_SEQS // STAGES)}


def _with_chunk(chunk: int) -> str:
    return SARATHI if chunk == CHUNK else f"{SARATHI} ({chunk})"


def _findings(name: str, runs: Runs) -> Iterable[Finding]:
    found = ratios({way: runs[way] for way in (ORCA, SARATHI, TP)})
    for figure in (BUBBLES, PIPELINES, AGAINST_TP):
        yield Finding(
            name=f"{figure}, {name}",
            published=PUBLISHED[figure],
            ours=found[figure],
            unit="x",
            source=f"{SECTION}, on A100",
            limit=None,
        )


def _named(runs: Runs) -> dict[str, float]:
    """Return the completion times that the figure of the ways shows: SARATHI with its best chunk only."""
    best = min(CHUNKS, key=lambda chunk: completion_s(runs[_with_chunk(chunk)]))
    swept = {_with_chunk(chunk) for chunk in CHUNKS}
    times_s = {way: completion_s(run) for way, run in runs.items() if way not in swept}
    return {**times_s, BEST: completion_s(runs[_with_chunk(best)])}


def _sweeps(runs: Mapping[str, Runs]) -> dict[str, dict[int, float]]:
    """Return completion times by tokens of a batch; the last are Orca's best case."""
    return {
        name: {**{chunk: completion_s(each[_with_chunk(chunk)]) for chunk in CHUNKS}, LONGEST: completion_s(each[ORCA])}
        for name, each in runs.items()
    }


def _table(name: str, setup: Setup, runs: Runs) -> Table:
    base_s = completion_s(runs[SARATHI])
    rows = [
        (
            way,
            f"{completion_s(run):,.0f}",
            f"{completion_s(run) / base_s:.2f}",
            f"{bubble_s(run):.2f}",
            f"{100 * busy_share(run):.0f} %",
        )
        for way, run in runs.items()
    ]
    limits = f"{setup.batch_limit(STAGES)} sequences of 4K a micro-batch with TP8-PP8, {setup.batch_limit(1)} with TP8"
    head = ("way to serve", "all done (s)", "over SARATHI (256)", "median bubble time (s)", "stages busy")
    return Table(title=f"64 x {name}: {limits}", head=head, rows=tuple(rows))


EXPERIMENT = Experiment(
    name="gpt3-today",
    title="GPT-3 on 64 GPUs today",
    paper=BEYOND,
    shows="Whether equal batches are still worth as much in a pipeline of H100 or H200, and which chunk they want.",
    about_s=40,
    plan=plan,
)
