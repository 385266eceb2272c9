"""Requests that leave early: cancelled by the user, or stopped by the model. Nothing leaks, others finish."""

from __future__ import annotations

import pytest
from oracle.cases import random_case
from oracle.costs import COSTS
from oracle.job import Request
from oracle.loop import Event, play
from oracle.records import Cancelled, Case, Iteration, Tokens
from oracle.systems import PolicySystem

from policies import POLICIES, KVMemory, choose

SEEDS = range(15)

every_policy = pytest.mark.parametrize("policy", POLICIES)


def system_of(policy: str, *, stages: int = 1, requests: int = 3, output_tokens: int = 5) -> PolicySystem:
    """Some requests of 4 prompt tokens, in a memory with room for all."""
    memory = KVMemory(blocks=40, block_size=4, max_model_len=16)
    system = PolicySystem(choose(policy, max_num_seqs=8).build(memory, stages=stages, costs=COSTS))
    for number in range(requests):
        system.add(Request(number, 0.0, 4, output_tokens))
    return system


def run(system: PolicySystem) -> list[Event]:
    """Run all there is to its end, one batch at a time."""
    seen: list[Event] = []
    for _ in range(100):
        if (batch := system.schedule(0.0)) is not None:
            seen += [batch, system.complete(1.0)]
    assert not system.has_work
    assert system.policy.pool.used == system.policy.residents == system.in_flight == 0
    return seen


def cancelled_in(events: list[Event]) -> set[int]:
    return {event.request_id for event in events if isinstance(event, Cancelled)}


def finished_in(events: list[Event]) -> set[int]:
    return {number for event in events if isinstance(event, Tokens) for number in event.finished}


def leaving(policy: str, seed: int) -> Case:
    return random_case(policy, seed, cancels=0.05, stops=0.2)


@every_policy
def test_nothing_leaks_and_all_others_finish(policy: str) -> None:
    cancelled = stopped = 0
    for seed in SEEDS:
        case = leaving(policy, seed)
        system, events = play(case)
        gone, finished = cancelled_in(events), finished_in(events)
        assert gone | finished == set(system.served)
        for number in finished:
            sequence = system.served[number]
            assert 1 <= sequence.generated <= sequence.output_tokens
            stopped += sequence.generated < sequence.output_tokens
        cancelled += len(gone - finished)
        policy_ = system.policy
        assert (policy_.residents, policy_.in_flight, policy_.pool.used) == (0, 0, 0)
        assert not policy_.waiting
        assert not policy_.prefilling
        assert len(policy_.decodes) == 0
    assert cancelled > 10
    assert stopped > 10


@every_policy
def test_a_cancelled_request_is_in_no_later_batch(policy: str) -> None:
    for seed in SEEDS:
        gone: set[int] = set()
        for event in play(leaving(policy, seed))[1]:
            if isinstance(event, Cancelled):
                gone.add(event.request_id)
            elif isinstance(event, Iteration):
                assert not gone & {*event.decodes, *(number for number, _, _ in event.chunks)}


@every_policy
def test_cancelling_a_waiting_request(policy: str) -> None:
    system = system_of(policy)
    system.cancel(1)
    assert finished_in(run(system)) == {0, 2}


@every_policy
def test_cancelling_a_ready_resident_frees_its_blocks_at_once(policy: str) -> None:
    system = system_of(policy, requests=1)
    system.schedule(0.0)
    system.complete(1.0)
    assert system.policy.pool.used > 0
    system.cancel(0)
    assert system.policy.pool.used == 0
    assert not system.has_work


@every_policy
def test_cancelling_in_flight_waits_for_the_batch(policy: str) -> None:
    system = system_of(policy, stages=2, requests=1)
    system.schedule(0.0)
    used = system.policy.pool.used
    system.cancel(0)
    assert system.policy.pool.used == used > 0
    assert system.has_work
    system.complete(1.0)
    assert system.policy.pool.used == 0
    assert not system.has_work


@every_policy
def test_cancelling_twice_or_after_the_end_does_nothing(policy: str) -> None:
    system = system_of(policy)
    system.schedule(0.0)
    system.cancel(0)
    system.cancel(0)
    system.complete(1.0)
    assert finished_in(run(system)) == {1, 2}
    for number in (0, 1, 2):
        system.cancel(number)
    assert not system.policy._cancelled, "it would be looked for after every batch"
    system.add(Request(3, 0.0, 4, 5))
    assert finished_in(run(system)) == {3}


@every_policy
def test_a_stopped_sequence_finishes_with_the_token_it_stopped_at(policy: str) -> None:
    system = system_of(policy)
    stopped_at: dict[int, int] = {}
    for _ in range(100):
        if (batch := system.schedule(0.0)) is None:
            break
        stop = [1] if 1 in batch.sampled and system.served[1].generated == 0 else []
        tokens = system.complete(2.0, stop)
        if stop:
            assert 1 in tokens.finished
            stopped_at[1] = system.served[1].generated
    assert stopped_at == {1: 1}
    assert [outcome.generated for outcome in system.outcomes()] == [5, 1, 5]
    assert system.served[1].finished_s == system.served[1].last_token_s == 2.0
    assert system.policy.pool.used == 0


@every_policy
def test_a_stop_at_the_last_token_finishes_once(policy: str) -> None:
    system = system_of(policy, requests=1, output_tokens=1)
    system.schedule(0.0)
    assert system.complete(1.0, [0]).finished == {0}
    assert system.policy.residents == system.policy.pool.used == 0
    assert system.schedule(1.0) is None


@every_policy
def test_a_sequence_that_is_cancelled_and_stops_in_the_same_batch_leaves_once(policy: str) -> None:
    system = system_of(policy, requests=2)
    batch = system.schedule(0.0)
    assert batch is not None
    system.cancel(0)
    system.complete(1.0, [0])
    assert system.policy.residents + len(system.policy.waiting) == 1
    assert finished_in(run(system)) == {1}


@every_policy
def test_stopping_makes_room_for_the_next(policy: str) -> None:
    memory = KVMemory(blocks=4, block_size=4, max_model_len=16)
    system = PolicySystem(choose(policy, max_num_seqs=1).build(memory, costs=COSTS))
    for number in range(2):
        system.add(Request(number, 0.0, 4, 5))
    system.schedule(0.0)
    system.complete(1.0, [0])
    batch = system.schedule(1.0)
    assert batch is not None
    assert [number for number, _, _ in batch.chunks] == [1]
