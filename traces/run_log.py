"""What a loop of schedule, execute and complete leaves in its run record, in simulated time and in real time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from traces.iteration_log import NONE_TO_COME, ROWS, IterationLog
from traces.run_record import RunWriter
from traces.workload import Workload

SEQUENCE_COLUMNS = ("scheduled_s", "first_token_s", "finished_s", "generated_tokens", "cached_tokens", "preemptions")


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


class Flops(Protocol):
    """How many FLOPs of the model iterations are (see :class:`profiler.deployment.Deployment`)."""

    def prefill_pairs(self, chunks: Sequence[Any]) -> float:
        """Return the (query, key) pairs of one head that ``chunks`` compute."""
        ...

    def flops_of(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Return the FLOPs of iterations given by the columns of a run record and ``prefill_pairs``."""
        ...


class RunLog:
    """Notes iterations as they end, and what became of each request.

    Parameters
    ----------
    writer
        Of the run record.
    workload
        Its request i is the sequence with request id i.
    flops
        What counts the model's FLOPs.
    replicas
        How many there are.
    settled_s
        Returns a moment before which no iteration ends that is still to be noted, where they are not noted in order.

    Attributes
    ----------
    finished
        Requests that have ended.
    columns
        Those of the requests, by name; what only a cluster knows of a request is set there by it.
    """

    def __init__(
        self,
        writer: RunWriter,
        workload: Workload,
        flops: Flops,
        *,
        replicas: int = 1,
        settled_s: Callable[[], float] = lambda: NONE_TO_COME,
    ) -> None:
        self._writer, self._flops, self._settled_s = writer, flops, settled_s
        self._iterations = IterationLog(flops.flops_of, replicas=replicas)
        self._ended: list[tuple[Any, ...]] = []
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
            "decode_replica": np.zeros(size, np.int32),
            "transfer_s": np.zeros(size),
            "restarts": np.zeros(size, np.int32),
            "bubble_s": np.zeros(size),
        }

    def iterations(
        self,
        batch: Batch,
        *,
        stage_start_s: Sequence[float],
        stage_time_s: Sequence[float],
        blocks_used: Sequence[int],
        waiting: int,
        running: int,
        gaps: Sequence[tuple[float, int]],
        outside: Sequence[int] = (0,),
        replica: int = 0,
    ) -> None:
        """Note that a batch ran, once or several times in a row.

        Parameters
        ----------
        stage_start_s, stage_time_s
            When each stage began and for how long it was busy, one time after the other.
        blocks_used, outside
            Of each time, as in :class:`traces.run_columns.IterationColumns`.
        waiting, running
            Queue length and residents.
        gaps
            Those that ended with the first time.
        """
        log, chunks, times = self._iterations, batch.chunks, len(blocks_used)
        log.add(
            (
                replica,
                times,
                len(stage_start_s) // times,
                batch.prefill_tokens,
                len(chunks),
                batch.decodes,
                batch.outputs,
                batch.decode_context_sum,
                batch.decode_context_max,
                batch.prefill_context_sum if chunks else 0,
                self._flops.prefill_pairs(chunks) if chunks else 0.0,
                waiting,
                running,
                batch.preemptions,
            ),
            stage_start_s=stage_start_s,
            stage_time_s=stage_time_s,
            blocks_used=blocks_used,
            outside=outside,
            gaps=gaps,
        )
        if len(log) >= ROWS:
            self._write()

    def ended(self, sequences: Iterable[Any]) -> None:
        """Note requests that have got their last token."""
        for sequence in sequences:
            self._ended.append(
                (
                    sequence.request_id,
                    sequence.scheduled_s,
                    sequence.first_token_s,
                    sequence.finished_s,
                    sequence.generated,
                    sequence.cached_tokens,
                    sequence.preemptions,
                )
            )
            self.finished += 1

    def _write(self, *, rest: bool = False) -> None:
        """Hand over what is complete, and with ``rest`` what is left."""
        for table in self._iterations.tables(self._settled_s(), rest=rest):
            self._writer.table(table)
        if self._ended:
            request, *columns = np.asarray(self._ended).T
            for name, column in zip(SEQUENCE_COLUMNS, columns, strict=True):
                self.columns[name][request.astype(np.int64)] = column
            self._ended.clear()

    def close(self) -> None:
        """Hand everything that is left to the writer."""
        self._write(rest=True)
        self._writer.requests(self.columns)


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
