"""When requests were on which replica."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.replica_rows import ReplicaRows
from traces.run_columns import RunRecord
from traces.workload import FloatColumn


@dataclass(frozen=True, kw_only=True, eq=False)
class Stays:
    """When a request was on a replica, each column float64 [stays]: from its arrival there until it left.

    A request has one stay, or two where its last token came from another replica: it ``moved`` from the first one when
    its KV had been transferred, or when that failed. ``until_s`` is NaN for a request that never finished.
    """

    rows: ReplicaRows
    from_s: FloatColumn
    until_s: FloatColumn
    moved: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, run: RunRecord) -> Stays:
        """Return the stays of all requests of a run."""
        requests = run.requests
        gone = np.flatnonzero(requests.decode_replica != requests.replica)
        gone_s = _gone_s(run, gone)
        gone, gone_s = gone[~np.isnan(gone_s)], gone_s[~np.isnan(gone_s)]
        moved = np.zeros(len(requests) + len(gone), np.bool_)
        moved[gone] = True
        until_s = requests.finished_s.copy()
        until_s[gone] = gone_s
        replica = np.append(requests.replica, requests.decode_replica[gone])
        return cls(
            rows=ReplicaRows(replica, run.meta.replicas),
            from_s=np.append(requests.arrival_s, gone_s),
            until_s=np.append(until_s, requests.finished_s[gone]),
            moved=moved,
        )

    def come_s(self, replica: int) -> FloatColumn:
        """Return when requests came to a replica, ascending."""
        return np.sort(self.rows.pick(self.from_s, replica), kind="stable")

    def none_after(self, replica: int, moments: FloatColumn) -> npt.NDArray[np.bool_]:
        """Return after which moments no request is on a replica."""
        come, left = self.come_s(replica), np.sort(self.rows.pick(self.until_s, replica))
        some = np.searchsorted(come, moments, side="right")
        some -= np.searchsorted(left, moments, side="right")
        return np.asarray(some == 0)

    def moved_s(self, replica: int) -> FloatColumn:
        """Return when requests left a replica for another one."""
        moved = self.rows.pick(self.moved, replica)
        return np.asarray(self.rows.pick(self.until_s, replica)[moved], dtype=np.float64)


def _gone_s(run: RunRecord, gone: npt.NDArray[np.intp]) -> FloatColumn:
    """When the requests ``gone`` left the replica on which they began; NaN where that is not known."""
    requests = run.requests
    replica, arrival_s = requests.replica[gone], requests.arrival_s[gone]
    gone_s = requests.first_token_s[gone] + requests.transfer_s[gone]
    restarted = requests.restarts[gone] > 0
    for failure in reversed(run.meta.failures):
        hit = restarted & (replica == failure.replica) & (arrival_s <= failure.failed_s)
        gone_s[hit] = failure.failed_s
    return np.asarray(gone_s, dtype=np.float64)
