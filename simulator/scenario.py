"""From what a person asks for to what is simulated, everything checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from profiler.model import load_model
from simulator.cluster import Cluster, Group, settled
from simulator.cluster_settings import ClusterSettings, GroupSettings, LinkSettings
from simulator.link import Link
from simulator.range_marks import check_measured
from simulator.simulation import Scenario
from traces.errors import InputError
from traces.workload import Workload

LENGTH_STEP = 256
"""A default max_model_len is a multiple of this, in tokens."""
KEPT = 64
"""Cost models that a process keeps, with what they have computed already: a few MB each."""
_cost_model = lru_cache(maxsize=KEPT)(load_cost_model)


def build_scenario(
    workload: Workload,
    *,
    model: str,
    profile: Path | None,
    max_model_len: int | None,
    policies: Collection[PolicyChoice],
    seed: int,
    strict: bool = False,
    cluster: ClusterSettings | None = None,
    **deployment: Any,
) -> Scenario:
    """Put workload, deployments and cost models together and check that every policy can serve every request.

    All policies get the same KV memory: activations are counted for the largest batch that any of them may run
    (see :meth:`policies.settings.Settings.most_tokens`). With ``strict`` nothing may rest on another device's
    measurements. Without ``cluster`` there is one replica; what its groups leave open is as ``deployment`` says.

    Raises
    ------
    InputError
        For whatever does not fit together; nothing has been written by then.
    """
    asked = cluster or ClusterSettings()
    limit = _length_limit(workload, model, max_model_len)
    common = {"model": model, "max_model_len": limit, **deployment}
    groups = tuple(
        _group(settings, workload, policies, common, profile, strict=strict, alone=len(asked.groups) == 1)
        for settings in asked.groups
    )
    placed = Cluster(
        groups=groups,
        router=asked.router,
        link=_link(asked.link, groups) if asked.disaggregated else None,
        failures=asked.failures,
    )
    return Scenario(workload=workload, cluster=placed, seed=seed, strict=strict)


def _group(
    settings: GroupSettings,
    workload: Workload,
    policies: Collection[PolicyChoice],
    common: dict[str, Any],
    profile: Path | None,
    *,
    strict: bool,
    alone: bool,
) -> Group:
    try:
        return _build_group(settings, workload, policies, common, profile, strict=strict)
    except InputError as error:
        if alone:
            raise
        name = settings.placement().get("device", common["device"])
        raise InputError(str(error), where=f"group of {settings.count} x {name} ({settings.role})") from error


def _build_group(
    settings: GroupSettings,
    workload: Workload,
    policies: Collection[PolicyChoice],
    common: dict[str, Any],
    profile: Path | None,
    *,
    strict: bool,
) -> Group:
    own = settings.policy_settings()
    choices = [settled(choice, own) for choice in policies]
    limit = common["max_model_len"]
    placed = place(settings, choices, common)
    if workload.hash_ids is not None:
        workload.hash_ids.of_blocks(0, int(workload.prompt_tokens[0]), placed.block_size)
    memory = KVMemory(blocks=placed.kv_blocks, block_size=placed.block_size, max_model_len=limit)
    cost_model = _cost_model(placed, profile=profile if settings.profile is None else Path(settings.profile))
    request = int(np.argmax(workload.total_tokens))
    for choice in choices:
        policy = choice.build(memory, stages=placed.pipeline_parallel_size, costs=cost_model)
        policy.check(int(workload.prompt_tokens[request]), int(workload.output_tokens[request]))
    if strict:
        check_measured(cost_model)
    return Group(
        deployment=placed,
        cost_model=cost_model,
        memory=memory,
        count=settings.count,
        role=settings.role,
        weight=settings.weight,
        policy_settings=own,
    )


def place(settings: GroupSettings, choices: Collection[PolicyChoice], common: dict[str, Any]) -> Deployment:
    """Return the deployment of a group, with room for the largest batch that any of the policies may run.

    ``choices`` are settled (see :func:`simulator.cluster.settled`); what the group leaves open is as ``common`` says.

    Raises
    ------
    InputError
        If the model cannot be split so.
    """
    return Deployment(
        max_num_batched_tokens=max(choice.settings.most_tokens(common["max_model_len"]) for choice in choices),
        max_num_seqs=max(choice.settings.max_num_seqs for choice in choices),
        **{**common, **settings.placement()},
    )


def _link(settings: LinkSettings, groups: Collection[Group]) -> Link:
    """Return the link as it was asked for; by default each GPU of a replica sends by an adapter of its own."""
    slowest = min(group.deployment.hardware.internode_bandwidth_bytes_per_s * group.deployment.gpus for group in groups)
    spec = next(iter(groups)).deployment.spec
    return Link(
        bandwidth_bytes_per_s=settings.bandwidth_bytes_per_s or slowest,
        latency_s=settings.latency_s,
        kv_bytes_per_token=spec.kv_bytes_per_token(),
    )


def _length_limit(workload: Workload, model: str, asked: int | None) -> int:
    """Return the longest prompt plus output that is served, which no request of the workload exceeds."""
    if asked is not None:
        _check_lengths(workload, asked, "--max-model-len")
        return asked
    longest = int(workload.total_tokens.max())
    limit = length_limit(longest, model)
    _check_lengths(workload, limit, f"the context of {model} (or a --max-model-len beyond it),")
    return limit


def length_limit(longest: int, model: str) -> int:
    """Return the prompt plus output, in tokens, that a model serves by default where no request has more than
    ``longest``; never more than it was trained for."""
    return min(-(-longest // LENGTH_STEP) * LENGTH_STEP, load_model(model).max_position)


def _check_lengths(workload: Workload, limit: int, name: str) -> None:
    total = workload.total_tokens
    over = np.flatnonzero(total > limit)
    if len(over):
        first = int(over[0])
        raise InputError(
            f"{workload.prompt_tokens[first]} prompt + {workload.output_tokens[first]} output tokens = "
            f"{total[first]}, and {len(over) - 1} more requests are too long",
            where=f"{workload.name}, request {first + 1}",
            expected=f"at most {name} {limit}",
        )
