"""The loop that a simulator or an engine runs, with random durations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random

from oracle.records import Cancelled, Case, Iteration, Tokens
from oracle.systems import PolicySystem, System

Event = Iteration | Tokens | Cancelled


class Loop:
    """Plays a case: requests arrive, batches start while a stage is free, and come back in order.

    Every choice is drawn from the case's seed, so that two systems which behave alike see the same.
    """

    def __init__(self, system: System, case: Case) -> None:
        self.system = system
        self.case = case
        self.random = Random(case.seed)
        self.upcoming = deque(case.requests)
        self.flying: deque[Iteration] = deque()
        self.alive: list[int] = []
        self.now_s = 0.0

    def __iter__(self) -> Iterator[Event]:
        work = sum(request.prompt_tokens + request.output_tokens for request in self.case.requests)
        for _ in range(1000 + 100 * work):
            self._arrive()
            if not self.upcoming and not self.system.has_work:
                return
            yield from self._cancel()
            yield from self._step()
            self.now_s += self.random.choice((0.0, 0.25, 1.0, self.random.random()))
        raise AssertionError("no end in sight")

    def _arrive(self) -> None:
        while self.upcoming and self.upcoming[0].arrival_s <= self.now_s:
            request = self.upcoming.popleft()
            self.system.add(request)
            self.alive.append(request.request_id)

    def _step(self) -> Iterator[Event]:
        free = len(self.flying) < self.case.stages
        if free and (not self.flying or self.random.random() < self.case.eagerness):
            batch = self.system.schedule(self.now_s)
            if batch is not None:
                self.flying.append(batch)
                yield batch
                return
        if self.flying:
            yield self._complete(self.flying.popleft())
            return
        assert not self.system.has_work, "there is work, nothing is in flight, and nothing is scheduled"
        if self.upcoming:
            self.now_s = self.upcoming[0].arrival_s

    def _complete(self, batch: Iteration) -> Tokens:
        stopped = [self.random.choice(batch.sampled)] if batch.sampled and self._happens(self.case.stops) else []
        tokens = self.system.complete(self.now_s, stopped)
        self.alive = [number for number in self.alive if number not in tokens.finished]
        return tokens

    def _cancel(self) -> Iterator[Event]:
        if self.alive and self._happens(self.case.cancels):
            number = self.random.choice(self.alive)
            self.alive.remove(number)
            yield self.system.cancel(number)

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance


def watch(case: Case) -> Iterator[tuple[PolicySystem, Event]]:
    """The policy after each event, and the event."""
    system = PolicySystem.of(case)
    for event in Loop(system, case):
        yield system, event


def play(case: Case) -> tuple[PolicySystem, list[Event]]:
    """The policy after the whole case, and all that happened."""
    system = PolicySystem.of(case)
    return system, list(Loop(system, case))
