"""Who comes first: first come, first served, and the victims of a preemption last."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from oracle.cases import WITH_PREEMPTION, random_case
from oracle.loop import play, watch
from oracle.records import Iteration
from oracle.systems import PolicySystem

from policies import POLICIES

SEEDS = range(15)

every_policy = pytest.mark.parametrize("policy", POLICIES)
in_order_of_arrival = pytest.mark.parametrize("policy", [name for name in POLICIES if name != "slack"])
preempting_policies = pytest.mark.parametrize("policy", WITH_PREEMPTION)


@in_order_of_arrival
def test_nobody_is_admitted_before_one_that_waited_in_front(policy: str) -> None:
    """Hence no request waits for ever while another of later arrival is admitted."""
    for seed in SEEDS:
        queue: list[int] = []
        arrived: set[int] = set()
        for system, event in watch(random_case(policy, seed)):
            queue += [number for number in system.served if number not in arrived]
            arrived.update(system.served)
            if isinstance(event, Iteration):
                pushed, kept = split_queue(queue, event.waiting)
                assert not set(pushed) & set(kept)
                assert kept == queue[len(queue) - len(kept) :]
                queue = list(event.waiting)


def split_queue(before: list[int], after: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Those that joined the queue at its front, and those that were in it already."""
    return [item for item in after if item not in before], [item for item in after if item in before]


@in_order_of_arrival
def test_first_come_first_scheduled(policy: str) -> None:
    for seed in SEEDS:
        system, _ = play(random_case(policy, seed))
        moments = [system.served[number].scheduled_s for number in sorted(system.served)]
        assert moments == sorted(moments)


@every_policy
def test_residents_are_served_oldest_first(policy: str) -> None:
    for seed in SEEDS:
        residents: set[int] = set()
        for system, event in watch(random_case(policy, seed)):
            if isinstance(event, Iteration):
                chunks = [number for number, _, _ in event.chunks if number in residents]
                for numbers in (chunks, list(event.decodes)):
                    assert numbers == sorted(numbers, key=lambda number: system.served[number].rank)
            residents = {number for number, sequence in system.served.items() if sequence.blocks}


@every_policy
def test_a_ready_prompt_is_never_passed_over_for_a_younger_one(policy: str) -> None:
    passed = 0
    for seed in SEEDS:
        for system, event in watch(random_case(policy, seed)):
            if isinstance(event, Iteration) and event.chunks:
                ready = [sequence.rank for sequence in system.policy.prefilling]
                served = [system.served[number].rank for number, _, _ in event.chunks]
                assert not ready or max(served) < min(ready)
                passed += len(ready)
    assert passed or policy != "vllm-v1"


@preempting_policies
def test_the_oldest_resident_is_never_preempted(policy: str) -> None:
    """With one batch in flight; so that it gets done, then the next one, and nobody starves."""
    for seed in SEEDS:
        before = Snapshot()
        for system, _ in watch(random_case(policy, seed, stages=1)):
            now = Snapshot.of(system)
            assert not now.victims_since(before) & before.oldest_resident
            before = now


@preempting_policies
def test_a_victim_is_ready_and_of_lower_priority_than_all_that_run(policy: str) -> None:
    seen = 0
    for seed in SEEDS:
        before = Snapshot()
        for system, event in watch(random_case(policy, seed)):
            now = Snapshot.of(system)
            for victim in now.victims_since(before):
                seen += 1
                assert victim not in before.flying
                if isinstance(event, Iteration):
                    assert all(before.ranks[number] < before.ranks[victim] for number in event.decodes)
            before = now
    assert seen > 20 or policy == "slack"


@dataclass
class Snapshot:
    """Priorities, residents, who is in flight, and preemptions so far."""

    ranks: dict[int, int] = field(default_factory=dict)
    residents: set[int] = field(default_factory=set)
    flying: set[int] = field(default_factory=set)
    preemptions: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, system: PolicySystem) -> Snapshot:
        return cls(
            ranks={number: sequence.rank for number, sequence in system.served.items()},
            residents={number for number, sequence in system.served.items() if sequence.blocks},
            flying=set().union(*system.flights),
            preemptions={number: sequence.preemptions for number, sequence in system.served.items()},
        )

    @property
    def oldest_resident(self) -> set[int]:
        return {min(self.residents, key=self.ranks.__getitem__)} if self.residents else set()

    def victims_since(self, before: Snapshot) -> set[int]:
        return {number for number, count in self.preemptions.items() if count > before.preemptions.get(number, 0)}


@every_policy
def test_preemptions_are_counted_once_and_only_where_blocks_are_taken_late(policy: str) -> None:
    for seed in SEEDS:
        system, events = play(random_case(policy, seed))
        counted = sum(event.preemptions for event in events if isinstance(event, Iteration))
        assert counted == sum(outcome.preemptions for outcome in system.outcomes())
        assert counted == 0 or policy in WITH_PREEMPTION
