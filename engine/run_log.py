"""What a replay leaves in its run record."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.engine import Iteration
from policies.sequence import Sequence
from profiler.deployment import Deployment
from traces.run_record import RunWriter
from traces.workload import Workload

SEQUENCE_COLUMNS = {
    "scheduled_s": "scheduled_s",
    "first_token_s": "first_token_s",
    "finished_s": "finished_s",
    "generated_tokens": "generated",
    "cached_tokens": "cached_tokens",
    "preemptions": "preemptions",
}
"""Column of a run record -> attribute of a sequence."""


class RunLog:
    """Notes iterations as they end, and what became of each request.

    Parameters
    ----------
    writer
        Of the run record.
    workload
        Request i of it is the engine's request i.
    deployment
        For the FLOPs of a batch.
    """

    def __init__(self, writer: RunWriter, workload: Workload, deployment: Deployment) -> None:
        self._writer = writer
        self._deployment = deployment
        self._iterations = 0
        self.finished = 0
        size = len(workload)
        self.columns: dict[str, np.ndarray[Any, Any]] = {
            "request_id": np.arange(size),
            "replica": np.zeros(size, np.int32),
            "arrival_s": workload.arrival_s,
            "scheduled_s": np.full(size, np.nan),
            "first_token_s": np.full(size, np.nan),
            "finished_s": np.full(size, np.nan),
            "prompt_tokens": workload.prompt_tokens,
            "output_tokens": workload.output_tokens,
            "generated_tokens": np.zeros(size, np.int64),
            "cached_tokens": np.zeros(size, np.int64),
            "preemptions": np.zeros(size, np.int32),
        }

    def take(self, iteration: Iteration) -> None:
        """Note one iteration and the requests that ended with it."""
        for sequence in iteration.done.finished:
            self._finish(sequence)
        batch = iteration.batch
        self._writer.iteration(
            (
                self._iterations,
                0,
                iteration.start_s,
                iteration.end_s,
                (iteration.start_s,),
                (iteration.end_s - iteration.start_s,),
                batch.prefill_tokens,
                len(batch.chunks),
                batch.decodes,
                batch.outputs,
                batch.decode_context_sum,
                batch.decode_context_max,
                batch.prefill_context_sum,
                iteration.waiting,
                iteration.running,
                iteration.blocks_used,
                batch.preemptions,
                self._deployment.flops(batch),
                iteration.done.gaps,
            )
        )
        self._iterations += 1

    def _finish(self, sequence: Sequence) -> None:
        for column, attribute in SEQUENCE_COLUMNS.items():
            self.columns[column][sequence.request_id] = getattr(sequence, attribute)
        self.finished += 1
