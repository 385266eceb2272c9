"""Random cases: small memories, many preemptions, prompts that begin alike."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

from oracle.job import Request
from oracle.records import Case

RESERVING = ("faster-transformer", "orca", "sarathi")
PAGED = ("vllm", "sarathi-serve", "hybrid-only", "chunked-only", "slack")
WITH_PREEMPTION = (*PAGED, "vllm-v1")

Pick = Callable[[int, int], int]
"""Draws an integer of a closed range."""


@st.composite
def cases(draw: st.DrawFn, /, policy: str, **fixed: Any) -> Case:
    """Small cases, which hypothesis can make smaller still."""
    return make_case(policy, lambda low, high: draw(st.integers(low, high)), requests=9, **fixed)


def random_case(policy: str, seed: int, *, requests: int = 25, **fixed: Any) -> Case:
    """A larger case, from a seed."""
    return make_case(policy, Random(f"{policy} {seed}").randint, requests=requests, **fixed)


def make_case(policy: str, pick: Pick, *, requests: int, **fixed: Any) -> Case:
    block_size = pick(1, 16) if pick(0, 1) else 1 << pick(0, 4)
    longest = (4, 12, 40) if policy != "slack" else (4, 40, 250)
    served = make_requests(pick, block_size, pick(1, requests), longest)
    most = max(request.prompt_tokens + request.output_tokens for request in served)
    max_model_len = most + pick(0, 8)
    settings = make_settings(policy, pick, max_model_len)
    values: dict[str, Any] = {
        "policy": policy,
        "settings": settings,
        "blocks": make_memory(policy, pick, settings, block_size, most, max_model_len),
        "block_size": block_size,
        "max_model_len": max_model_len,
        "stages": pick(1, 4),
        "requests": served,
        "seed": pick(0, 999),
        "eagerness": (1.0, 0.7, 0.4)[pick(0, 2)],
    }
    return Case(**(values | fixed))


def make_requests(pick: Pick, block_size: int, count: int, longest: tuple[int, int, int]) -> tuple[Request, ...]:
    """Bursts of arrivals; prompts of three families, of which each shares some first blocks."""
    made, arrival_s = [], 0.0
    for number in range(count):
        arrival_s += (0.0, 0.0, 0.5, 4.0)[pick(0, 3)]
        prompt_tokens = pick(1, longest[pick(0, 2)])
        made.append(
            Request(
                request_id=number,
                arrival_s=arrival_s,
                prompt_tokens=prompt_tokens,
                output_tokens=pick(1, 25),
                block_hashes=make_hashes(pick, number, prompt_tokens // block_size),
            )
        )
    return tuple(made)


def make_hashes(pick: Pick, number: int, blocks: int) -> tuple[int, ...]:
    """None at all, or some blocks in common with the family and then the request's own."""
    family = pick(0, 3)
    if family == 0:
        return ()
    shared = pick(0, blocks)
    own = [10_000 + 1000 * number + index for index in range(shared, blocks)]
    return (*(1000 * family + index for index in range(shared)), *own)


def make_settings(policy: str, pick: Pick, max_model_len: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"max_num_seqs": pick(1, 12)}
    if policy in PAGED:
        settings["watermark"] = (0.0, 0.01, 0.1, 0.4)[pick(0, 3)]
    if policy in ("sarathi-serve", "chunked-only"):
        settings["max_num_batched_tokens"] = pick(1, 40)
    elif policy == "slack":
        settings["max_num_batched_tokens"] = pick(1, (40, 200)[pick(0, 1)])
        settings["tbt_s"] = (0.25, 1.0, 5.0, 20.0)[pick(0, 3)]
        settings["ttft_s"] = (0.5, 4.0, 40.0)[pick(0, 2)]
        settings["patience"] = (0.0, 1.0, 10.0)[pick(0, 2)]
    elif policy == "vllm":
        settings["max_num_batched_tokens"] = max_model_len + pick(0, 40) if pick(0, 1) else None
    elif policy == "sarathi":
        settings["tile_size"] = pick(1, 8)
        settings["chunk_size"] = settings["tile_size"] * pick(1, 5)
    elif policy == "vllm-v1":
        settings["max_num_batched_tokens"] = settings["max_num_seqs"] + pick(0, 30)
        settings["long_prefill_token_threshold"] = pick(1, 12) if pick(0, 1) else None
        settings["enable_prefix_caching"] = pick(0, 3) > 0
        settings["scheduler_reserve_full_isl"] = pick(0, 1) > 0
    return settings


def make_memory(
    policy: str, pick: Pick, settings: dict[str, Any], block_size: int, longest: int, max_model_len: int
) -> int:
    """Blocks for the longest request and little more: from under two of them to all that is asked for."""
    if policy in RESERVING:
        needed = -(-max_model_len // block_size)
        return needed * pick(1, 6) + pick(0, needed - 1)
    needed = -(-(longest - 1) // block_size)
    blocks = needed + pick(0, needed) + (pick(0, 4 * needed) if pick(0, 2) == 0 else 0)
    while blocks - int(settings.get("watermark", 0.0) * blocks) < needed:
        blocks += 1
    return max(1, blocks)
