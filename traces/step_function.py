"""Quantities that stay as they are until the next event: queue length, KV use, residents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.percentiles import Distribution
from traces.run_columns import RunRecord
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

    Exact: what waited right after the last batch was scheduled, and each arrival since then.
    """
    return total([_queue_of(run, replica) for replica in range(run.meta.replicas)])


def blocks_in_use(run: RunRecord) -> StepFunction:
    """Return the KV blocks in use on all replicas together; 0 while a replica has no request."""
    return total([_held(run, replica, "blocks_used") for replica in range(run.meta.replicas)])


def residents(run: RunRecord) -> StepFunction:
    """Return the sequences that hold KV on all replicas together; 0 while a replica has no request."""
    return total([_held(run, replica, "running") for replica in range(run.meta.replicas)])


def _queue_of(run: RunRecord, replica: int) -> StepFunction:
    rows = run.rows_of(replica)
    starts = run.iterations.start_s[rows]
    order = np.argsort(starts, kind="stable")
    starts, waiting = starts[order], run.iterations.waiting[rows][order]
    arrivals = run.requests.arrival_s[run.requests.replica == replica]
    times = np.sort(np.concatenate([starts, arrivals]), kind="stable")
    last = np.searchsorted(starts, times, side="right") - 1
    since = np.searchsorted(arrivals, np.append(starts, -np.inf), side="right")[last]
    arrived = np.searchsorted(arrivals, times, side="right") - since
    values = arrived + np.append(waiting, 0)[last]
    return StepFunction(times_s=times, values=values.astype(np.float64), end_s=run.end_s)


def _held(run: RunRecord, replica: int, column: str) -> StepFunction:
    rows = run.rows_of(replica)
    ends = run.iterations.end_s[rows]
    idle_s = ends[_empty_after(run, replica, ends)]
    times = np.concatenate([run.iterations.start_s[rows], idle_s])
    values = np.concatenate([getattr(run.iterations, column)[rows], np.zeros(len(idle_s))])
    order = np.argsort(times, kind="stable")
    return StepFunction(times_s=times[order], values=values[order].astype(np.float64), end_s=run.end_s)


def _empty_after(run: RunRecord, replica: int, ends: FloatColumn) -> npt.NDArray[np.bool_]:
    """Which moments leave a replica without any request that has arrived and is not finished."""
    mine = run.requests.replica == replica
    arrived = np.searchsorted(run.requests.arrival_s[mine], ends, side="right")
    finished = np.searchsorted(np.sort(run.requests.finished_s[mine]), ends, side="right")
    return np.asarray(arrived == finished)
