"""What a loop of schedule, execute and complete leaves in its run record, in simulated time and in real time."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Protocol

import numpy as np

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


class Batch(Protocol):
    """What is noted of a batch (see :class:`policies.batch.Batch`)."""

    chunks: Any
    prefill_tokens: int
    decodes: int
    outputs: int
    decode_context_sum: int
    decode_context_max: int
    preemptions: int

    @property
    def prefill_context_sum(self) -> int:
        """KV tokens that the chunks find in the cache, summed."""


class Completion(Protocol):
    """What is noted of what came out of a batch (see :class:`policies.batch.Completion`)."""

    finished: Any
    gaps: Any


class Load(Protocol):
    """What was waiting and resident when a batch had been scheduled."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""

    @property
    def running(self) -> int:
        """Residents."""

    @property
    def blocks_used(self) -> int:
        """KV blocks in use."""


class RunLog:
    """Notes iterations as they end, and what became of each request.

    Parameters
    ----------
    writer
        Of the run record.
    workload
        Its request i is the sequence with request id i.

    Attributes
    ----------
    finished
        Requests that have ended.
    """

    def __init__(self, writer: RunWriter, workload: Workload) -> None:
        self._writer = writer
        self._iterations = 0
        self.finished = 0
        size = len(workload)
        self._columns: dict[str, np.ndarray[Any, Any]] = {
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
            "decode_replica": np.zeros(size, np.int32),
            "transfer_s": np.zeros(size),
            "restarts": np.zeros(size, np.int32),
            "bubble_s": np.zeros(size),
        }

    def iteration(
        self,
        batch: Batch,
        done: Completion,
        load: Load,
        *,
        stage_start_s: Sequence[float],
        stage_time_s: Sequence[float],
        flops: float,
        outside: int = 0,
    ) -> None:
        """Note one iteration, with the start and the busy time of each stage, and the requests that it ended.

        ``outside`` is as in :class:`traces.run_columns.IterationColumns`.
        """
        for sequence in done.finished:
            self._finish(sequence)
        self._writer.iteration(
            (
                self._iterations,
                0,
                stage_start_s[0],
                stage_start_s[-1] + stage_time_s[-1],
                stage_start_s,
                stage_time_s,
                batch.prefill_tokens,
                len(batch.chunks),
                batch.decodes,
                batch.outputs,
                batch.decode_context_sum,
                batch.decode_context_max,
                batch.prefill_context_sum,
                load.waiting,
                load.running,
                load.blocks_used,
                batch.preemptions,
                flops,
                outside,
                done.gaps,
            )
        )
        self._iterations += 1

    def _finish(self, sequence: Any) -> None:
        for column, attribute in SEQUENCE_COLUMNS.items():
            self._columns[column][sequence.request_id] = getattr(sequence, attribute)
        self.finished += 1

    def close(self) -> None:
        """Hand the requests to the writer."""
        self._writer.requests(self._columns)


def describe_workload(workload: Workload) -> dict[str, Any]:
    """Return what ``run.json`` says of a workload."""
    rate_per_s = workload.rate_per_s
    return {
        "name": workload.name,
        "requests": len(workload),
        "rate_per_s": rate_per_s if isfinite(rate_per_s) else None,
        "prompt_tokens": int(workload.prompt_tokens.sum()),
        "output_tokens": int(workload.output_tokens.sum()),
    }
