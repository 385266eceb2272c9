"""How the load was spread over replicas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traces.downtime import downtime_s
from traces.run_columns import RunRecord
from traces.workload import FloatColumn, IntColumn


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplicaLoad:
    """What each replica had to do, each column [replicas].

    Attributes
    ----------
    requests
        Requests that began or ended there; one that began on one replica and ended on another counts on both.
    busy_share
        Busy time of its stages over the makespan, less the time that it was down; NaN where it never was up.
    """

    requests: IntColumn
    busy_share: FloatColumn


def replica_load(run: RunRecord) -> ReplicaLoad:
    """Return how the requests and the work of a run were spread over its replicas."""
    replicas, requests = run.meta.replicas, run.requests
    moved = requests.decode_replica[requests.decode_replica != requests.replica]
    busy_s = np.bincount(run.iterations.replica, weights=run.iterations.busy_s, minlength=replicas)
    whole_s = run.meta.of_each("stages") * (run.end_s - run.start_s - downtime_s(run))
    return ReplicaLoad(
        requests=np.bincount(requests.replica, minlength=replicas) + np.bincount(moved, minlength=replicas),
        busy_share=np.divide(busy_s, whole_s, out=np.full(replicas, np.nan), where=whole_s > 0),
    )
