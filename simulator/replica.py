"""A replica in simulated time: what its policy schedules, on its way through the pipeline's stages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Protocol

from policies.batch import Batch, Completion
from policies.policy import Policy
from policies.sequence import Sequence
from simulator.clock import Clock, Moment, Order, place_of
from simulator.flight import Flight


class StageTimes(Protocol):
    """What a replica asks of a cost model."""

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        """Return the seconds for which ``batch`` keeps pipeline stage ``stage`` busy."""
        ...

    def repeated(self, batch: Batch, start_s: float, until_s: float, most: int) -> tuple[list[float], list[float]]:
        """Run a batch again and again on a single stage, from ``start_s``: its decodes, and at most one chunk.

        Returns
        -------
        tuple
            How long each time takes, and when it ends: ``most`` times, or fewer if one ends at or after ``until_s``.
        """
        ...

    def hand_off_time(self, tokens: int) -> float:
        """Return the seconds until the hidden states of ``tokens`` tokens have reached the next stage."""
        ...


class Replica:
    """One copy of the model, driven by a policy.

    Whenever the first stage is free the policy is asked for a batch. The stages run batches in the order in which they
    got them, so that all of a batch's way is known when it sets out: it starts on a stage when its hidden states
    are there and the stage is free. Sending them to the next stage does not keep the sender busy.

    **Running ahead.** Most iterations change nothing but counts: the same sequences decode one token more, and the same
    prompt runs its next chunk. With ``ahead_s`` such a batch is scheduled once and runs as often in a row as the policy
    would schedule it again (:meth:`policies.steady.Steady.repeats`): one :class:`Flight`, one event. What may disturb
    it, a request for this replica or a failure, cuts it at the time that then runs. And an event that would be the
    next one anyway does not go through the queue. Neither changes anything that can be seen: without ``ahead_s`` every
    iteration is scheduled by itself, to the same bytes of the run record.

    Parameters
    ----------
    clock
        The simulation.
    policy, stage_times
        The scheduler, and how long its batches take.
    on_iteration
        Called with each completed :class:`Flight` and what came out of it (the last time, if it ran several times).
    index
        Which of the replicas this is.
    ahead_s
        Returns until when to plan ahead: about when the next request may come here. None to never do so.

    Attributes
    ----------
    requests
        Requests that it was given and that have not ended.
    """

    def __init__(
        self,
        clock: Clock,
        policy: Policy,
        stage_times: StageTimes,
        on_iteration: Callable[[Flight, Completion], None],
        *,
        index: int = 0,
        ahead_s: Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock
        self.policy = policy
        self.stage_times = stage_times
        self.on_iteration = on_iteration
        self.index = index
        self.requests = 0
        self._place = place_of(Order.COMPLETION, index)
        self._ahead_s = ahead_s
        self._runs_ahead = ahead_s is not None and policy.stages == 1
        self._on_release: Callable[[], None] | None = None
        self._free_s = [0.0] * policy.stages
        self._flights: deque[Flight] = deque()
        self._landing: Moment | None = None
        self._start: Moment | None = None

    # --- what may happen to it ---

    def submit(self, sequence: Sequence) -> None:
        """Take a request that arrives now."""
        self.policy.add(sequence)
        self.requests += 1
        self.look_up()

    def let_go(self, sequence: Sequence) -> None:
        """Drop a sequence that was held (:meth:`policies.policy.Policy.hold`): its KV is elsewhere now."""
        self.policy.let_go(sequence)
        self.requests -= 1
        self.look_up()

    def look_up(self) -> None:
        """See to it that what is new to the policy is seen as soon as it would be step by step."""
        flights = self._flights
        if flights and len(flights[0].ends_s) > 1:
            self._cut(flights[0])
        elif len(flights) < self.policy.stages:
            self._start_at(self.clock.now)

    def fail(self) -> tuple[list[Sequence], int]:
        """Lose what is in flight and all KV.

        Returns
        -------
        tuple
            The requests that have not ended, in order of arrival, with the tokens that are out already; and
            how many tokens of KV are lost.
        """
        now_s = self.clock.now
        if self._flights and (times := self._over(self._flights[0], now_s)):
            self._complete_some(self._flights[0], times)
        for moment in (self._landing, self._start):
            if moment is not None:
                moment.call_off()
        lost = self.policy.evacuate([flight.batch for flight in self._flights])
        self._flights.clear()
        self._landing = self._start = None
        self._free_s = [now_s] * self.policy.stages
        self.policy = self.policy.fresh()
        self.policy.pool.on_release = self._on_release
        self.requests = 0
        return lost

    # --- what can be seen of it ---

    def blocks_used(self, now_s: float) -> int:
        """Return the KV blocks in use at ``now_s``."""
        used = self.policy.pool.used
        if self._flights and (again := self._over(self._flights[0], now_s)):
            used += self.policy.blocks_ahead(self._flights[0].batch, again)
        return used

    def watch(self, on_release: Callable[[], None]) -> None:
        """Call ``on_release`` whenever KV blocks come free."""
        self._on_release = self.policy.pool.on_release = on_release

    @property
    def settled_s(self) -> float:
        """Up to when all of its iterations have been reported: none that is still to come ends before."""
        return self._flights[0].ends_s[0] if self._flights else inf

    # --- its loop ---

    def _start_at(self, moment_s: float) -> None:
        if self._start is None:
            moment_s = max(moment_s, self._free_s[0])
            self._start = self.clock.at(moment_s, self._set_out, Order.START, self.index)

    def _set_out(self) -> None:
        self._start = None
        if self._free_s[0] <= self.clock.now:
            self._run(self.clock.now)

    def _run(self, now_s: float) -> None:
        """Start batches as long as nothing else happens before they end; the first stage is free at ``now_s``."""
        policy, clock = self.policy, self.clock
        through = self._once if policy.stages == 1 else self._pipelined
        while (batch := policy.schedule(now_s)) is not None:
            if self._runs_ahead and len(batch.chunks) < 2 and (most := policy.repeats(batch)) > 1:
                flight = self._several(batch, now_s, most)
            else:
                flight = through(batch, now_s)
            end_s = flight.ends_s[-1]
            if not self._runs_ahead or end_s >= clock.next_s:
                self._launch(flight, end_s)
                return
            clock.skip(end_s, self._place)
            self._complete(flight)
            now_s = end_s

    def _launch(self, flight: Flight, end_s: float) -> None:
        self._flights.append(flight)
        if self._landing is None:
            self._landing = self.clock.at(end_s, self._land, Order.COMPLETION, self.index)
        if len(self._flights) < self.policy.stages:
            self._start_at(self._free_s[0])

    def _once(self, batch: Batch, now_s: float) -> Flight:
        time_s = self.stage_times.iteration_time(batch)
        self._free_s[0] = end_s = now_s + time_s
        return Flight(batch, self.policy, self.index, [now_s], [time_s], [end_s])

    def _several(self, batch: Batch, now_s: float, most: int) -> Flight:
        assert self._ahead_s is not None
        times_s, ends_s = self.stage_times.repeated(batch, now_s, self._ahead_s(), most)
        self._free_s[0] = ends_s[-1]
        return Flight(batch, self.policy, self.index, [now_s, *ends_s[:-1]], times_s, ends_s)

    def _pipelined(self, batch: Batch, now_s: float) -> Flight:
        hand_off_s = self.stage_times.hand_off_time(batch.tokens)
        there_s = now_s
        starts_s, times_s = [], []
        for stage, free_s in enumerate(self._free_s):
            start_s = max(there_s, free_s)
            time_s = self.stage_times.iteration_time(batch, stage)
            starts_s.append(start_s)
            times_s.append(time_s)
            self._free_s[stage] = start_s + time_s
            there_s = start_s + time_s + hand_off_s
        return Flight(batch, self.policy, self.index, starts_s, times_s, [self._free_s[-1]])

    def _over(self, flight: Flight, now_s: float) -> int:
        """Return how many of its times are over now: one that ends at this moment is, if it is later than its turn."""
        return flight.over_by(now_s, ended=self.clock.is_over(self._place))

    def _cut(self, flight: Flight) -> None:
        times = self._over(flight, self.clock.now) + 1
        if times < len(flight.ends_s):
            flight.cut(times)
            assert self._landing is not None
            self._landing.call_off()
            self._free_s[0] = flight.ends_s[-1]
            self._landing = self.clock.at(flight.ends_s[-1], self._land, Order.COMPLETION, self.index)

    def _land(self) -> None:
        """Take back the batch that is through, and let the next one follow."""
        flights = self._flights
        flight = flights.popleft()
        end_s = flight.ends_s[-1]
        self._complete(flight)
        self._landing = None
        if flights:
            self._landing = self.clock.at(flights[0].ends_s[-1], self._land, Order.COMPLETION, self.index)
        if self._free_s[0] <= end_s:
            self._run(end_s)
        else:
            self._start_at(self._free_s[0])

    def _complete(self, flight: Flight) -> None:
        ends_s = flight.ends_s
        if len(ends_s) > 1:
            self._repeat(flight)
            done = self.policy.complete(flight.batch, ends_s[-1])
        else:
            done = self.policy.complete(flight.batch, ends_s[0])
            flight.gaps = done.gaps
        if done.finished:
            self.requests -= len(done.finished)
        self.on_iteration(flight, done)

    def _repeat(self, flight: Flight) -> None:
        flight.gaps, used = self.policy.repeat(flight.batch, flight.ends_s)
        flight.blocks_used += used

    def _complete_some(self, flight: Flight, times: int) -> None:
        """Report the first ``times`` of a flight; the one after them is lost."""
        flight.cut(times + 1)
        self._repeat(flight)
        flight.cut(times)
        flight.blocks_used.pop()
        self.on_iteration(flight, Completion())
