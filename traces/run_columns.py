"""What a run record holds: what was run, its requests and its iterations, as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from traces.percentiles import Distribution
from traces.replica_rows import Kind, ReplicaRows
from traces.run_meta import ReplicaFailure, ReplicaGroup, RunMeta
from traces.workload import FloatColumn, IntColumn

__all__ = [
    "IterationColumns",
    "ReplicaFailure",
    "ReplicaGroup",
    "RequestColumns",
    "RunMeta",
    "RunRecord",
    "SmallColumn",
]

SmallColumn = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestColumns:
    """Requests in order of arrival, each column [requests].

    Times are float64 seconds, NaN for what never happened: ``scheduled_s`` is the start of the first
    iteration that held the request, ``first_token_s`` and ``finished_s`` when its first and last token came
    out. ``output_tokens`` were asked for, ``generated_tokens`` produced; ``cached_tokens`` of the prompt were
    found in the prefix cache. ``preemptions`` counts how often the request lost its KV, ``restarts`` how often the
    replica under it failed. ``replica`` is where it began, ``decode_replica`` where its last token came from: another
    one where prefill and decodes are apart, or after a failure. ``transfer_s`` float64 is the time from the end of its
    prompt until its KV was on the decode replica, waiting for the link included (0 where it stayed), ``bubble_s``
    float64 the pipeline bubbles of its micro-batches, summed
    (SARATHI, section 5.3; 0 with one stage).
    """

    request_id: IntColumn
    replica: SmallColumn
    arrival_s: FloatColumn
    scheduled_s: FloatColumn
    first_token_s: FloatColumn
    finished_s: FloatColumn
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    generated_tokens: IntColumn
    cached_tokens: IntColumn
    preemptions: SmallColumn
    decode_replica: SmallColumn
    transfer_s: FloatColumn
    restarts: SmallColumn
    bubble_s: FloatColumn

    def __len__(self) -> int:
        return len(self.request_id)


@dataclass(frozen=True, kw_only=True, eq=False)
class IterationColumns:
    """Iterations, those of a replica in order of their end, each column [iterations] unless said otherwise.

    Attributes
    ----------
    start_s, end_s
        When the first stage begins; when the last stage ends and the tokens are out.
    stage_start_s, stage_time_s
        float64 [iterations, stages]: when each stage begins, and for how long it is busy. There are as many columns
        as the most stages of any replica; where one has fewer, NaN and 0.
    prefill_tokens, chunks, decodes, outputs
        What the batch held; ``outputs`` is the number of tokens sampled.
    decode_context_sum, decode_context_max, prefill_context_sum
        KV tokens the decodes attend to (sum, longest), and those the chunks find in the cache.
    waiting, running, blocks_used
        Queue length, residents and KV blocks in use, right after this batch was scheduled.
    preemptions
        Sequences preempted to make this batch.
    flops
        FLOPs of the model for this batch.
    outside
        0 for a batch within what its cost model was measured on, and for measured ones; else which of the limits in
        ``run.json`` (``cost_model.profiled_range.limits``, counted from 1) it leaves.
    gap_offsets, gap_s, gap_count
        TBT samples that end with iteration i, grouped: ``gap_count[j]`` tokens came out ``gap_s[j]`` seconds
        after the token before of the same sequence, j in ``gap_offsets[i]:gap_offsets[i + 1]``. int64
        [iterations + 1], float64 and int32 [gaps].
    """

    iteration: IntColumn
    replica: SmallColumn
    start_s: FloatColumn
    end_s: FloatColumn
    stage_start_s: npt.NDArray[np.float64]
    stage_time_s: npt.NDArray[np.float64]
    prefill_tokens: SmallColumn
    chunks: SmallColumn
    decodes: SmallColumn
    outputs: SmallColumn
    decode_context_sum: IntColumn
    decode_context_max: IntColumn
    prefill_context_sum: IntColumn
    waiting: SmallColumn
    running: SmallColumn
    blocks_used: SmallColumn
    preemptions: SmallColumn
    flops: FloatColumn
    outside: SmallColumn
    gap_offsets: IntColumn
    gap_s: FloatColumn
    gap_count: SmallColumn

    def __len__(self) -> int:
        return len(self.iteration)

    def in_memory(self) -> IterationColumns:
        """Return all the columns, in memory."""
        return IterationColumns(**{field.name: getattr(self, field.name) for field in fields(IterationColumns)})

    @property
    def busy_s(self) -> FloatColumn:
        """Busy time of all stages together, float64 [iterations]."""
        return np.asarray(self.stage_time_s.sum(axis=1), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord:
    """One run, simulated or real: what was run, every request, every iteration."""

    meta: RunMeta
    requests: RequestColumns
    iterations: IterationColumns

    @property
    def start_s(self) -> float:
        """When the first request arrived (0 where there is none)."""
        return float(self.requests.arrival_s[0]) if len(self.requests) else 0.0

    @cached_property
    def end_s(self) -> float:
        """When the last iteration ended (the last arrival, where there is none)."""
        last_arrival_s = float(self.requests.arrival_s[-1]) if len(self.requests) else 0.0
        return float(self.iterations.end_s.max(initial=last_arrival_s))

    @cached_property
    def tbt_s(self) -> Distribution:
        """Every time between two tokens of a request."""
        return Distribution.of_counts(self.iterations.gap_s, self.iterations.gap_count)

    @cached_property
    def _replica_rows(self) -> ReplicaRows:
        return ReplicaRows(self.iterations.replica, self.meta.replicas)

    def rows_of(self, replica: int) -> npt.NDArray[np.intp]:
        """Return the rows of the iterations of one replica, in order of their end."""
        return self._replica_rows.of(replica)

    def of_replica(self, column: npt.NDArray[Kind], replica: int) -> npt.NDArray[Kind]:
        """Return the part of a column [iterations, ...] that is of one replica, in order of the ends."""
        return self._replica_rows.pick(column, replica)
