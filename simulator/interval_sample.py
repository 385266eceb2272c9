"""How sure a cost model is of the iterations that a simulation ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import Aggregates, Slice

if TYPE_CHECKING:
    from profiler.cost_model import CostModel
    from traces.iteration_log import Columns

COVERAGE = 0.9
COUNTS = ("decodes", "outputs", "decode_context_sum", "decode_context_max")
MOST = 128
"""An interval takes many times as long as a prediction, and much the same batches come again and again."""


class IntervalSample:
    """Keeps up to 128 iterations, evenly spaced over a run of any length, and asks for their intervals at its end.

    Parameters
    ----------
    cost_model
        Whose :meth:`profiler.cost_model.CostModel.interval` is asked.
    """

    def __init__(self, cost_model: CostModel) -> None:
        self._cost_model = cost_model
        self._kept: list[tuple[Aggregates, Sequence[float]]] = []
        self._step, self._next = 1, 0

    def take(self, columns: Columns) -> None:
        """Note some of the iterations of a table (see :class:`traces.iteration_log.IterationLog`)."""
        rows = len(columns["stages"])
        stages, chunks = np.cumsum(columns["stages"]), np.cumsum(columns["chunks"])
        while self._next < rows:
            row = self._next
            of_stages = slice(stages[row] - columns["stages"][row], stages[row])
            of_chunks = slice(chunks[row] - columns["chunks"][row], chunks[row])
            self._kept.append((_batch(columns, row, of_chunks), columns["stage_time_s"][of_stages].tolist()))
            if len(self._kept) == MOST:
                self._kept, self._step = self._kept[1::2], 2 * self._step
            self._next += self._step
        self._next -= rows

    def as_dict(self) -> dict[str, Any] | None:
        """Return ``low`` and ``high``, between which times lie as multiples of those predicted; None without any."""
        time_s = sum(sum(stage_time_s) for _, stage_time_s in self._kept)
        if not time_s:
            return None
        bands = [
            self._cost_model.interval(batch, COVERAGE, stage)
            for batch, stage_time_s in self._kept
            for stage in range(len(stage_time_s))
        ]
        low_s, high_s = (sum(each) for each in zip(*bands, strict=True))
        return {"coverage": COVERAGE, "low": low_s / time_s, "high": high_s / time_s, "iterations": len(self._kept)}


def _batch(columns: Columns, row: int, chunks: slice) -> Aggregates:
    sizes, pasts = columns["chunk_tokens"][chunks].tolist(), columns["chunk_past"][chunks].tolist()
    counts = {name: int(columns[name][row]) for name in COUNTS}
    return Aggregates(chunks=tuple(map(Slice, sizes, pasts)), **counts)
