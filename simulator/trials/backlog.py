"""How far a run fell behind its arrivals, and how fast it went while it was behind."""

from __future__ import annotations

from math import nan

import numpy as np

from traces.run_record import RunRecord
from traces.workload import FloatColumn

LONG = 3.0
"""Requests must have waited for this many times the mean time in service before a rate of service is worth anything."""


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
    if rows.decode_replica is not None and bool(np.any((rows.decode_replica != rows.replica) & (rows.restarts == 0))):
        return _rate(rows.scheduled_s, rows.finished_s, float(rows.arrival_s[0]), _waited_until_s(run, None))
    total = 0.0
    for replica in range(run.meta.replicas):
        own = rows.replica == replica
        since_s = float(rows.arrival_s[0])
        total += _rate(rows.scheduled_s[own], rows.finished_s[own], since_s, _waited_until_s(run, replica))
    return total


def _rate(scheduled_s: FloatColumn, finished_s: FloatColumn, since_s: float, until_s: float) -> float:
    in_service_s = finished_s - scheduled_s
    if not len(in_service_s) or not until_s - since_s > LONG * float(in_service_s.mean()):
        return nan
    done = np.clip((until_s - scheduled_s) / np.maximum(in_service_s, 1e-12), 0.0, 1.0)
    return float(done.sum()) / (until_s - since_s)


def _waited_until_s(run: RunRecord, replica: int | None) -> float:
    """Return the end of the last iteration during which a request waited; NaN where none did."""
    waited = run.iterations.end_s[run.iterations.waiting > 0]
    if replica is not None:
        waited = run.of_replica(run.iterations.end_s, replica)[run.of_replica(run.iterations.waiting, replica) > 0]
    return float(waited.max()) if len(waited) else nan
