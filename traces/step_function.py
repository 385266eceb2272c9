"""Quantities that stay as they are until the next event: queue length, KV use, residents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traces.downtime import Outage, outages
from traces.percentiles import Distribution
from traces.run_columns import RunRecord, SmallColumn
from traces.stays import Stays
from traces.workload import FloatColumn, IntColumn

Steps = tuple[FloatColumn, SmallColumn]
"""Moments, and what the quantity of one replica is from then on, or by how much it changes; in any order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepFunction:
    """A count that is 0 before ``times_s[0]``, ``values[i]`` from ``times_s[i]`` on, until ``end_s``.

    Times float64 [steps], ascending; values int64 [steps].
    """

    times_s: FloatColumn
    values: IntColumn
    end_s: float

    def distribution(self, unit: int = 1) -> Distribution:
        """Return the distribution over time, from the first step to the end, of the values over ``unit``."""
        return Distribution.over_time(self.values, self._durations(), unit)

    def means(self, edges_s: FloatColumn) -> FloatColumn:
        """Return the mean between each two neighbours of ``edges_s``, float64 [edges - 1]."""
        if not len(self.times_s):
            return np.zeros(len(edges_s) - 1)
        area = np.zeros(len(self.times_s) + 1)
        np.cumsum(self.values * self._durations(), out=area[1:])
        times = np.append(self.times_s, max(self.end_s, self.times_s[-1]))
        return np.asarray(np.diff(np.interp(edges_s, times, area)) / np.diff(edges_s), dtype=np.float64)

    def _durations(self) -> FloatColumn:
        durations = np.empty(len(self.times_s))
        if len(durations):
            np.subtract(self.times_s[1:], self.times_s[:-1], out=durations[:-1])
            durations[-1] = max(self.end_s - self.times_s[-1], 0.0)
        return durations


def queue_length(run: RunRecord) -> StepFunction:
    """Return the number of requests that wait, on all replicas together.

    What waited right after the last batch was scheduled, and each arrival since then: exact where no replica fails. A
    request that moved then counts where it ended, from the failure on.
    """
    stays, down, each = Stays.of(run), outages(run), []
    starts, waiting = run.iterations.start_s, run.iterations.waiting
    for replica in range(run.meta.replicas):
        batches = run.of_replica(starts, replica), run.of_replica(waiting, replica)
        each.append(_queue(batches, stays.come_s(replica), _failed_s(down[replica])))
    return _together(run, each)


def blocks_in_use(run: RunRecord) -> StepFunction:
    """Return the KV blocks in use on all replicas together; 0 while a replica has no request or is down."""
    return _held_by_all(run, "blocks_used")


def residents(run: RunRecord) -> StepFunction:
    """Return the sequences that hold KV on all replicas together; 0 while a replica has no request or is down."""
    return _held_by_all(run, "running")


def _held_by_all(run: RunRecord, column: str) -> StepFunction:
    stays, down, each = Stays.of(run), outages(run), []
    starts, ends, held = run.iterations.start_s, run.iterations.end_s, getattr(run.iterations, column)
    for replica in range(run.meta.replicas):
        batches = run.of_replica(starts, replica), run.of_replica(held, replica)
        left_s = np.append(run.of_replica(ends, replica), stays.moved_s(replica))
        empty_s = left_s[stays.none_after(replica, left_s)]
        each.append(_held(batches, np.append(empty_s, _failed_s(down[replica]))))
    return _together(run, each)


def _together(run: RunRecord, each: Sequence[Steps]) -> StepFunction:
    """Return the sum over replicas."""
    times_s, changes = _sorted(*map(np.concatenate, zip(*each, strict=True)))
    return StepFunction(times_s=times_s, values=np.cumsum(changes, dtype=np.int64), end_s=run.end_s)


def _queue(batches: Steps, arrivals: FloatColumn, failed_s: FloatColumn) -> Steps:
    """One more with each arrival; with each batch, what then waits instead of what waited and has arrived since."""
    starts, waiting = _sorted(np.append(failed_s, batches[0]), _zeros_before(len(failed_s), batches[1]))
    come = np.searchsorted(arrivals, starts, side="right")
    steps = np.diff((waiting - come).astype(np.int32), prepend=np.int32(0))
    return np.append(starts, arrivals), np.append(steps, np.ones(len(arrivals), np.int32))


def _held(batches: Steps, empty_s: FloatColumn) -> Steps:
    """With each batch, what is held then; nothing from the moments ``empty_s`` on."""
    times, held = _sorted(np.append(empty_s, batches[0]), _zeros_before(len(empty_s), batches[1]))
    return times, np.diff(held, prepend=np.int32(0))


def _zeros_before(count: int, values: SmallColumn) -> SmallColumn:
    return np.append(np.zeros(count, np.int32), values)


def _failed_s(down: Sequence[Outage]) -> FloatColumn:
    return np.array([outage.start_s for outage in down], np.float64)


def _sorted(times: FloatColumn, values: SmallColumn) -> Steps:
    order = np.argsort(times, kind="stable")
    return times[order], values[order]
