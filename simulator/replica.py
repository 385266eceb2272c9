"""A replica in simulated time: arrivals, pipeline stages, and what they leave in the run record."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import simpy

from policies.arrivals import Arrivals
from policies.batch import Batch, Completion
from policies.policy import Policy

Process = Generator[simpy.Event, Any, None]


class StageTimes(Protocol):
    """What a replica asks of a cost model."""

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        """Return the seconds for which ``batch`` keeps pipeline stage ``stage`` busy."""
        ...

    def hand_off_time(self, tokens: int) -> float:
        """Return the seconds until the hidden states of ``tokens`` tokens have reached the next stage."""
        ...


class Flight:
    """A batch on its way through the stages."""

    __slots__ = ("batch", "blocks_used", "running", "stage_start_s", "stage_time_s", "waiting")

    def __init__(self, batch: Batch, policy: Policy) -> None:
        self.batch = batch
        self.waiting = len(policy.waiting)
        self.running = policy.residents
        self.blocks_used = policy.pool.used
        self.stage_start_s: list[float] = []
        self.stage_time_s: list[float] = []


class Replica:
    """One copy of the model, driven by a policy.

    The first stage asks the policy for a batch whenever it is free; each stage runs the batch for the time
    the cost model gives and passes it on; after the last one the policy gets it back. Sending hidden states
    to the next stage does not keep the sender busy.

    Parameters
    ----------
    env
        The simulation.
    policy, stage_times
        The scheduler, and how long its batches take.
    arrivals
        Where its requests come from.
    on_iteration
        Called with each completed :class:`Flight` and its :class:`policies.batch.Completion`.
    """

    def __init__(
        self,
        env: simpy.Environment,
        policy: Policy,
        stage_times: StageTimes,
        arrivals: Arrivals,
        on_iteration: Callable[[Flight, Completion], None],
    ) -> None:
        self.env = env
        self.policy = policy
        self.stage_times = stage_times
        self.arrivals = arrivals
        self.on_iteration = on_iteration
        self._wake: simpy.Event | None = None
        self._links: list[simpy.Store] = [simpy.Store(env) for _ in range(policy.stages - 1)]
        env.process(self._arrive())
        env.process(self._first_stage())
        for stage in range(1, policy.stages):
            env.process(self._later_stage(stage))

    def _arrive(self) -> Process:
        while (next_s := self.arrivals.next_s) is not None:
            if next_s > self.env.now:
                yield self.env.timeout(next_s - self.env.now)
            self._take_arrivals()
            self._wake_first_stage()

    def _take_arrivals(self) -> None:
        for sequence in self.arrivals.due(self.env.now):
            self.policy.add(sequence)

    def _wake_first_stage(self) -> None:
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.succeed()

    def _first_stage(self) -> Process:
        while True:
            self._take_arrivals()
            batch = self.policy.schedule(self.env.now)
            if batch is None:
                self._wake = self.env.event()
                yield self._wake
                continue
            flight = Flight(batch, self.policy)
            yield self._busy(flight, 0)
            self._pass_on(flight, 0)

    def _later_stage(self, stage: int) -> Process:
        link = self._links[stage - 1]
        while True:
            flight, ready_s = yield link.get()
            if ready_s > self.env.now:
                yield self.env.timeout(ready_s - self.env.now)
            yield self._busy(flight, stage)
            self._pass_on(flight, stage)

    def _busy(self, flight: Flight, stage: int) -> simpy.Event:
        time_s = self.stage_times.iteration_time(flight.batch, stage)
        flight.stage_start_s.append(self.env.now)
        flight.stage_time_s.append(time_s)
        return self.env.timeout(time_s)

    def _pass_on(self, flight: Flight, stage: int) -> None:
        if stage + 1 < self.policy.stages:
            ready_s = self.env.now + self.stage_times.hand_off_time(flight.batch.tokens)
            self._links[stage].put((flight, ready_s))
        else:
            self._complete(flight)

    def _complete(self, flight: Flight) -> None:
        done = self.policy.complete(flight.batch, self.env.now)
        self.on_iteration(flight, done)
        self._wake_first_stage()
