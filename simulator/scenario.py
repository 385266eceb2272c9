"""From what a person asks for to what is simulated, everything checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from profiler.model import load_model
from simulator.range_marks import check_measured
from simulator.simulation import Scenario
from traces.errors import InputError
from traces.workload import Workload

LENGTH_STEP = 256
"""A default max_model_len is a multiple of this, in tokens."""


def build_scenario(
    workload: Workload,
    *,
    model: str,
    device: str,
    profile: Path | None,
    max_model_len: int | None,
    policies: Collection[PolicyChoice],
    seed: int,
    strict: bool = False,
    **deployment: Any,
) -> Scenario:
    """Put workload, deployment and cost model together and check that every policy can serve every request.

    All policies get the same KV memory: activations are counted for the largest batch that any of them may run
    (see :meth:`policies.settings.Settings.most_tokens`). With ``strict`` nothing may rest on another device's
    measurements.

    Raises
    ------
    InputError
        For whatever does not fit together; nothing has been written by then.
    """
    longest = int((workload.prompt_tokens + workload.output_tokens).max())
    if max_model_len is None:
        limit = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, load_model(model).max_position)
        _check_lengths(workload, limit, f"the context of {model} (or a --max-model-len beyond it),")
    else:
        limit = max_model_len
        _check_lengths(workload, limit, "--max-model-len")
    placed = Deployment(
        model=model,
        device=device,
        max_model_len=limit,
        max_num_batched_tokens=max(choice.settings.most_tokens(limit) for choice in policies),
        max_num_seqs=max(choice.settings.max_num_seqs for choice in policies),
        **deployment,
    )
    if workload.hash_ids is not None:
        workload.hash_ids.of_blocks(0, int(workload.prompt_tokens[0]), placed.block_size)
    memory = KVMemory(blocks=placed.kv_blocks, block_size=placed.block_size, max_model_len=limit)
    request = int(np.argmax(workload.prompt_tokens + workload.output_tokens))
    for choice in policies:
        policy = choice.build(memory, stages=placed.pipeline_parallel_size)
        policy.check(int(workload.prompt_tokens[request]), int(workload.output_tokens[request]))
    cost_model = load_cost_model(placed, profile=profile)
    if strict:
        check_measured(cost_model)
    return Scenario(
        workload=workload, deployment=placed, cost_model=cost_model, memory=memory, seed=seed, strict=strict
    )


def _check_lengths(workload: Workload, limit: int, name: str) -> None:
    total = workload.prompt_tokens + workload.output_tokens
    over = np.flatnonzero(total > limit)
    if len(over):
        first = int(over[0])
        raise InputError(
            f"{workload.prompt_tokens[first]} prompt + {workload.output_tokens[first]} output tokens = "
            f"{total[first]}, and {len(over) - 1} more requests are too long",
            where=f"{workload.name}, request {first + 1}",
            expected=f"at most {name} {limit}",
        )
