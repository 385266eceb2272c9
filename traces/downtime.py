"""When replicas were down, and what their failures cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traces.run_columns import RunRecord
from traces.workload import FloatColumn


@dataclass(frozen=True, kw_only=True)
class FailureCost:
    """What the failures of replicas cost a run.

    ``count`` failures sent requests back to the queue ``requests`` times; KV of ``tokens`` was lost. The replicas
    were down for ``downtime_s`` of the run, all together; failures of a replica that overlap count once.
    """

    count: int
    downtime_s: float
    requests: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A replica was down from ``start_s`` to ``end_s``, both within the run."""

    start_s: float
    end_s: float


def outages(run: RunRecord) -> list[list[Outage]]:
    """Return when each replica was down, one after the other."""
    found: list[list[Outage]] = [[] for _ in range(run.meta.replicas)]
    for failure in sorted(run.meta.failures, key=lambda each: each.failed_s):
        mine = found[failure.replica]
        start_s = max(failure.failed_s, mine[-1].end_s if mine else run.start_s)
        end_s = min(failure.until_s, run.end_s)
        if end_s > start_s:
            mine.append(Outage(start_s=start_s, end_s=end_s))
    return found


def downtime_s(run: RunRecord) -> FloatColumn:
    """Return how long each replica was down during the run, float64 [replicas]."""
    return np.array([sum(outage.end_s - outage.start_s for outage in of_one) for of_one in outages(run)], np.float64)


def failure_cost(run: RunRecord) -> FailureCost:
    """Return what the failures of a run cost."""
    failures = run.meta.failures
    return FailureCost(
        count=len(failures),
        downtime_s=float(downtime_s(run).sum()),
        requests=sum(failure.requests for failure in failures),
        tokens=sum(failure.tokens for failure in failures),
    )
