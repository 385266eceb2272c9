"""KV blocks: in use + free = all, each table covers its tokens exactly, none is in two tables."""

from __future__ import annotations

from collections import Counter

import pytest
from oracle.cases import RESERVING, random_case
from oracle.loop import play, watch
from oracle.records import Cancelled, Case, Iteration, Tokens
from oracle.systems import PolicySystem

from policies import POLICIES, BlockPool, KVMemory, Sequence

SEEDS = range(12)

every_policy = pytest.mark.parametrize("policy", POLICIES)


def tables(system: PolicySystem) -> dict[int, list[int]]:
    return {number: sequence.blocks for number, sequence in system.served.items() if sequence.blocks}


@every_policy
def test_blocks_in_use_and_free_blocks_are_all_blocks(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed, cancels=0.03, stops=0.1)
        for system, event in watch(case):
            held = [block for table in tables(system).values() for block in table]
            assert set(held) <= set(range(case.blocks))
            assert event.used_blocks == len(set(held)) <= case.blocks
            assert len(set(held)) + system.policy.pool.free == case.blocks
            assert len(tables(system)) == event.residents


@every_policy
def test_all_blocks_are_free_in_the_end(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed, cancels=0.03, stops=0.1)
        system, _ = play(case)
        assert system.policy.pool.free == case.blocks
        assert not tables(system)
        assert take_all(system.policy.pool, case.blocks) == list(range(case.blocks))


def take_all(pool: BlockPool, count: int) -> list[int]:
    everything = Sequence(10_000, arrival_s=0.0, prompt_tokens=1, output_tokens=1)
    pool.allocate(everything, count)
    return sorted(everything.blocks)


@every_policy
def test_every_table_covers_exactly_its_tokens(policy: str) -> None:
    """Those of the batches in flight included, and what the policy takes in advance."""
    for seed in SEEDS:
        case = random_case(policy, seed)
        covered: Counter[int] = Counter()
        for system, event in watch(case):
            if isinstance(event, Iteration):
                covered.update(event.decodes)
                for number, tokens, past in event.chunks:
                    covered[number] = past + tokens
            for number, table in tables(system).items():
                due = tokens_due(case, system.served[number], covered[number])
                assert len(table) == case.memory.blocks_for(due)


def tokens_due(case: Case, sequence: Sequence, covered: int) -> int:
    if case.policy in RESERVING:
        return case.max_model_len
    return covered if case.policy == "vllm-v1" else max(covered, sequence.target)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "vllm-v1"])
def test_no_block_is_in_two_tables(policy: str) -> None:
    for seed in SEEDS:
        for system, _ in watch(random_case(policy, seed)):
            held = [block for table in tables(system).values() for block in table]
            assert len(held) == len(set(held))


def test_only_blocks_with_equal_content_are_in_two_tables() -> None:
    shared = 0
    for seed in SEEDS:
        for system, _ in watch(random_case("vllm-v1", seed)):
            contents: dict[int, tuple[int, object]] = {}
            for number, table in tables(system).items():
                hashes = system.served[number].block_hashes
                for index, block in enumerate(table):
                    content = (index, hashes[index] if index < len(hashes) else number)
                    shared += block in contents
                    assert contents.setdefault(block, content) == content
                assert len(table) == len(set(table))
    assert shared > 50


def test_without_prefix_caching_nothing_is_shared() -> None:
    for seed in SEEDS:
        case = random_case("vllm-v1", seed)
        case.settings["enable_prefix_caching"] = False
        for system, _ in watch(case):
            held = [block for table in tables(system).values() for block in table]
            assert len(held) == len(set(held))
            assert not any(sequence.cached_tokens for sequence in system.served.values())


@every_policy
def test_a_sequence_in_flight_keeps_its_blocks(policy: str) -> None:
    for seed in SEEDS:
        before: dict[int, list[int]] = {}
        for system, event in watch(random_case(policy, seed, stages=3, cancels=0.05)):
            now = {number: list(system.served[number].blocks) for number in set().union(*system.flights)}
            if isinstance(event, Iteration | Cancelled):
                assert all(now[number] == table for number, table in before.items())
            before = now


@every_policy
def test_a_sequence_holds_blocks_from_its_admission_to_its_end(policy: str) -> None:
    for seed in SEEDS:
        for system, event in watch(random_case(policy, seed)):
            for sequence in system.served.values():
                waits = sequence in system.policy.waiting
                ended = sequence.finished_s == sequence.finished_s
                assert bool(sequence.blocks) != (waits or ended)
            if isinstance(event, Tokens):
                assert all(not system.served[number].blocks for number in event.finished)


def test_a_pool_gives_and_takes_back() -> None:
    memory = KVMemory(blocks=5, block_size=4)
    pool = BlockPool(memory)
    one, other = (Sequence(number, arrival_s=0.0, prompt_tokens=9, output_tokens=1) for number in range(2))
    pool.allocate(one, memory.blocks_for(9))
    pool.allocate(other, 1)
    assert (len(one.blocks), len(other.blocks), pool.used, pool.free) == (3, 1, 4, 1)
    pool.allocate(other, 0)
    pool.release(one)
    assert (one.blocks, pool.used, pool.free) == ([], 1, 4)
    with pytest.raises(AssertionError, match="more blocks"):
        pool.allocate(one, 5)


@pytest.mark.parametrize("name", ["blocks", "block_size", "max_model_len"])
def test_a_memory_without_room_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        KVMemory(**({"blocks": 1, "block_size": 1, "max_model_len": 1} | {name: 0}))


def test_blocks_for_tokens() -> None:
    memory = KVMemory(blocks=8, block_size=16)
    assert [memory.blocks_for(tokens) for tokens in (0, 1, 15, 16, 17, 32, 33)] == [0, 1, 1, 1, 2, 2, 3]
