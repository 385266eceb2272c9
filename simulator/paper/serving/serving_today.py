"""The same models and targets on later devices, with the schedulers of today beside those of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from policies.catalog import PolicyChoice, choose
from profiler.cost_model import load_cost_model
from simulator.capacity.capacity import Capacity
from simulator.capacity.slo_capacities import find_capacities
from simulator.paper.basis import basis
from simulator.paper.experiment import BEYOND, Experiment, Findings, Table
from simulator.paper.serving.serving_today_figure import Group, today_panel
from simulator.paper.serving.setup import (
    CHAT,
    GENERATED,
    MISTRAL_7B,
    ORCA,
    SARATHI_SERVE,
    SEQUENCES,
    SYSTEMS,
    TARGETS,
    TIMES,
    TITLES,
    VLLM,
    YI_34B,
    Setup,
    demand,
    slo_of,
    target_iteration_s,
)
from simulator.trials.plan import Plan, side_by_side

REQUESTS, PILOT = 1024, 256
TOLERANCE = 0.05
DEVICES = ("a100-pcie", "h100", "h200")
SETUPS = (MISTRAL_7B, YI_34B)
VLLM_V1, SLACK = "vllm-v1", "slack"
POLICIES = (*SYSTEMS, VLLM_V1, SLACK)
NAMES = {**TITLES, VLLM_V1: "vLLM v1", SLACK: "Slack (ours)"}


class Key(NamedTuple):
    """Which capacity."""

    model: str
    device: str
    target: str
    policy: str


def targets_s(setup: Setup) -> dict[str, float]:
    """Return the limits on the P99 TBT on a device, in seconds, by the paper's definition."""
    iteration_s = target_iteration_s(load_cost_model(setup.deployment))
    return {target: times * iteration_s for target, times in TIMES.items()}


def choice_of(setup: Setup, policy: str, target: str) -> PolicyChoice:
    """Return a policy: the paper's with its settings, vLLM v1 with its usual budget, Slack with the target."""
    if policy == VLLM_V1:
        return choose(VLLM_V1, max_num_seqs=SEQUENCES)
    if policy == SLACK:
        return choose(SLACK, max_num_seqs=SEQUENCES, tbt_s=setup.tbt_s[target])
    return setup.choice(policy, CHAT, target)


def plan(_: Path, *, requests: int = REQUESTS) -> Plan[Findings]:
    """Return the plan that finds the capacities on all devices."""
    placed = [replace(setup, device=device) for setup in SETUPS for device in DEVICES]
    placed = [replace(setup, tbt_s=targets_s(setup)) for setup in placed]
    plans: dict[str, Plan[dict[Key, Capacity]]] = {}
    for setup in placed:
        for policy in POLICIES:
            for asked in [[*TARGETS]] if policy in (ORCA, VLLM, VLLM_V1) else [[target] for target in TARGETS]:
                name = " ".join((setup.model, setup.device, policy, *asked))
                plans[name] = _capacities(setup, policy, asked, requests)
    results = yield from side_by_side(plans)
    found = {key: capacity for each in results.values() for key, capacity in each.items()}
    return Findings(
        findings=(),
        panels=(today_panel([_group(setup, target, found) for setup in placed for target in TARGETS], NAMES),),
        stands_on=tuple(basis(setup.deployment) for setup in placed),
        tables=(_table(placed, found),),
        notes=(
            GENERATED,
            f"{REQUESTS:,} requests of one draw, brackets of 5 %. Targets are 5 and 25 iterations of 32 decodes at "
            "4,096 tokens of context of each device itself. Budgets are the paper's on every device; vLLM v1 runs with "
            "2,048 tokens, Slack is told the target and nothing else.",
        ),
    )


def _capacities(setup: Setup, policy: str, asked: list[str], requests: int) -> Plan[dict[Key, Capacity]]:
    found = yield from find_capacities(
        setup.candidate(choice_of(setup, policy, asked[0]), CHAT),
        demand(CHAT, requests),
        [slo_of(setup.tbt_s[target]) for target in asked],
        guess_per_s=setup.first_per_s[CHAT],
        tolerance=TOLERANCE,
        pilot_requests=PILOT if requests > PILOT else 0,
    )
    return {Key(setup.model, setup.device, target, policy): each for target, each in zip(asked, found, strict=True)}


def _rates(setup: Setup, target: str, found: Mapping[Key, Capacity]) -> dict[str, float]:
    return {policy: found[Key(setup.model, setup.device, target, policy)].rate_per_s for policy in POLICIES}


def _group(setup: Setup, target: str, found: Mapping[Key, Capacity]) -> Group:
    known = setup.deployment
    return Group(
        model=known.spec.name, target=target, device=known.hardware.title, rates_per_s=_rates(setup, target, found)
    )


def _table(placed: list[Setup], found: Mapping[Key, Capacity]) -> Table:
    rows = []
    for setup in placed:
        for target in TARGETS:
            rates = _rates(setup, target, found)
            ours = rates[SARATHI_SERVE]
            gains = [f"{ours / rates[each]:.2f}x" if rates[each] else "-" for each in POLICIES if each != SARATHI_SERVE]
            where = (setup.title, f"{target}, {1e3 * setup.tbt_s[target]:.0f} ms")
            rows.append((*where, *(f"{rate:.2f}" for rate in rates.values()), *gains))
    others = [NAMES[each] for each in POLICIES if each != SARATHI_SERVE]
    head = ("model", "P99 TBT", *(NAMES[each] for each in POLICIES), *(f"Sarathi-Serve over {each}" for each in others))
    return Table(title="Capacity (requests/s), chat", head=head, rows=tuple(rows))


EXPERIMENT = Experiment(
    name="serving-today",
    title="Sarathi-Serve's gain on later devices, and today's schedulers",
    paper=BEYOND,
    shows="Whether chunked prefills still gain on H100 and H200, and what vLLM v1 and our own policy make of it.",
    about_s=60,
    plan=plan,
)
