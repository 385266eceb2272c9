"""How far a run fell behind its arrivals, and how fast it went while it was behind."""

from __future__ import annotations

from math import nan

import numpy as np

from traces.run_record import RunRecord
from traces.workload import FloatColumn

LONG = 3.0
"""Requests must have waited for this many times the time in service before a rate of service is worth anything."""


def present(run: RunRecord, windows: int) -> tuple[int, ...]:
    """Return the requests that had come and not gone, at the ends of equal parts of the time in which they came.

    All waits count, wherever in the system they are: before the first iteration, for KV blocks, for a decode replica.
    """
    requests = run.requests
    first_s, last_s = float(requests.arrival_s[0]), float(requests.arrival_s[-1])
    moments = np.linspace(first_s, last_s, windows + 1)[1:]
    come = np.searchsorted(requests.arrival_s, moments, side="right")
    gone = np.searchsorted(np.sort(requests.finished_s), moments, side="right")
    return tuple(int(count) for count in come - gone)


def service_per_s(run: RunRecord) -> float:
    """Return the requests a second that were served as long as others waited: of all at once, the most there can be.

    A request in service when the last one stopped waiting counts by the share of its time in service that was over.
    Each replica is looked at alone and their rates are summed, so that a replica that got more than others does not
    count against them; where prompts and decodes have replicas of their own all are looked at together. NaN where
    requests did not wait for long (:data:`LONG`), or one never finished.
    """
    rows = run.requests
    since_s, replicas = float(rows.arrival_s[0]), range(run.meta.replicas)
    if any(group.role != "both" for group in run.meta.groups):
        until_s = _waited_until_s(run, None)
        in_service_s = float(rows.finished_s.max()) - until_s
        return _rate(rows.scheduled_s, rows.finished_s, since_s, until_s, in_service_s)
    total = 0.0
    for own, until_s in ((rows.replica == replica, _waited_until_s(run, replica)) for replica in replicas):
        scheduled_s, finished_s = rows.scheduled_s[own], rows.finished_s[own]
        in_service_s = float((finished_s - scheduled_s).mean()) if own.any() else nan
        total += _rate(scheduled_s, finished_s, since_s, until_s, in_service_s)
    return total


def _rate(
    scheduled_s: FloatColumn, finished_s: FloatColumn, since_s: float, until_s: float, in_service_s: float
) -> float:
    if not until_s - since_s > LONG * in_service_s:
        return nan
    done = np.clip((until_s - scheduled_s) / np.maximum(finished_s - scheduled_s, 1e-12), 0.0, 1.0)
    return float(done.sum()) / (until_s - since_s)


def _waited_until_s(run: RunRecord, replica: int | None) -> float:
    """Return the end of the last iteration during which a request waited; NaN where none did."""
    waited = run.iterations.end_s[run.iterations.waiting > 0]
    if replica is not None:
        waited = run.of_replica(run.iterations.end_s, replica)[run.of_replica(run.iterations.waiting, replica) > 0]
    return float(waited.max()) if len(waited) else nan
