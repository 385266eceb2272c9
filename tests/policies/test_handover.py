"""One policy in another's place: nobody is lost, nothing leaks, and what KV blocks hold stays what is read."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.cases import PAGED, RESERVING, make_requests, make_settings
from oracle.costs import COSTS
from oracle.job import Request

from policies import POLICIES, Batch, KVMemory, Policy, Sequence, choose
from traces.errors import InputError

WHOLE = ("faster-transformer", "orca", "vllm")
"""Policies that run no part of a prompt."""


class Cache:
    """What every place of the KV cache holds: which token of which text."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._tokens: dict[tuple[int, int], Any] = {}

    def run(self, batch: Batch) -> None:
        """Write what a batch computes, after a look at what it attends to."""
        slices = [(chunk.sequence, chunk.past, chunk.tokens) for chunk in batch.chunks]
        ticks = 0 if batch.group is None else batch.group.clock
        decodes = [] if batch.group is None else batch.decode_sequences()
        slices += [(sequence, sequence.computed + ticks - sequence.joined, 1) for sequence in decodes]
        for sequence, past, tokens in slices:
            assert len(sequence.blocks) * self._block_size >= past + tokens
            for place in range(past, past + tokens):
                self._tokens[self._where(sequence, place)] = self._token(sequence, place)
        for sequence, past, _ in slices:
            for place in range(past):
                assert self._tokens[self._where(sequence, place)] == self._token(sequence, place)

    def _where(self, sequence: Sequence, place: int) -> tuple[int, int]:
        return sequence.blocks[place // self._block_size], place % self._block_size

    def _token(self, sequence: Sequence, place: int) -> Any:
        block = place // self._block_size
        if block < len(sequence.block_hashes):
            return sequence.block_hashes[block], place % self._block_size
        return sequence.request_id, place


class Service:
    """Serves requests under one policy after another, as an engine does: one batch at a time."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.cache = Cache(policy.memory.block_size)
        self.served: dict[int, Sequence] = {}
        self.finished: list[int] = []
        self.gone: set[int] = set()
        self.now_s = 0.0

    def add(self, request: Request) -> None:
        sequence = Sequence(**vars(request))
        self.policy.add(sequence)
        self.served[sequence.request_id] = sequence

    def step(self) -> Batch | None:
        batch = self.policy.schedule(self.now_s)
        if batch is None:
            assert not self.policy.has_work
            return None
        self.cache.run(batch)
        self.now_s += 1.0
        self.finished += [sequence.request_id for sequence in self.policy.complete(batch, self.now_s).finished]
        return batch

    def cancel(self, request_id: int) -> None:
        if request_id not in self.finished:
            self.policy.cancel(self.served[request_id])
            self.gone.add(request_id)

    @property
    def residents(self) -> dict[int, list[int]]:
        """Block tables by request."""
        return {number: list(each.blocks) for number, each in self.served.items() if each.blocks}

    @property
    def unfinished(self) -> set[int]:
        return set(self.served) - self.gone - set(self.finished)

    def check(self) -> None:
        """Blocks in use are those that somebody holds; without a prefix cache nobody shares."""
        policy, tables = self.policy, self.residents
        held = Counter(block for blocks in tables.values() for block in blocks)
        leaving = [block for each in getattr(policy, "_leaving", []) for block in each.blocks]
        assert policy.pool.used == len({*held, *leaving})
        assert policy.pool.used + policy.pool.free == policy.memory.blocks
        assert all(0 <= block < policy.memory.blocks for block in held)
        assert policy.residents == len(tables) <= policy.settings.max_num_seqs

    def swap(self, policy: Policy) -> list[int] | None:
        """Put a policy in charge, and look at who stays; None where it refuses."""
        before, waiting = self.residents, [each.request_id for each in self.policy._queued()]
        counts = self._counts()
        try:
            lost = [sequence.request_id for sequence in policy.succeed(self.policy)]
        except InputError:
            assert (self.residents, self._counts()) == (before, counts)
            self.check()
            return None
        self.policy = policy
        self.check()
        after = self.residents
        live = {number: blocks for number, blocks in before.items() if number in self.unfinished}
        assert set(after) | set(lost) == set(live)
        assert not set(after) & set(lost)
        for number, blocks in after.items():
            common = min(len(blocks), len(live[number]))
            assert blocks[:common] == live[number][:common]
            assert self._counts()[number] == counts[number]
        queue = [each.request_id for each in policy.waiting]
        assert sorted(queue) == sorted([*waiting, *lost])
        if policy.name != "slack":
            assert queue == sorted(queue)
        for sequence in policy.waiting:
            assert (sequence.computed, sequence.target) == (0, sequence.prompt_tokens + sequence.generated)
        return lost

    def _counts(self) -> dict[int, tuple[int, int]]:
        """Tokens in the cache, and tokens that came out, by request."""
        counts = {}
        for number, each in self.served.items():
            ticks = 0 if each.group is None else each.group.clock - each.joined
            counts[number] = each.computed + ticks, each.generated + ticks
        return counts


def fresh(name: str, memory: KVMemory, **own: Any) -> Policy:
    return choose(name, **own).build(memory, costs=COSTS)


def random_memory(random: Random, requests: tuple[Request, ...], block_size: int) -> KVMemory:
    """From as many blocks as the longest request needs to all that are asked for."""
    longest = max(request.prompt_tokens + request.output_tokens for request in requests)
    context = longest + random.randint(0, 8)
    needed = -(-context // block_size)
    return KVMemory(blocks=2 * needed + random.randint(0, 4 * needed), block_size=block_size, max_model_len=context)


def play(first: str, second: str, random: Random, *, swaps: float = 0.15, cancels: float = 0.02) -> tuple[int, int]:
    """Serve random requests to the end, swapping to and fro; return how often, and how many residents stayed."""
    block_size = 1 << random.randint(0, 4)
    requests = make_requests(random.randint, block_size, random.randint(1, 20), (4, 12, 40))
    memory = random_memory(random, requests, block_size)

    def drawn(name: str) -> Policy:
        own = make_settings(name, random.randint, memory.max_model_len)
        if name == "vllm-v1":
            own["async_scheduling"] = random.random() < 0.3
        return fresh(name, memory, **(own | ({"watermark": 0.01} if name in PAGED else {})))

    service, upcoming, done, stayed = Service(drawn(first)), list(requests), 0, 0
    names = [second, first]
    for _ in range(5000):
        if upcoming and random.random() < 0.4:
            service.add(upcoming.pop(0))
        if service.step() is None and not upcoming:
            break
        service.check()
        if service.unfinished and random.random() < cancels:
            service.cancel(random.choice(sorted(service.unfinished)))
        if random.random() < swaps and service.swap(drawn(names[0])) is not None:
            done, stayed = done + 1, stayed + len(service.residents)
            names.reverse()
    else:
        raise AssertionError("no end in sight")
    assert not service.unfinished
    assert sorted(service.finished) == sorted(set(service.served) - service.gone)
    for number in service.finished:
        assert service.served[number].generated == service.served[number].output_tokens
    assert service.policy.pool.used == service.policy.residents == 0
    return done, stayed


@pytest.mark.parametrize("second", POLICIES)
@pytest.mark.parametrize("first", POLICIES)
def test_every_pair_of_policies(first: str, second: str) -> None:
    swaps = stayed = 0
    for seed in range(8):
        counts = play(first, second, Random(f"{first} {second} {seed}"))
        swaps, stayed = swaps + counts[0], stayed + counts[1]
    assert swaps > 10
    assert stayed > 5


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(list(POLICIES)), st.sampled_from(list(POLICIES)))
def test_any_two_policies_with_many_swaps(random: Random, first: str, second: str) -> None:
    play(first, second, random, swaps=0.5, cancels=0.1)


ROOMY = KVMemory(blocks=64, block_size=4, max_model_len=32)


def under_way(name: str, *, memory: KVMemory = ROOMY, requests: int = 4, steps: int = 6, **own: Any) -> Service:
    """Requests of 9 prompt and 8 output tokens, some iterations on."""
    service = Service(fresh(name, memory, **own))
    for number in range(requests):
        service.add(Request(number, 0.0, 9, 8))
    for _ in range(steps):
        service.step()
    return service


@pytest.mark.parametrize("second", POLICIES)
@pytest.mark.parametrize("first", POLICIES)
def test_where_there_is_room_every_decode_keeps_its_blocks(first: str, second: str) -> None:
    service = under_way(first, requests=3)
    decoding = {number: blocks for number, blocks in service.residents.items() if service.served[number].left <= 0}
    assert decoding
    assert not set(service.swap(fresh(second, ROOMY)) or []) & set(decoding)
    for number, blocks in decoding.items():
        kept = service.served[number].blocks
        assert kept[:2] == blocks[:2]
        assert service.served[number].preemptions == 0


@pytest.mark.parametrize("second", POLICIES)
def test_half_a_prompt_stays_where_prompts_run_in_chunks(second: str) -> None:
    service = under_way("sarathi-serve", requests=1, steps=1, max_num_batched_tokens=4)
    assert service.served[0].computed == 4
    lost = service.swap(fresh(second, ROOMY))
    assert lost == ([0] if second in WHOLE else [])
    assert service.served[0].computed == (0 if second in WHOLE else 4)
    batch = service.step()
    assert batch is not None
    assert batch.preemptions == (second in WHOLE)


@pytest.mark.parametrize("second", POLICIES)
def test_the_oldest_keep_the_seats_that_there_are(second: str) -> None:
    service = under_way("sarathi-serve")
    assert service.swap(fresh(second, ROOMY, max_num_seqs=2)) == [2, 3]
    assert set(service.residents) == {0, 1}
    assert [each.request_id for each in service.policy.waiting] == [2, 3]


@pytest.mark.parametrize("second", RESERVING)
def test_who_reserves_keeps_as_many_as_can_be_reserved_for(second: str) -> None:
    memory = KVMemory(blocks=20, block_size=4, max_model_len=32)
    service = under_way("sarathi-serve", memory=memory)
    assert len(service.residents) == 4
    assert service.swap(fresh(second, memory)) == [2, 3]
    assert [len(blocks) for blocks in service.residents.values()] == [8, 8]


def test_reserved_blocks_that_are_not_needed_come_free() -> None:
    service = under_way("orca")
    assert service.policy.pool.used == 4 * 8
    assert service.swap(fresh("sarathi-serve", ROOMY)) == []
    assert service.policy.pool.used == sum(len(blocks) for blocks in service.residents.values()) < 4 * 8


def sharing(name: str, **own: Any) -> Service:
    """Two requests whose prompts begin with the same two blocks."""
    service = Service(fresh(name, ROOMY, **own))
    for number in range(2):
        service.add(Request(number, 0.0, 11, 8, block_hashes=(1, 2)))
        service.step()
        service.step()
    return service


@pytest.mark.parametrize("second", POLICIES)
def test_blocks_of_a_shared_prefix_stay_shared(second: str) -> None:
    service = sharing("vllm-v1")
    first, other = service.residents.values()
    assert first[:2] == other[:2]
    assert service.swap(fresh(second, ROOMY)) == []
    first, other = service.residents.values()
    assert first[:2] == other[:2]
    service.cancel(0)
    service.check()
    while service.step():
        service.check()
    assert service.finished == [1]
    assert service.policy.pool.used == 0


def test_blocks_that_are_shared_are_counted_once() -> None:
    memory = KVMemory(blocks=14, block_size=4, max_model_len=40)
    service = Service(fresh("vllm-v1", memory))
    for number in range(2):
        service.add(Request(number, 0.0, 33, 4, block_hashes=tuple(range(8))))
        service.step()
    assert sum(len(blocks) for blocks in service.residents.values()) > memory.blocks
    assert service.swap(fresh("sarathi-serve", memory)) == []


def test_a_prefix_cache_goes_over_to_the_next() -> None:
    service = sharing("vllm-v1")
    while service.step():
        pass
    assert service.swap(fresh("vllm-v1", ROOMY, max_num_seqs=4)) == []
    service.add(Request(2, 0.0, 11, 8, block_hashes=(1, 2)))
    service.step()
    assert service.served[2].cached_tokens == 8


def test_a_prefix_cache_knows_the_prompts_that_came_before_it() -> None:
    service = sharing("orca")
    assert service.swap(fresh("vllm-v1", ROOMY)) == []
    service.add(Request(2, 0.0, 11, 8, block_hashes=(1, 2)))
    service.step()
    assert service.served[2].cached_tokens == 8


def test_without_prefix_caching_nothing_is_found_again() -> None:
    service = sharing("vllm-v1")
    assert service.swap(fresh("vllm-v1", ROOMY, enable_prefix_caching=False)) == []
    service.add(Request(2, 0.0, 11, 8, block_hashes=(1, 2)))
    service.step()
    assert service.served[2].cached_tokens == 0


def test_who_has_to_leave_finds_its_blocks_again_in_a_prefix_cache() -> None:
    service = under_way("sarathi-serve")
    assert service.swap(fresh("vllm-v1", ROOMY, max_num_seqs=3)) == [3]
    computed = service._counts()[3][1] + 9
    while not service.served[3].blocks:
        service.step()
    assert service.served[3].computed >= (computed - 1) // 4 * 4
    assert service.served[3].preemptions == 1


def test_a_policy_that_cannot_serve_a_request_changes_nothing() -> None:
    service = under_way("vllm-v1", memory=KVMemory(blocks=6, block_size=4, max_model_len=32))
    with pytest.raises(InputError, match="17 tokens need 8 KV blocks; expected at most the 6"):
        fresh("orca", service.policy.memory).succeed(service.policy)
    assert service.swap(fresh("orca", service.policy.memory)) is None
    while service.step():
        service.check()
    assert service.finished == [0, 1, 2, 3]


def test_only_a_fresh_policy_succeeds_another_between_two_batches() -> None:
    service = under_way("orca")
    with pytest.raises(ValueError, match="fresh policy"):
        under_way("vllm").policy.succeed(service.policy)
    with pytest.raises(ValueError, match="same memory"):
        fresh("vllm", KVMemory(blocks=9, max_model_len=32)).succeed(service.policy)
    service.policy.schedule(9.0)
    with pytest.raises(ValueError, match="in flight"):
        fresh("vllm", ROOMY).succeed(service.policy)
