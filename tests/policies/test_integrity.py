"""Batches that fail, and KV caches that do not add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.costs import COSTS

from policies import POLICIES, KVMemory, choose
from policies.batch import Batch
from policies.integrity import count_problem, kv_problem
from policies.policy import Policy
from policies.sequence import Sequence

BLOCK_SIZE, CONTEXT = 4, 32
MEMORY = KVMemory(blocks=24, block_size=BLOCK_SIZE, max_model_len=CONTEXT)
CHOICES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in POLICIES),
    ("vllm-v1", {"async_scheduling": True}),
    ("vllm-v1", {"enable_prefix_caching": False}),
    ("sarathi-serve", {"max_num_batched_tokens": 6}),
]
choices = pytest.mark.parametrize(("name", "asked"), CHOICES, ids=lambda value: str(value) if value else "")


class Cache:
    """What lies in each block, as far as prompts that begin alike can share it."""

    def __init__(self) -> None:
        self.holds: dict[int, object] = {}

    def run(self, batch: Batch, *, failed: bool) -> None:
        """Fill the blocks that chunks end in; what was to be found there must be there, or come with this batch."""
        for sequence, tokens, past in batch.chunks:
            first, last = past // BLOCK_SIZE, (past + tokens) // BLOCK_SIZE
            for place in range(first, min(last, len(sequence.block_hashes))):
                self.holds[sequence.blocks[place]] = "rubbish" if failed else sequence.block_hashes[place]
        if not failed:
            for sequence, _, past in batch.chunks:
                for place in range(min(past // BLOCK_SIZE, len(sequence.block_hashes))):
                    assert self.holds[sequence.blocks[place]] == sequence.block_hashes[place]


def newcomer(number: int, prompt_tokens: int, output_tokens: int, likeness: int) -> Sequence:
    """A request; all of one likeness begin alike."""
    hashes = [1000 * likeness + place for place in range(prompt_tokens // BLOCK_SIZE)]
    return Sequence(
        number, arrival_s=float(number), prompt_tokens=prompt_tokens, output_tokens=output_tokens, block_hashes=hashes
    )


@choices
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_batch_that_fails_takes_its_requests_and_their_kv_along_and_nothing_else(
    name: str, asked: dict[str, Any], data: st.DataObject
) -> None:
    policy = choose(name, max_num_seqs=6, **asked).build(MEMORY, costs=COSTS)
    random = data.draw(st.randoms(use_true_random=False))
    live: dict[int, Sequence] = {}
    cache, now_s = Cache(), 0.0
    for number in range(data.draw(st.integers(3, 20))):
        sequence = newcomer(number, random.randint(1, 20), random.randint(1, 12), random.randint(0, 1))
        policy.add(sequence)
        live[number] = sequence
        _run(policy, live, cache, random, now_s, most=random.randint(0, 6))
        now_s += 10.0
    while policy.has_work:
        _run(policy, live, cache, random, now_s, most=1)
        now_s += 1.0
    policy.schedule(now_s)
    assert not live
    assert policy.pool.used == policy.residents == 0


def _run(policy: Policy, live: dict[int, Sequence], cache: Cache, random: Any, now_s: float, *, most: int) -> None:
    """Run up to ``most`` batches, some of which fail."""
    for _ in range(most):
        batch = policy.schedule(now_s)
        if batch is None:
            break
        failed = random.random() < 0.2
        inside = {*batch.decode_sequences(), *(chunk.sequence for chunk in batch.chunks)}
        cache.run(batch, failed=failed)
        if failed:
            lost = policy.abandon(batch)
            assert set(lost) == inside
            assert len(lost) == len(inside)
            gone = lost
        else:
            gone = policy.complete(batch, now_s + 0.5).finished
        for sequence in gone:
            del live[sequence.request_id]
        assert kv_problem(policy, live.values()) is None


def two_running(name: str) -> tuple[Policy, list[Sequence]]:
    policy = choose(name, max_num_seqs=6).build(MEMORY, costs=COSTS)
    sequences = [newcomer(number, 6, 5, number) for number in range(2)]
    for sequence in sequences:
        policy.add(sequence)
    for now_s in (0.0, 1.0):
        batch = policy.schedule(now_s)
        assert batch is not None
        policy.complete(batch, now_s + 0.5)
    assert kv_problem(policy, sequences) is None
    return policy, sequences


def double(policy: Policy, sequences: list[Sequence]) -> None:
    sequences[0].blocks[0] = sequences[1].blocks[0]


def free_and_held(policy: Policy, sequences: list[Sequence]) -> None:
    blocks = list(sequences[0].blocks)
    policy.pool.release(sequences[0])
    sequences[0].blocks = blocks


def lose(policy: Policy, sequences: list[Sequence]) -> None:
    sequences[0].blocks.pop()


def keep(policy: Policy, sequences: list[Sequence]) -> None:
    sequences.pop()


def hide(policy: Policy, sequences: list[Sequence]) -> None:
    stranger = newcomer(9, 4, 1, 9)
    policy.pool.allocate(stranger, 1)
    sequences.append(stranger)


def miscount(policy: Policy, sequences: list[Sequence]) -> None:
    policy.residents += 1


@pytest.mark.parametrize("name", ["vllm", "vllm-v1", "sarathi-serve"])
@pytest.mark.parametrize("harm", [double, free_and_held, lose, keep, hide, miscount])
def test_what_does_not_add_up_is_noticed(name: str, harm: Callable[[Policy, list[Sequence]], None]) -> None:
    policy, sequences = two_running(name)
    harm(policy, sequences)
    assert kv_problem(policy, sequences) is not None


def test_mere_counts_tell_of_blocks_that_nobody_holds() -> None:
    policy, sequences = two_running("vllm")
    assert count_problem(policy) is None
    for sequence in sequences:
        policy.cancel(sequence)
    assert count_problem(policy) is None
    policy.pool.allocate(sequences[0], 1)
    assert count_problem(policy) == "0 residents hold 1 KV blocks"
