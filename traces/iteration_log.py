"""Iterations as they end, many at a time, into the batches of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from traces.run_tables import column_batch

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, npt.NDArray[Any]]
FlopsOf = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float64]]
"""Returns the model FLOPs of iterations from their columns, those of a table and :attr:`Run.prefill_pairs`."""
ROWS = 65_536
NONE_TO_COME = inf


class Run(NamedTuple):
    """The same batch once or several times in a row; all but the contexts is the same each time.

    The fields are those of :class:`traces.run_columns.IterationColumns` the first time; after it every decode's
    context is longer by one token each time, and there are no preemptions. ``times`` is how often it ran,
    ``prefill_pairs`` the (query, key) pairs of its chunks.
    """

    replica: int
    times: int
    stages: int
    prefill_tokens: int
    chunks: int
    decodes: int
    outputs: int
    decode_context_sum: int
    decode_context_max: int
    prefill_context_sum: int
    prefill_pairs: float
    waiting: int
    running: int
    preemptions: int


INTEGERS = tuple(name for name in Run._fields if name not in ("times", "stages", "prefill_pairs"))


class IterationLog:
    """Notes iterations in any order and yields them by their end, then by replica, in tables of 65,536 rows.

    So what comes out does not depend on how many iterations were noted at once, nor on when.

    Parameters
    ----------
    flops_of
        How the column ``flops`` follows from the others.
    replicas
        How many there are: of one, whose iterations end one after the other, they are in order already.
    """

    def __init__(self, flops_of: FlopsOf, *, replicas: int = 1) -> None:
        self._flops_of, self._replicas = flops_of, replicas
        self._clear()
        self._rest: list[Columns] = []
        self._numbered = 0

    def __len__(self) -> int:
        return len(self._blocks_used)

    def _clear(self) -> None:
        self._runs: list[tuple[Any, ...]] = []
        self._stage_start_s: list[float] = []
        self._stage_time_s: list[float] = []
        self._blocks_used: list[int] = []
        self._outside: list[int] = []
        self._gaps: list[Sequence[tuple[float, int]]] = []

    def add(
        self,
        run: Run | tuple[Any, ...],
        *,
        stage_start_s: Sequence[float],
        stage_time_s: Sequence[float],
        blocks_used: Sequence[int],
        outside: Sequence[int],
        gaps: Sequence[tuple[float, int]],
    ) -> None:
        """Note a run.

        Parameters
        ----------
        run
            A :class:`Run`, or a tuple of the same fields (cheaper).
        stage_start_s, stage_time_s
            Of each stage, one time after the other.
        blocks_used, outside
            Of each time.
        gaps
            (gap_s, gap_count) that end with the first time; with each of the others ends one of every decode.
        """
        self._runs.append(run)
        self._stage_start_s += stage_start_s
        self._stage_time_s += stage_time_s
        self._blocks_used += blocks_used
        self._outside += outside
        self._gaps.append(gaps)

    def tables(self, settled_s: float = NONE_TO_COME, *, rest: bool = False) -> Iterator[pa.RecordBatch]:
        """Yield what is complete: tables of iterations that end before ``settled_s``, the earliest of those to come.

        With ``rest`` also the last rows, fewer than a table.
        """
        if self._runs:
            self._rest.append(self._columns())
        self._clear()
        if not rest and not self._worth_sorting(settled_s):
            return
        made = _joined(self._rest)
        self._rest = []
        if made is None:
            return
        if self._replicas > 1:
            made = _taken(made, np.lexsort((made["replica"], made["end_s"])))
        rows = len(made["end_s"])
        settled = rows if rest or self._replicas == 1 else int(np.searchsorted(made["end_s"], settled_s))
        until = settled if rest else settled - settled % ROWS
        for first in range(0, until, ROWS):
            yield self._table(_sliced(made, first, min(first + ROWS, until)))
        self._rest = [_sliced(made, until, rows)]

    def _worth_sorting(self, settled_s: float) -> bool:
        """Whether there is a table's worth of complete rows, and they are half of all, so that each is sorted twice."""
        complete = sum(int(np.count_nonzero(part["end_s"] < settled_s)) for part in self._rest)
        return complete >= max(ROWS, sum(len(part["end_s"]) for part in self._rest) // 2)

    def _table(self, columns: Columns) -> pa.RecordBatch:
        rows = len(columns["end_s"])
        numbers = np.arange(self._numbered, self._numbered + rows)
        self._numbered += rows
        return column_batch({"iteration": numbers, **columns, "flops": self._flops_of(columns)})

    def _columns(self) -> Columns:
        width = len(Run._fields)
        flat = np.fromiter(chain.from_iterable(self._runs), np.float64, width * len(self._runs))
        of_runs = dict(zip(Run._fields, flat.reshape(-1, width).T, strict=True))
        times = of_runs["times"].astype(np.int64)
        first = np.cumsum(times) - times
        turn = np.arange(len(self)) - np.repeat(first, times)
        columns: Columns = {name: np.repeat(of_runs[name].astype(np.int64), times) for name in INTEGERS}
        columns["prefill_pairs"] = np.repeat(of_runs["prefill_pairs"], times)
        columns["decode_context_sum"] += turn * columns["decodes"]
        columns["decode_context_max"] += turn
        columns["preemptions"] *= turn == 0
        columns["blocks_used"] = np.asarray(self._blocks_used, np.int64)
        columns["outside"] = np.asarray(self._outside, np.int64)
        stages = np.repeat(of_runs["stages"].astype(np.int64), times)
        starts_s, times_s = np.asarray(self._stage_start_s), np.asarray(self._stage_time_s)
        last = np.cumsum(stages) - 1
        columns |= {"stages": stages, "stage_start_s": starts_s, "stage_time_s": times_s}
        columns["start_s"] = starts_s[last - stages + 1]
        columns["end_s"] = starts_s[last] + times_s[last]
        return columns | self._gap_columns(columns["end_s"], columns["decodes"], turn, first)

    def _gap_columns(self, end_s: Any, decodes: Any, turn: Any, first: Any) -> Columns:
        counts = np.ones(len(turn), np.int64)
        counts[first] = np.fromiter(map(len, self._gaps), np.int64, len(self._gaps))
        noted = np.fromiter(chain.from_iterable(chain.from_iterable(self._gaps)), np.float64).reshape(-1, 2)
        again = turn > 0
        of_first = ~np.repeat(again, counts)
        gap_s, gap_count = np.empty(len(of_first)), np.empty(len(of_first), np.int64)
        gap_s[of_first], gap_count[of_first] = noted[:, 0], noted[:, 1]
        later = np.flatnonzero(again)
        gap_s[~of_first], gap_count[~of_first] = end_s[later] - end_s[later - 1], decodes[later]
        return {"gaps": counts, "gap_s": gap_s, "gap_count": gap_count}


LISTS = {"stages": ("stage_start_s", "stage_time_s"), "gaps": ("gap_s", "gap_count")}
"""Column of lengths -> the columns of lists that have them, end to end."""


def _joined(parts: list[Columns]) -> Columns | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _sliced(columns: Columns, first: int, last: int) -> Columns:
    made = dict(columns)
    for lengths, names in LISTS.items():
        until = np.concatenate([[0], np.cumsum(columns[lengths])])
        for name in names:
            made[name] = columns[name][until[first] : until[last]]
    within = chain.from_iterable(LISTS.values())
    lists = set(within)
    return {name: column if name in lists else column[first:last] for name, column in made.items()}


def _taken(columns: Columns, order: npt.NDArray[np.int64]) -> Columns:
    made = {}
    for lengths, names in LISTS.items():
        counts = columns[lengths]
        begins = np.cumsum(counts) - counts
        moved = counts[order]
        index = np.arange(moved.sum()) + np.repeat(begins[order] - (np.cumsum(moved) - moved), moved)
        made.update({name: columns[name][index] for name in names})
    return made | {name: column[order] for name, column in columns.items() if name not in made}
