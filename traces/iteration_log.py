"""Iterations as they end, many at a time, into the batches of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import chain
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from traces.run_tables import column_batch

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, npt.NDArray[Any]]
ROWS = 65_536
OF_BATCH = ("prefill_tokens", "decodes", "outputs", "decode_context_sum", "decode_context_max", "preemptions")
OF_FLIGHT = ("replica", "waiting", "running")
PARTS = attrgetter("batch", "blocks_used", "stage_start_s", "stage_time_s", "gaps")
CHUNK = attrgetter("tokens", "past")
LISTS = {
    "stages": ("stage_start_s", "stage_time_s"),
    "gaps": ("gap_s", "gap_count"),
    "chunks": ("chunk_tokens", "chunk_past"),
}
"""Column of lengths -> the columns of lists that have them, end to end."""


class Flight(Protocol):
    """A batch that has run, once or several times in a row, all but its contexts the same each time."""

    @property
    def replica(self) -> int:
        """Where it ran."""

    @property
    def batch(self) -> Any:
        """What ran the first time (:class:`policies.batch.Batch`); each time after that every decode's context is
        longer by one token, a chunk, of which there is one at most, comes after itself, and there are no preemptions.
        """

    @property
    def waiting(self) -> int:
        """Queue length."""

    @property
    def running(self) -> int:
        """Residents."""

    @property
    def blocks_used(self) -> Sequence[int]:
        """KV blocks in use, each time."""

    @property
    def stage_start_s(self) -> Sequence[float]:
        """When each stage began, one time after the other."""

    @property
    def stage_time_s(self) -> Sequence[float]:
        """For how long each stage was busy, one time after the other."""

    @property
    def gaps(self) -> Sequence[tuple[float, int]]:
        """(gap_s, gap_count) that ended with the first time; with each of the others ended one of every decode."""


class Ran(NamedTuple):
    """A :class:`Flight` in plain values."""

    batch: Any
    stage_start_s: Sequence[float]
    stage_time_s: Sequence[float]
    blocks_used: Sequence[int]
    waiting: int
    running: int
    gaps: Sequence[tuple[float, int]]
    replica: int = 0


class IterationLog:
    """Notes iterations in any order and yields them by their end, then by replica, in tables of 65,536 rows.

    So what comes out does not depend on how many iterations were noted at once, nor on when.

    Parameters
    ----------
    complete
        Gets the columns of a table, each [iterations] but for the lists of :data:`LISTS`, and returns those that follow
        from them: ``flops`` and ``outside``. Beside the columns of the table there are the tokens of each chunk and the
        KV tokens before it (``chunk_tokens``, ``chunk_past``), and the least and the most of an iteration
        (``chunk_least``, ``chunk_most``, ``past_least``, ``past_most``; 0 without chunks).
    replicas
        How many there are: of one, whose iterations end one after the other, they are in order already.
    """

    def __init__(self, complete: Callable[[Columns], Columns], *, replicas: int = 1) -> None:
        self._complete, self._replicas = complete, replicas
        self._rest: list[Columns] = []
        self._rows = self._numbered = 0

    def take(self, flights: list[Flight]) -> int:
        """Take flights out of a list; return how many iterations there are since tables were asked for."""
        self._rest.append(_columns(flights))
        self._rows += len(self._rest[-1]["end_s"])
        flights.clear()
        return self._rows

    def tables(self, settled_s: float = inf, *, rest: bool = False) -> Iterator[pa.RecordBatch]:
        """Yield what is complete: tables of iterations that end before ``settled_s``, the earliest of those to come.

        With ``rest`` also the last rows, fewer than a table.
        """
        self._rows = 0
        if not rest and not self._worth_sorting(settled_s):
            return
        made = _joined(self._rest)
        self._rest = []
        if made is None:
            return
        if self._replicas > 1:
            made = taken(made, np.lexsort((made["replica"], made["end_s"])))
        rows = len(made["end_s"])
        settled = rows if rest or self._replicas == 1 else int(np.searchsorted(made["end_s"], settled_s))
        until = settled if rest else settled - settled % ROWS
        for first in range(0, until, ROWS):
            yield self._table(_sliced(made, first, min(first + ROWS, until)))
        self._rest = [_sliced(made, until, rows)]

    def _worth_sorting(self, settled_s: float) -> bool:
        """Whether there is a table's worth of complete rows, and they are half of all, so that each is sorted twice."""
        if self._replicas == 1:
            return True
        complete = sum(int(np.count_nonzero(part["end_s"] < settled_s)) for part in self._rest)
        return complete >= max(ROWS, sum(len(part["end_s"]) for part in self._rest) // 2)

    def _table(self, columns: Columns) -> pa.RecordBatch:
        rows = len(columns["end_s"])
        columns["iteration"] = np.arange(self._numbered, self._numbered + rows)
        self._numbered += rows
        return column_batch(columns | self._complete(columns))


def _columns(flights: list[Flight]) -> Columns:
    """Return the iterations of flights as columns."""
    batches, blocks_used, stage_start_s, stage_time_s, gaps = zip(*map(PARTS, flights), strict=True)
    times = _counts(blocks_used)
    first = np.cumsum(times) - times
    of_flight = _integers(flights, OF_FLIGHT) | _integers(batches, OF_BATCH)
    of_flight["stages"] = _counts(stage_time_s) // times
    several = len(flights) < int(times.sum())
    columns: Columns = {name: np.repeat(values, times) for name, values in of_flight.items()} if several else of_flight
    columns["turn"] = np.arange(times.sum()) - np.repeat(first, times)
    columns["blocks_used"] = _flat(blocks_used, np.int64)
    columns["stage_start_s"] = _flat(stage_start_s, np.float64)
    columns["stage_time_s"] = _flat(stage_time_s, np.float64)
    if several:
        columns["decode_context_sum"] += columns["turn"] * columns["decodes"]
        columns["decode_context_max"] += columns["turn"] * (columns["decodes"] > 0)
        columns["preemptions"] *= columns["turn"] == 0
    last = np.cumsum(columns["stages"]) - 1
    columns["start_s"] = columns["stage_start_s"][last - columns["stages"] + 1]
    columns["end_s"] = columns["stage_start_s"][last] + columns["stage_time_s"][last]
    return columns | _chunk_columns([batch.chunks for batch in batches], times) | _gap_columns(gaps, columns, first)


def _integers(things: Sequence[Any], names: Sequence[str]) -> Columns:
    """Return attributes of ``things`` as columns."""
    flat = _flat(map(attrgetter(*names), things), np.int64)
    return dict(zip(names, flat.reshape(len(things), len(names)).T, strict=True))


def _counts(lists: Iterable[Sized]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(len, lists), np.int64)


def _flat(lists: Iterable[Iterable[Any]], kind: type) -> npt.NDArray[Any]:
    return np.fromiter(chain.from_iterable(lists), kind)


def _chunk_columns(chunks: list[list[Any]], times: npt.NDArray[np.int64]) -> Columns:
    """Return what iterations say of their chunks; of a batch that runs several times there is one at most, and each
    time the next of its prompt."""
    counts = _counts(chunks)
    tokens, past = _flat(map(CHUNK, chain.from_iterable(chunks)), np.int64).reshape(-1, 2).T
    again = np.repeat(times, counts)
    first = np.cumsum(again) - again
    tokens, past = np.repeat(tokens, again), np.repeat(past, again)
    past += (np.arange(len(past)) - np.repeat(first, again)) * tokens
    counts = np.repeat(counts, times)
    some = np.flatnonzero(counts)
    begins = (np.cumsum(counts) - counts)[some]
    made = {}
    for name, reduce, values in (
        ("chunk_least", np.minimum, tokens),
        ("chunk_most", np.maximum, tokens),
        ("past_least", np.minimum, past),
        ("past_most", np.maximum, past),
        ("prefill_context_sum", np.add, past),
    ):
        made[name] = np.zeros(len(counts), np.int64)
        made[name][some] = reduce.reduceat(values, begins) if len(some) else 0
    return made | {"chunks": counts, "chunk_tokens": tokens, "chunk_past": past}


def _gap_columns(gaps: Sequence[Any], columns: Columns, first: npt.NDArray[np.int64]) -> Columns:
    again = (columns["turn"] > 0) & (columns["decodes"] > 0)
    counts = again.astype(np.int64)
    counts[first] = _counts(gaps)
    noted = _flat(chain.from_iterable(gaps), np.float64).reshape(-1, 2)
    later = np.flatnonzero(again)
    of_later = np.repeat(again, counts)
    gap_s, gap_count = np.empty(len(of_later)), np.empty(len(of_later), np.int64)
    gap_s[~of_later], gap_count[~of_later] = noted.T
    gap_s[of_later] = columns["end_s"][later] - columns["end_s"][later - 1]
    gap_count[of_later] = columns["decodes"][later]
    return {"gaps": counts, "gap_s": gap_s, "gap_count": gap_count}


def _joined(parts: list[Columns]) -> Columns | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _sliced(columns: Columns, first: int, last: int) -> Columns:
    """Return some of the rows, one after the other."""
    made = {}
    for lengths, names in LISTS.items():
        begin, middle = int(columns[lengths][:first].sum()), int(columns[lengths][first:last].sum())
        made.update({name: columns[name][begin : begin + middle] for name in names})
    return {name: made[name] if name in made else column[first:last] for name, column in columns.items()}


def taken(columns: Columns, order: npt.NDArray[np.intp]) -> Columns:
    """Return those of the rows, in that order, with their lists."""
    made = {}
    for lengths, names in LISTS.items():
        counts = columns[lengths]
        begins, moved = np.cumsum(counts) - counts, counts[order]
        index = np.arange(moved.sum()) + np.repeat(begins[order] - (np.cumsum(moved) - moved), moved)
        made.update({name: columns[name][index] for name in names})
    return {name: made[name] if name in made else column[order] for name, column in columns.items()}
