"""Bugs that public serving tools had, one test each."""

from __future__ import annotations

from typing import Any

import pytest
from oracle.cases import PAGED, RESERVING
from oracle.costs import COSTS
from oracle.job import Request
from oracle.loop import play, watch
from oracle.records import Case, Iteration
from oracle.systems import PolicySystem

from policies import POLICIES, KVMemory, Policy, Sequence, choose
from traces.errors import InputError


def requests(*shapes: tuple[int, int], gap_s: float = 0.0) -> tuple[Request, ...]:
    return tuple(
        Request(number, gap_s * number, prompt_tokens, output_tokens)
        for number, (prompt_tokens, output_tokens) in enumerate(shapes)
    )


def iterations(case: Case) -> list[Iteration]:
    return [event for event in play(case)[1] if isinstance(event, Iteration)]


def crowded(policy: str, *shapes: tuple[int, int], blocks: int, **settings: Any) -> Case:
    """A memory too small for all at once, blocks of one token, nothing spared."""
    if policy in PAGED:
        settings["watermark"] = 0.0
    return Case(
        policy=policy,
        settings=settings,
        blocks=blocks,
        block_size=1,
        max_model_len=20,
        stages=1,
        requests=requests(*shapes),
    )


def test_a_victim_in_mid_prefill_goes_back_to_prefilling_what_is_left() -> None:
    """One simulator turned the rest of the victim's prompt into output."""
    case = crowded("sarathi-serve", (2, 8), (12, 2), blocks=16, max_num_batched_tokens=4)
    victim_at: list[tuple[int, int, tuple[int, ...]]] = []
    for system, event in watch(case):
        victim = system.served[1]
        if isinstance(event, Iteration) and victim.preemptions and not victim_at:
            victim_at.append((victim.generated, victim.target, event.waiting))
    assert victim_at == [(0, 12, (1,))]
    assert [chunk for batch in iterations(case) for chunk in batch.chunks if chunk[0] == 1] == [
        (1, 2, 0),
        (1, 3, 2),
        (1, 3, 5),
        (1, 4, 0),
        (1, 4, 4),
        (1, 4, 8),
    ]


@pytest.mark.parametrize("policy", [*PAGED, "vllm-v1"])
def test_a_restart_does_not_renew_the_output_budget(policy: str) -> None:
    """One engine gave 174 tokens for 100."""
    case = crowded(policy, (3, 10), (3, 10), blocks=14)
    system, events = play(case)
    assert system.served[1].preemptions > 0
    assert system.served[1].target > 3, "it was preempted after it had produced output"
    assert [outcome.generated for outcome in system.outcomes()] == [10, 10]
    assert sum(event.outputs for event in events if isinstance(event, Iteration)) == 20


@pytest.mark.parametrize("policy", [*PAGED, "vllm-v1"])
def test_what_a_victim_has_produced_is_run_again_as_prompt_and_no_more(policy: str) -> None:
    case = crowded(policy, (3, 10), (3, 10), blocks=14)
    if policy == "vllm-v1":
        case.settings["enable_prefix_caching"] = False
    restarted: list[tuple[int, int]] = []
    for system, event in watch(case):
        if isinstance(event, Iteration) and system.served[1].preemptions:
            restarted += [(past, tokens) for number, tokens, past in event.chunks if number == 1]
    generated = system.served[1].target - 3
    assert generated > 0
    assert sum(tokens for _, tokens in restarted) == 3 + generated


def build(policy: str, *, blocks: int = 10, **settings: Any) -> Policy:
    memory = KVMemory(blocks=blocks, block_size=2, max_model_len=20)
    return choose(policy, **settings).build(memory, costs=COSTS)


def sequence(number: int, prompt_tokens: int, output_tokens: int) -> Sequence:
    return Sequence(number, arrival_s=0.0, prompt_tokens=prompt_tokens, output_tokens=output_tokens)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_above_the_limit_is_refused_and_blocks_nobody(policy: str) -> None:
    """In one engine it stayed at the head of the queue for ever."""
    served = build(policy)
    with pytest.raises(InputError, match=r"^17 prompt \+ 4 output = 21 tokens; expected at most --max-model-len 20$"):
        served.add(sequence(0, 17, 4))
    assert not served.has_work
    served.add(sequence(1, 16, 4))
    batch = served.schedule(0.0)
    assert batch is not None
    assert [chunk.sequence.request_id for chunk in batch.chunks] == [1]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_that_fills_the_context_and_the_memory_is_served(policy: str) -> None:
    """The last output token is never written to the cache: 19 tokens of KV for 20."""
    reserved = policy in RESERVING
    system = PolicySystem(build(policy, blocks=10, **({"watermark": 0.0} if policy in PAGED else {})))
    system.add(Request(0, 0.0, 12, 8))
    for step in range(100):
        if system.schedule(float(step)) is None:
            break
        system.complete(float(step))
    assert [outcome.generated for outcome in system.outcomes()] == [8]
    assert system.policy.pool.free == 10
    assert build(policy, blocks=10).memory.blocks_for(20 if reserved else 19) == 10


@pytest.mark.parametrize("policy", PAGED)
def test_a_request_that_the_watermark_never_lets_in_is_refused(policy: str) -> None:
    served = build(policy, blocks=10, watermark=0.2)
    served.check(9, 8)
    with pytest.raises(InputError, match="18 tokens need 9 KV blocks; expected at most the 8 "):
        served.check(9, 9)


@pytest.mark.parametrize("policy", RESERVING)
def test_a_memory_below_one_reservation_is_refused(policy: str) -> None:
    with pytest.raises(InputError, match="5 tokens need 10 KV blocks; expected at most the 9 "):
        build(policy, blocks=9).check(3, 2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("prompt_tokens", "output_tokens"), [(0, 1), (1, 0), (-3, 5)])
def test_a_request_without_prompt_or_output_is_refused(policy: str, prompt_tokens: int, output_tokens: int) -> None:
    with pytest.raises(InputError, match="expected at least 1 of each"):
        build(policy).add(sequence(0, prompt_tokens, output_tokens))


def test_a_token_limit_below_the_longest_prompt_is_refused_where_prompts_run_whole() -> None:
    with pytest.raises(InputError, match="max_num_batched_tokens is 19; expected at least max_model_len 20"):
        build("vllm", max_num_batched_tokens=19)
    assert build("vllm", max_num_batched_tokens=20).settings.max_num_seqs == 128


@pytest.mark.parametrize("policy", ["sarathi-serve", "chunked-only", "sarathi"])
def test_a_chunk_is_never_negative_where_decodes_alone_exceed_the_budget(policy: str) -> None:
    """With several batches in flight more decodes come together than the budget admits."""
    settings: dict[str, Any] = (
        {"chunk_size": 2, "tile_size": 1} if policy == "sarathi" else {"max_num_batched_tokens": 2}
    )
    memory = KVMemory(blocks=500, block_size=2, max_model_len=20)
    system = PolicySystem(choose(policy, max_num_seqs=100, **settings).build(memory, stages=8))
    for number in range(12):
        system.add(Request(number, 0.0, 2, 9))
    seen = fly_together(system)
    crowds = [batch for batch in seen if batch.decode_count > 2]
    assert crowds
    assert all(not batch.chunks for batch in crowds)
    assert all(tokens > 0 for batch in seen for _, tokens, _ in batch.chunks)


def fly_together(system: PolicySystem) -> list[Iteration]:
    """Fill every stage, then let all batches in flight come back at once."""
    seen: list[Iteration] = []
    for _ in range(100):
        while (batch := system.schedule(0.0)) is not None:
            seen.append(batch)
        while system.in_flight:
            system.complete(1.0)
    assert not system.has_work
    return seen


def test_two_prompts_in_a_pipeline_do_not_take_each_others_blocks_for_ever() -> None:
    """Both fit alone but not together, and their blocks are taken chunk by chunk."""
    memory = KVMemory(blocks=4, block_size=1, max_model_len=5)
    policy = choose(
        "vllm-v1",
        max_num_seqs=4,
        max_num_batched_tokens=4,
        long_prefill_token_threshold=1,
        enable_prefix_caching=False,
        scheduler_reserve_full_isl=False,
    ).build(memory, stages=2)
    system = PolicySystem(policy)
    for number in range(2):
        system.add(Request(number, 0.0, 4, 1))
    for _ in range(100):
        while system.schedule(0.0) is not None:
            pass
        if system.in_flight:
            system.complete(0.0)
    assert not system.has_work
    assert [outcome.generated for outcome in system.outcomes()] == [1, 1]
