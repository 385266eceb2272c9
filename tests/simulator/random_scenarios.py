"""Random clusters of small replicas on random workloads, in which much happens at exactly the same moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from oracle.cases import Pick, make_memory, make_settings

from policies import POLICIES, choose
from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.routing.catalog import ROUTERS, parse_router
from simulator.cluster import Cluster, Group
from simulator.failures import FailureSettings, Outage
from simulator.link import Link
from simulator.simulation import Scenario
from tests.simulator.plain_times import PaperDeployment, PlainTimes
from traces.workload import HashIds, Workload

TICK_S = 0.25


@dataclass(frozen=True)
class FormulaTimes(PlainTimes):
    """Seconds by a linear formula on every stage; ``each_s`` a token, ``past_s`` a token of context."""

    base_s: float = TICK_S
    each_s: float = 0.0
    past_s: float = 0.0
    hand_off_s: float = 0.0

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        tokens = batch.prefill_tokens + batch.decodes
        return self.base_s + self.each_s * tokens + self.past_s * batch.decode_context_sum

    def hand_off_time(self, tokens: int) -> float:
        return self.hand_off_s

    def describe(self) -> dict[str, Any]:
        return {"device": "paper", "from": "paper", "transferred": False}


TIMES = (
    FormulaTimes(),
    FormulaTimes(hand_off_s=TICK_S),
    FormulaTimes(base_s=0.125, each_s=0.0625, hand_off_s=0.125),
    FormulaTimes(base_s=0.01, each_s=0.0001, past_s=1e-7, hand_off_s=0.001),
    FormulaTimes(base_s=0.1, each_s=1 / 30, past_s=0.7e-3),
)
"""Constant; equal moments that come about as different sums; and such that round."""


def make_scenario(pick: Pick) -> tuple[Scenario, PolicyChoice]:
    """Return a random scenario, and the policy to run on it."""
    name = list(POLICIES)[pick(0, len(POLICIES) - 1)]
    block_size = (1, 2, 3, 4, 16)[pick(0, 4)]
    workload = make_workload(pick, block_size)
    limit = int(workload.total_tokens.max()) + pick(0, 8)
    settings = make_settings(name, pick, limit)
    if name == "vllm-v1":
        settings["async_scheduling"] = bool(pick(0, 1))

    def memory() -> KVMemory:
        longest = int(workload.total_tokens.max())
        blocks = make_memory(name, pick, settings, block_size, longest, limit)
        return KVMemory(blocks=blocks, block_size=block_size, max_model_len=limit)

    groups = make_groups(pick, memory)
    apart = groups[0].role != "both"
    cluster = Cluster(
        groups=groups,
        router=parse_router(list(ROUTERS)[pick(0, len(ROUTERS) - 1)], where="the test"),
        link=make_link(pick) if apart else None,
        failures=make_failures(pick, sum(group.count for group in groups)),
    )
    return Scenario(workload=workload, cluster=cluster, seed=pick(0, 99)), choose(name, **settings)


def make_workload(pick: Pick, block_size: int) -> Workload:
    """Bursts and gaps at multiples of a tick, or all at once, or at any moment; prompts that begin alike."""
    count = pick(1, (3, 12, 30)[pick(0, 2)])
    gaps_s = ((0.0,), (0.0, 0.0, TICK_S, 4 * TICK_S), (0.0, TICK_S, 40.0), (0.013, 0.1, 0.7))[pick(0, 3)]
    longest, most = (1, 4, 12, 40)[pick(0, 3)], (1, 4, 25, 200)[pick(0, 3)]
    prompts = np.array([pick(1, longest) for _ in range(count)])
    return Workload(
        name="random",
        arrival_s=np.cumsum([gaps_s[pick(0, len(gaps_s) - 1)] for _ in range(count)]),
        prompt_tokens=prompts,
        output_tokens=np.array([pick(1, most) for _ in range(count)]),
        hash_ids=make_hashes(pick, prompts, block_size) if pick(0, 2) else None,
    )


def make_hashes(pick: Pick, prompts: Any, block_size: int) -> HashIds:
    """Prompts of two families share some first blocks; blocks of the trace are one or two of the cache."""
    size = block_size * pick(1, 2)
    values: list[list[int]] = []
    for number, prompt in enumerate(prompts.tolist()):
        blocks = -(-prompt // size)
        family, shared = pick(1, 2), pick(0, blocks)
        own = range(10_000 + 1000 * number, 10_000 + 1000 * number + blocks - shared)
        values.append([*range(1000 * family, 1000 * family + shared), *own])
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in values])])
    return HashIds(offsets=offsets, values=np.array([value for each in values for value in each]), block_size=size)


def make_groups(pick: Pick, memory: Callable[[], KVMemory]) -> tuple[Group, ...]:
    """One replica, several alike, unequal groups, or prefill and decode replicas in either order."""
    roles: Sequence[str] = (("both",), ("both",), ("both", "both"), ("prefill", "decode"), ("decode", "prefill"))[
        pick(0, 4)
    ]
    weighed, same = pick(0, 1), pick(0, 2)
    groups = []
    for role in roles:
        stages = (1, 1, 2, 3)[pick(0, 3)]
        group = Group(
            deployment=PaperDeployment(pipeline_parallel_size=stages),  # type: ignore[arg-type]
            cost_model=TIMES[pick(0, len(TIMES) - 1)],  # type: ignore[arg-type]
            memory=memory(),
            count=pick(1, 4 // len(roles)),
            role=role,
            weight=(0.5, 1.0, 3.0)[pick(0, 2)] if weighed else None,
        )
        groups.append(replace(groups[0], role=role) if groups and same == 0 else group)
    return tuple(groups)


def make_link(pick: Pick) -> Link:
    """A link over which everything takes a tick, or so long for each token, or next to nothing."""
    latency_s, per_token_s = ((TICK_S, 0.0), (0.0, 0.0625), (0.002, 1e-4))[pick(0, 2)]
    return Link(bandwidth_bytes_per_s=1.0, latency_s=latency_s, kv_bytes_per_token=per_token_s)  # type: ignore[arg-type]


def make_failures(pick: Pick, replicas: int) -> FailureSettings:
    """None, or at random moments, or at multiples of a tick: exactly when something else happens."""
    kind = pick(0, 3)
    if kind == 0:
        return FailureSettings(mtbf_s=(60.0, 300.0)[pick(0, 1)], mttr_s=(0.5, 10.0)[pick(0, 1)])
    if kind == 1:
        return FailureSettings()
    listed = []
    for replica in range(replicas):
        up_s = 0.0
        for _ in range(pick(0, 2)):
            failed_s, down_s = up_s + TICK_S * pick(1, 40), TICK_S * pick(1, 20)
            listed.append(Outage(replica, failed_s, down_s))
            up_s = failed_s + down_s
    return FailureSettings(listed=tuple(listed))
