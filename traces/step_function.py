"""Quantities that stay as they are until the next event: queue length, KV use, residents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from traces.downtime import outages
from traces.percentiles import Distribution
from traces.run_columns import RunRecord, SmallColumn
from traces.stays import Stays
from traces.workload import FloatColumn, IntColumn

Steps = tuple[FloatColumn, SmallColumn]
"""Moments, and by how much the quantity of one replica changes then, in any order."""


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
    stays, failed_s = Stays.of(run), _failed_s(run)
    return _together(run, (_queue(run, replica, stays, failed_s[replica]) for replica in range(run.meta.replicas)))


def blocks_in_use(run: RunRecord) -> StepFunction:
    """Return the KV blocks in use on all replicas together; 0 while a replica has no request or is down."""
    return _held_by_all(run, "blocks_used")


def residents(run: RunRecord) -> StepFunction:
    """Return the sequences that hold KV on all replicas together; 0 while a replica has no request or is down."""
    return _held_by_all(run, "running")


def _held_by_all(run: RunRecord, column: str) -> StepFunction:
    stays, failed_s = Stays.of(run), _failed_s(run)
    return _together(
        run, (_held(run, replica, column, stays, failed_s[replica]) for replica in range(run.meta.replicas))
    )


def _together(run: RunRecord, each: Iterable[Steps]) -> StepFunction:
    """Return the sum over replicas."""
    times_s, changes = _sorted(*map(np.concatenate, zip(*each, strict=True)))
    return StepFunction(times_s=times_s, values=np.cumsum(changes, dtype=np.int64), end_s=run.end_s)


def _queue(run: RunRecord, replica: int, stays: Stays, failed_s: FloatColumn) -> Steps:
    """One more with each arrival; with each batch, what then waits instead of what waited and has arrived since."""
    starts, waiting = _sorted(
        np.append(failed_s, run.of_replica(run.iterations.start_s, replica)),
        np.append(np.zeros(len(failed_s), np.int32), run.of_replica(run.iterations.waiting, replica)),
    )
    arrivals = stays.come_s(replica)
    come = np.searchsorted(arrivals, starts, side="right")
    steps = np.diff((waiting - come).astype(np.int32), prepend=np.int32(0))
    return np.append(starts, arrivals), np.append(steps, np.ones(len(arrivals), np.int32))


def _held(run: RunRecord, replica: int, column: str, stays: Stays, failed_s: FloatColumn) -> Steps:
    """With each batch, what is held then; nothing once the last request has left, or the replica failed."""
    ends = np.append(run.of_replica(run.iterations.end_s, replica), stays.moved_s(replica))
    idle_s = np.append(ends[stays.none_after(replica, ends)], failed_s)
    times, held = _sorted(
        np.append(idle_s, run.of_replica(run.iterations.start_s, replica)),
        np.append(np.zeros(len(idle_s), np.int32), run.of_replica(getattr(run.iterations, column), replica)),
    )
    return times, np.diff(held, prepend=np.int32(0))


def _sorted(times: FloatColumn, values: SmallColumn) -> Steps:
    order = np.argsort(times, kind="stable")
    return times[order], values[order]


def _failed_s(run: RunRecord) -> list[FloatColumn]:
    """When each replica failed."""
    moments: list[list[float]] = [[] for _ in range(run.meta.replicas)]
    for outage in outages(run):
        moments[outage.replica].append(outage.start_s)
    return [np.array(of_one) for of_one in moments]
