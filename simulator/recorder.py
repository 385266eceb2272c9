"""What replicas complete, on its way into the run record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.batch import Completion
from policies.catalog import PolicyChoice
from simulator.bubble_ledger import BubbleLedger
from simulator.cluster import Cluster, Group
from simulator.flight import Flight
from simulator.interval_sample import IntervalSample
from simulator.range_marks import RangeMarks
from traces.iteration_log import Columns, taken
from traces.request_log import KnownRequests
from traces.run_log import RunLog
from traces.run_record import RunRecorder
from traces.workload import Workload

OnProgress = Callable[[int], None]


class GroupAccount:
    """How the cost model of a group fits the iterations of its replicas."""

    def __init__(self, group: Group, choice: PolicyChoice, *, strict: bool) -> None:
        self._group = group
        self._max_num_seqs = group.choice(choice).settings.max_num_seqs
        self._marks = RangeMarks(group.cost_model, choice.name, strict=strict)
        self._intervals = IntervalSample(group.cost_model)

    def note(self, columns: Columns) -> npt.NDArray[np.int32]:
        """Take note of iterations; return their column ``outside`` (see :meth:`RangeMarks.mark`)."""
        self._intervals.take(columns)
        return self._marks.mark(columns)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the group."""
        group = self._group
        fit = {"profiled_range": self._marks.as_dict(), "interval": self._intervals.as_dict()}
        return {
            "count": group.count,
            "role": group.role,
            "deployment": group.deployment.to_json(),
            "stages": group.stages,
            "gpus": group.deployment.gpus,
            "kv_blocks": group.memory.blocks,
            "peak_flops": group.deployment.peak_flops,
            "max_num_seqs": self._max_num_seqs,
            "cost_model": {**group.cost_model.describe(), **fit},
        }


class Recorder:
    """Takes what replicas complete: into the run record, marked, with how sure its time is.

    Parameters
    ----------
    cluster, choice, workload
        What runs, under which policy, on what.
    writer
        Of the run record.
    settled_s
        See :class:`traces.run_log.RunLog`.
    strict
        Whether the first batch outside of what was measured is an error.
    on_progress
        Called with the number of finished requests, now and then.

    Attributes
    ----------
    log
        The run record's.
    columns
        Those of the requests, by name; what only a cluster knows of a request is set there by it.
    groups
        What there is to say of each group.
    """

    def __init__(
        self,
        cluster: Cluster,
        choice: PolicyChoice,
        workload: Workload,
        writer: RunRecorder,
        settled_s: Callable[[], float],
        *,
        strict: bool,
        on_progress: OnProgress | None,
    ) -> None:
        requests = KnownRequests(workload)
        self.columns = requests.columns
        self.log = RunLog(writer, requests, self._complete, replicas=cluster.replicas, settled_s=settled_s)
        self.groups = [GroupAccount(group, choice, strict=strict) for group in cluster.groups]
        self._ends = np.cumsum([group.count for group in cluster.groups])
        self._pipelined = [group.stages > 1 for group in cluster.groups for _ in range(group.count)]
        self._flops_of = cluster.groups[0].deployment.flops_of
        self._ledger = BubbleLedger(self.columns["bubble_s"])
        self._on_progress = on_progress

    def __call__(self, flight: Flight, done: Completion) -> None:
        """Take a flight that is over, and what came out of it."""
        if self._pipelined[flight.replica]:
            self._ledger.enter(flight)
        if done.finished:
            self.log.ended(done.finished)
            if self._on_progress is not None:
                self._on_progress(self.log.finished)
        self.log.iterations(flight)

    def _complete(self, columns: Columns) -> Columns:
        """Return what follows of iterations from their other columns: FLOPs, and whether they were measured."""
        return {"flops": self._flops_of(columns), "outside": self._outside(columns)}

    def _outside(self, columns: Columns) -> npt.NDArray[np.int32]:
        if len(self.groups) == 1:
            return self.groups[0].note(columns)
        outside = np.empty(len(columns["replica"]), np.int32)
        of_group = np.searchsorted(self._ends, columns["replica"], side="right")
        for number, group in enumerate(self.groups):
            rows = np.flatnonzero(of_group == number)
            if len(rows):
                outside[rows] = group.note(taken(columns, rows))
        return outside

    def close(self) -> None:
        """Hand over everything that is left."""
        self._ledger.close()
        self.log.close()
