"""Pipeline bubbles batch by batch, as SARATHI (arXiv 2308.16369, section 5.3) counts them for a request."""

from __future__ import annotations

import numpy as np

from traces.run_columns import RunRecord
from traces.workload import FloatColumn


def batch_bubbles(run: RunRecord, replica: int) -> FloatColumn:
    """Return the bubble before each batch of a replica on each stage, float64 [iterations of the replica, stages].

    It is how long the stage waited between the batch before and this one, less the time in which nothing at all was in
    flight, from when the batch before left the last stage until this one began on the first. The first batch
    has none. The sum over the batches is :attr:`traces.utilisation.StageBubbles.in_flight_s`; the sum over the
    stages, and over the batches that held a request, is the request's ``bubble_s``.
    """
    stages = run.meta.group_of(replica).stages
    starts = run.of_replica(run.iterations.stage_start_s, replica)[:, :stages]
    ends = starts + run.of_replica(run.iterations.stage_time_s, replica)[:, :stages]
    bubbles = np.zeros_like(starts)
    nothing_s = np.maximum(starts[1:, 0] - ends[:-1, -1], 0.0)
    bubbles[1:] = np.maximum(starts[1:] - ends[:-1] - nothing_s[:, None], 0.0)
    return bubbles
