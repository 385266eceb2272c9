"""Falcon-180B on two nodes of four GPUs: all layers split over all of them, or a node a stage (section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from policies.catalog import choose
from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel, load_cost_model
from profiler.layer import layer_all_reduces
from simulator.capacity.capacity import Capacity
from simulator.figure_style import Panel
from simulator.paper.basis import basis
from simulator.paper.experiment import SAME_CAPACITY, Change, Experiment, Finding, Findings
from simulator.paper.experiment import SARATHI_SERVE as PAPER
from simulator.paper.serving.authors_engine import explained, profile_with_base, told, with_base
from simulator.paper.serving.capacity import SEARCHED, capacity_table
from simulator.paper.serving.falcon_figure import nodes_panel
from simulator.paper.serving.grid import Cell, Grid, find_grid
from simulator.paper.serving.setup import (
    CHAT,
    FALCON_180B,
    GENERATED,
    RELAXED,
    REQUESTS,
    SARATHI_SERVE,
    STRICT,
    VLLM,
    Setup,
    demand,
)
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Answer, Plan, side_by_side
from simulator.trials.trial import Trial

TP8 = replace(FALCON_180B, tensor_parallel_size=8, pipeline_parallel_size=1)
BATCHES = (8, 16, 32, 64, 128)
"""Of figure 13a, by the artifact's script."""
CONTEXT = 2048
"""Of each decode: about what a request of the chat dataset holds on average."""
SCRIPT_RATE_PER_S, SCRIPT_BUDGET, SCRIPT_REQUESTS = 0.75, 512, 512
"""What the script (osdi-experiments/figure-8) runs instead of decodes alone; a quarter of its requests."""
SCRIPT = "requests as the artifact's script runs them, chunks beside the decodes"
TIMES_TBT, GAIN = 2.0, 4.3
CAUSE = "what messages cost over Ethernet beside their bytes: nobody published it"
DECODES = "time of decodes alone, TP8 across nodes over TP4-PP2"
CAPACITY = "chat, strict: Sarathi-Serve on TP4-PP2 over vLLM on TP8 across nodes"


def plan(scratch: Path, *, requests: int = REQUESTS, script_requests: int = SCRIPT_REQUESTS) -> Plan[Findings]:
    """Predict decodes on both, run what the script runs, and find the capacities."""
    based = {"profile": profile_with_base(FALCON_180B.deployment, scratch)}
    grids = yield from side_by_side(
        {
            "": _find_grid((STRICT, RELAXED), requests, {}),
            told(): _find_grid((STRICT,), requests, based),
        }
    )
    scripted = yield [_script_trial(setup, batch, script_requests) for setup in (TP8, FALCON_180B) for batch in BATCHES]
    across, staged = (load_cost_model(setup.deployment) for setup in (TP8, FALCON_180B))
    grid = grids[""]
    decodes = {
        "": _times_longer(across, staged),
        told(): _times_longer(with_base(TP8.deployment), with_base(FALCON_180B.deployment)),
        SCRIPT: _median_ratio(_tbts(scripted[: len(BATCHES)]), _tbts(scripted[len(BATCHES) :])),
    }
    capacities = {what: _gain(each) for what, each in grids.items()}
    return Findings(
        findings=(_decodes_finding(decodes, across, staged), _capacity_finding(capacities)),
        panels=(_panel(grid),),
        stands_on=(basis(TP8.deployment), basis(FALCON_180B.deployment)),
        changes=(
            *(Change(finding=DECODES, what=what, ours=value) for what, value in decodes.items() if what),
            *(Change(finding=CAPACITY, what=what, ours=value) for what, value in capacities.items() if what),
        ),
        tables=(capacity_table(grid),),
        notes=(
            "An all-reduce across nodes is a ring whose slowest hop is the network, 12.5 GB/s by 100 Gbit/s; nobody "
            "measured one, and what the protocol adds to each message is not in it.",
            GENERATED,
            SEARCHED,
            explained(),
        ),
    )


def _find_grid(targets: Sequence[str], requests: int, others: Mapping[str, Any]) -> Plan[dict[Cell, Capacity]]:
    """Return the plan that finds the capacities of vLLM across nodes, and of Sarathi-Serve on a pipeline."""
    asked = ((TP8, VLLM, targets), (FALCON_180B, SARATHI_SERVE, (STRICT,)))
    plans = {
        system: find_grid(setup, datasets=(CHAT,), asked=within, systems=(system,), requests=requests, **others)
        for setup, system, within in asked
    }
    found = yield from side_by_side(plans)
    return {cell: capacity for each in found.values() for cell, capacity in each.items()}


def _panel(grid: Grid) -> Panel:
    setups = {
        "TP8 across two nodes": TP8,
        "TP4-PP2, a node a stage": FALCON_180B,
        "TP8 within one node of eight": replace(TP8, gpus_per_node=8),
    }
    costs = {name: load_cost_model(setup.deployment) for name, setup in setups.items()}
    rates_per_s = {
        "vLLM<br>TP8 across nodes": grid[Cell(CHAT, STRICT, VLLM)].rate_per_s,
        "Sarathi-Serve<br>TP4-PP2": grid[Cell(CHAT, STRICT, SARATHI_SERVE)].rate_per_s,
    }
    decode_s = {name: [_decode_s(each, batch) for batch in BATCHES] for name, each in costs.items()}
    return nodes_panel(decode_s, BATCHES, rates_per_s, published=GAIN)


def _decode_s(costs: CostModel, batch: int) -> float:
    """Return how long a token takes where ``batch`` sequences decode, each stage holding its share of them."""
    stages = costs.deployment.pipeline_parallel_size
    share = Aggregates.of(decodes=batch // stages, context=CONTEXT)
    busy_s = sum(costs.iteration_time(share, stage) for stage in range(stages))
    return busy_s + (stages - 1) * costs.hand_off_time(batch // stages)


def _times_longer(across: CostModel, staged: CostModel) -> float:
    return _median_ratio(*([_decode_s(costs, batch) for batch in BATCHES] for costs in (across, staged)))


def _median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    return median(one / other for one, other in zip(over, under, strict=True))


def _script_trial(setup: Setup, batch: int, requests: int) -> Trial:
    choice = choose(SARATHI_SERVE, max_num_seqs=batch, max_num_batched_tokens=SCRIPT_BUDGET)
    return Trial(candidate=setup.candidate(choice, CHAT), demand=demand(CHAT, requests), rate_per_s=SCRIPT_RATE_PER_S)


def _tbts(answers: Sequence[Answer]) -> list[float]:
    return [each.metrics["TBT P50"] for each in answers if isinstance(each, Outcome)]


def _gain(grid: Grid) -> float:
    return grid[Cell(CHAT, STRICT, SARATHI_SERVE)].rate_per_s / grid[Cell(CHAT, STRICT, VLLM)].rate_per_s


def _decodes_finding(values: Mapping[str, float], across: CostModel, staged: CostModel) -> Finding:
    found = Finding(name=DECODES, published=TIMES_TBT, ours=values[""], unit="x", source="section 5.3, figure 13a")
    if not found.missed:
        return found
    batch = BATCHES[len(BATCHES) // 2]
    count = layer_all_reduces(across.deployment, 0)
    parts = across.breakdown(Aggregates.of(decodes=batch, context=CONTEXT))
    took_s = parts["communication"] / count
    needed_s = took_s + (TIMES_TBT * _decode_s(staged, batch) - _decode_s(across, batch)) / count
    return replace(
        found,
        cause=CAUSE,
        reason=(
            "Splitting all layers eight ways halves the weights that a token waits for, and the network has to take "
            f"longer than that saves: by its bandwidth an all-reduce of {batch} tokens takes {1e3 * took_s:.2f} ms, of "
            f"which there are {count}. For twice the time each would have to take {1e3 * needed_s:.2f} ms. What "
            "messages cost over Ethernet beside their bytes nobody published, and neither change explains it."
        ),
    )


def _capacity_finding(values: Mapping[str, float]) -> Finding:
    found = Finding(
        name=CAPACITY, published=GAIN, ours=values[""], unit="x", source="section 5.3, figure 13b", limit=SAME_CAPACITY
    )
    if not found.missed:
        return found
    return replace(
        found,
        cause=CAUSE,
        reason=(
            "All-reduces across nodes take no longer here than the bandwidth asks (see the finding on decodes), which "
            "spares vLLM on TP8; what their engine cost beside kernels is part of it."
        ),
    )


EXPERIMENT = Experiment(
    name="falcon-nodes",
    title="Falcon-180B on two nodes: tensor parallelism across them, or a pipeline",
    paper=PAPER,
    shows="Tensor parallelism across nodes pays for the network in every layer; a pipeline does so once a token.",
    about_s=10,
    plan=plan,
)
