"""Quantities that stay as they are until the next event: queue length, KV use, residents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.downtime import outages
from traces.percentiles import Distribution
from traces.run_columns import RunRecord, SmallColumn
from traces.workload import FloatColumn


@dataclass(frozen=True, kw_only=True, eq=False)
class StepFunction:
    """A quantity that is 0 before ``times_s[0]``, ``values[i]`` from ``times_s[i]`` on, until ``end_s``.

    Both columns float64 [steps], times ascending.
    """

    times_s: FloatColumn
    values: FloatColumn
    end_s: float

    def distribution(self) -> Distribution:
        """Return the distribution over time, from the first step to the end."""
        return Distribution.over_time(self.values, self._durations())

    def means(self, edges_s: FloatColumn) -> FloatColumn:
        """Return the mean between each two neighbours of ``edges_s``, float64 [edges - 1]."""
        if not len(self.times_s):
            return np.zeros(len(edges_s) - 1)
        area = np.concatenate([[0.0], np.cumsum(self.values * self._durations())])
        times = np.append(self.times_s, max(self.end_s, self.times_s[-1]))
        return np.asarray(np.diff(np.interp(edges_s, times, area)) / np.diff(edges_s), dtype=np.float64)

    def _durations(self) -> FloatColumn:
        return np.diff(np.append(self.times_s, max(self.end_s, self.times_s[-1] if len(self.times_s) else 0)))


def total(functions: Sequence[StepFunction]) -> StepFunction:
    """Return the sum of several step functions."""
    times = np.concatenate([function.times_s for function in functions])
    steps = np.concatenate([np.diff(function.values, prepend=0.0) for function in functions])
    order = np.argsort(times, kind="stable")
    values = np.cumsum(steps[order])
    end_s = max(function.end_s for function in functions)
    return StepFunction(times_s=times[order], values=values, end_s=end_s)


def queue_length(run: RunRecord) -> StepFunction:
    """Return the number of requests that wait, on all replicas together.

    What waited right after the last batch was scheduled, and each arrival since then: exact where no replica fails. A
    request that moved then counts where it ended, from the failure on.
    """
    stays = Stays.of(run)
    return total([_queue_of(run, replica, stays) for replica in range(run.meta.replicas)])


def blocks_in_use(run: RunRecord) -> StepFunction:
    """Return the KV blocks in use on all replicas together; 0 while a replica has no request or is down."""
    return _held_by_all(run, "blocks_used")


def residents(run: RunRecord) -> StepFunction:
    """Return the sequences that hold KV on all replicas together; 0 while a replica has no request or is down."""
    return _held_by_all(run, "running")


def _held_by_all(run: RunRecord, column: str) -> StepFunction:
    stays = Stays.of(run)
    return total([_held(run, replica, column, stays) for replica in range(run.meta.replicas)])


def _queue_of(run: RunRecord, replica: int, stays: Stays) -> StepFunction:
    rows = run.rows_of(replica)
    down_s = _failed_s(run, replica)
    starts = np.concatenate([run.iterations.start_s[rows], down_s])
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    waiting = np.append(run.iterations.waiting[rows], np.zeros(len(down_s), np.int32))[order]
    arrivals = np.sort(stays.from_s[stays.replica == replica])
    times = np.sort(np.concatenate([starts, arrivals]), kind="stable")
    last = np.searchsorted(starts, times, side="right") - 1
    since = np.searchsorted(arrivals, np.append(starts, -np.inf), side="right")[last]
    arrived = np.searchsorted(arrivals, times, side="right") - since
    values = arrived + np.append(waiting, 0)[last]
    return StepFunction(times_s=times, values=values.astype(np.float64), end_s=run.end_s)


def _held(run: RunRecord, replica: int, column: str, stays: Stays) -> StepFunction:
    rows = run.rows_of(replica)
    ends = np.append(run.iterations.end_s[rows], stays.until_s[stays.left & (stays.replica == replica)])
    idle_s = np.append(ends[_empty_after(stays, replica, ends)], _failed_s(run, replica))
    times = np.concatenate([run.iterations.start_s[rows], idle_s])
    values = np.concatenate([getattr(run.iterations, column)[rows], np.zeros(len(idle_s))])
    order = np.argsort(times, kind="stable")
    return StepFunction(times_s=times[order], values=values[order].astype(np.float64), end_s=run.end_s)


def _failed_s(run: RunRecord, replica: int) -> FloatColumn:
    return np.array([outage.start_s for outage in outages(run) if outage.replica == replica])


def _empty_after(stays: Stays, replica: int, ends: FloatColumn) -> npt.NDArray[np.bool_]:
    """Which moments leave a replica without any request that has come and not left."""
    mine = stays.replica == replica
    come = np.searchsorted(np.sort(stays.from_s[mine]), ends, side="right")
    left = np.searchsorted(np.sort(stays.until_s[mine]), ends, side="right")
    return np.asarray(come == left)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stays:
    """When a request was on a replica, each column [stays]: from its arrival there until it left, NaN for never.

    A request has one stay, or two where its last token came from another replica: it ``left`` the first one when its
    KV had been transferred, or when that failed.
    """

    replica: SmallColumn
    from_s: FloatColumn
    until_s: FloatColumn
    left: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, run: RunRecord) -> Stays:
        """Return the stays of all requests of a run."""
        requests = run.requests
        elsewhere = requests.decode_replica != requests.replica
        moved = np.flatnonzero(elsewhere)
        moved_s = _moved_s(run, moved)
        until_s = requests.finished_s.copy()
        until_s[moved] = moved_s
        return cls(
            replica=np.append(requests.replica, requests.decode_replica[moved]),
            from_s=np.append(requests.arrival_s, moved_s),
            until_s=np.append(until_s, requests.finished_s[moved]),
            left=np.append(elsewhere, np.zeros(len(moved), np.bool_)),
        )


def _moved_s(run: RunRecord, moved: npt.NDArray[np.intp]) -> FloatColumn:
    """When the requests ``moved`` left the replica on which they began."""
    requests = run.requests
    replica, arrival_s = requests.replica[moved], requests.arrival_s[moved]
    moved_s = requests.first_token_s[moved] + requests.transfer_s[moved]
    restarted = requests.restarts[moved] > 0
    for failure in reversed(run.meta.failures):
        hit = restarted & (replica == failure.replica) & (arrival_s <= failure.failed_s)
        moved_s[hit] = failure.failed_s
    return moved_s
