"""Asynchronous scheduling of vLLM v1: nobody is lost, no block is, and batches follow the state of one batch ago."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policies import KVMemory, Sequence, choose
from policies.policy import Policy

requests = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 20), st.integers(1, 12)).map(tuple), min_size=1, max_size=12
)


def build(blocks: int, *, stages: int = 1, **given: object) -> Policy:
    memory = KVMemory(blocks=blocks, block_size=4, max_model_len=32)
    return choose("vllm-v1", max_num_seqs=4, max_num_batched_tokens=9, **given).build(memory, stages=stages)


def play(policy: Policy, arrivals: list[tuple[int, int, int]]) -> list[Sequence]:
    """Serve the requests, one batch a second, and look at the pool after each."""
    upcoming = [
        Sequence(number, arrival_s=float(second), prompt_tokens=prompt, output_tokens=output)
        for number, (second, prompt, output) in enumerate(sorted(arrivals))
    ]
    everyone = list(upcoming)
    for second in range(2000):
        while upcoming and upcoming[0].arrival_s <= second:
            policy.add(upcoming.pop(0))
        batch = policy.schedule(float(second))
        assert policy.pool.used + policy.pool.free == policy.memory.blocks
        if batch is None:
            assert not policy.has_work
            if not upcoming:
                return everyone
            continue
        assert batch.sequences <= 4
        assert all(chunk.tokens > 0 for chunk in batch.chunks)
        assert policy.has_work
        policy.complete(batch, second + 1.0)
    raise AssertionError("somebody waits for ever")


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(arrivals=requests, blocks=st.integers(8, 20))
def test_every_request_gets_its_output_and_every_block_comes_back(
    arrivals: list[tuple[int, int, int]], blocks: int
) -> None:
    policy = build(blocks, async_scheduling=True)
    served = play(policy, arrivals)
    assert [sequence.generated for sequence in served] == [sequence.output_tokens for sequence in served]
    assert policy.pool.used == 0
    assert policy.residents == 0


def test_with_pipeline_stages_it_makes_no_difference() -> None:
    arrivals = [(0, 15, 10), (0, 9, 2), (0, 4, 3), (1, 12, 6)]
    times = [
        [sequence.finished_s for sequence in play(build(12, stages=2, async_scheduling=ahead), arrivals)]
        for ahead in (True, False)
    ]
    assert times[0] == times[1]


def test_a_request_may_be_cancelled_before_it_is_seen() -> None:
    policy = build(12, async_scheduling=True)
    first = Sequence(0, arrival_s=0.0, prompt_tokens=4, output_tokens=2)
    second = Sequence(1, arrival_s=0.5, prompt_tokens=4, output_tokens=2)
    policy.add(first)
    batch = policy.schedule(0.0)
    assert batch is not None
    policy.add(second)
    policy.cancel(second)
    policy.complete(batch, 1.0)
    while (batch := policy.schedule(1.0)) is not None:
        policy.complete(batch, 2.0)
    assert first.generated == 2
    assert second.generated == 0
    assert not policy.has_work
