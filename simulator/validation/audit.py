"""The measured run once more in simulated time: are its batches the same, and what should each have taken?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import nan
from os import PathLike

import numpy as np
import numpy.typing as npt

from policies.arrivals import Arrivals
from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.rerun import COMPARED, follow, held
from profiler.cost_model import CostModel
from traces.files import whole_file
from traces.run_columns import IterationColumns
from traces.utilisation import DECODE, MIXED, PREFILL
from traces.workload import FloatColumn, IntColumn, Workload

COVERAGE = 0.9
"""The share of iterations that the cost model's interval promises to hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditColumns:
    """Each iteration of a measured run beside what the cost model says of the same batch, each [iterations].

    Attributes
    ----------
    iteration
        Number of the iteration.
    measured_s, predicted_s
        What it took, what the cost model gives for the batch that the simulator made; NaN where it made none.
    low_s, high_s
        The cost model's interval for 90 % of iterations.
    same
        Whether the simulator's batch holds the same (:data:`COMPARED`). Where not, ``predicted_s`` is of another
        batch, and nothing can be said of its error.
    tokens, chunks, decodes, contexts
        What the measured batch held; ``contexts`` are the KV tokens that decodes attend to and chunks find.
    """

    iteration: IntColumn
    measured_s: FloatColumn
    predicted_s: FloatColumn
    low_s: FloatColumn
    high_s: FloatColumn
    same: npt.NDArray[np.bool_]
    tokens: IntColumn
    chunks: IntColumn
    decodes: IntColumn
    contexts: IntColumn

    def __len__(self) -> int:
        return len(self.iteration)

    @property
    def error(self) -> FloatColumn:
        """``predicted_s`` / ``measured_s`` - 1, float64 [iterations], NaN where the batch is not the same."""
        known = self.same & (self.measured_s > 0)
        ratio = np.full(len(self), nan)
        np.divide(self.predicted_s, self.measured_s, out=ratio, where=known)
        return ratio - 1

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        """Whether the measured time lies within the interval, bool [iterations]."""
        return (self.low_s <= self.measured_s) & (self.measured_s <= self.high_s)


def audit(
    iterations: IterationColumns,
    workload: Workload,
    choice: PolicyChoice,
    memory: KVMemory,
    cost_model: CostModel,
    *,
    told: CostModel | None = None,
) -> AuditColumns:
    """Simulate ``workload`` again with the measured times of ``iterations``, and ask the cost model about each batch.

    Where the simulator makes another batch than the engine did, the rows from there on are compared all the same:
    each says for itself whether it is the same. ``told`` is the cost model that the engine's policy knew, if another.
    """
    policy = choice.build(memory, costs=told or cost_model)
    batches = follow(policy, Arrivals(workload, memory.block_size), iterations)
    return _columns(iterations, batches, cost_model)


def same_batches(one: IterationColumns, other: IterationColumns) -> npt.NDArray[np.bool_]:
    """Return whether the batches of two runs hold the same, one by one: bool [iterations of the shorter run]."""
    rows = min(len(one), len(other))
    same = np.ones(rows, dtype=np.bool_)
    for name in COMPARED:
        same &= getattr(one, name)[:rows] == getattr(other, name)[:rows]
    return same


def leading(same: npt.NDArray[np.bool_]) -> int:
    """Return how many values are true before the first false one."""
    return len(same) if same.all() else int(np.argmin(same))


def kinds(columns: AuditColumns) -> IntColumn:
    """Return what each iteration held: index into :data:`traces.utilisation.KINDS`, int64 [iterations]."""
    chunks, decodes = columns.chunks > 0, columns.decodes > 0
    return np.where(chunks & decodes, MIXED, np.where(chunks, PREFILL, DECODE))


def _columns(iterations: IterationColumns, batches: Sequence[Batch | None], cost_model: CostModel) -> AuditColumns:
    measured = np.stack([getattr(iterations, name) for name in COMPARED], axis=1).tolist()
    same = [batch is not None and held(batch) == row for batch, row in zip(batches, measured, strict=True)]
    predicted = np.array([_predicted(batch, cost_model) for batch in batches]).reshape(-1, 3)
    return AuditColumns(
        iteration=iterations.iteration,
        measured_s=iterations.busy_s,
        predicted_s=predicted[:, 0],
        low_s=predicted[:, 1],
        high_s=predicted[:, 2],
        same=np.array(same, dtype=np.bool_),
        tokens=iterations.prefill_tokens.astype(np.int64) + iterations.decodes,
        chunks=iterations.chunks.astype(np.int64),
        decodes=iterations.decodes.astype(np.int64),
        contexts=iterations.decode_context_sum + iterations.prefill_context_sum,
    )


def _predicted(batch: Batch | None, cost_model: CostModel) -> tuple[float, float, float]:
    if batch is None:
        return nan, nan, nan
    return cost_model.iteration_time(batch), *cost_model.interval(batch, COVERAGE)


def write_audit(path: str | PathLike[str], columns: AuditColumns) -> None:
    """Write an audit as a parquet file with the columns of :class:`AuditColumns`."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({field.name: getattr(columns, field.name) for field in fields(AuditColumns)})
    with whole_file(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")
