"""The iterations of a run record, of which there may be too many for memory: each column read when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.column_source import ColumnSource
from traces.replica_rows import ReplicaRows
from traces.run_checks import Check
from traces.run_columns import IterationColumns, RunMeta
from traces.run_schema import ITERATION_TYPES
from traces.workload import FloatColumn, IntColumn

KEPT_BYTES = 1 << 28
COLUMNS = frozenset(ITERATION_TYPES) | {"gap_offsets"}
ABSENT = {"stage_start_s": np.nan, "stage_time_s": 0.0}
"""Of stages that a replica does not have."""


class StoredIterations(IterationColumns):
    """Iterations of which a column is read, and its values looked at, when it is asked for.

    The columns asked for last are kept, up to 256 MiB together; so are all of a short run. An attribute raises
    InputError if a value of the column is missing or cannot be, with its row and column.

    Parameters
    ----------
    source
        The table; one of an older schema version is as if it were of this.
    meta
        What was run.
    """

    def __init__(self, source: ColumnSource, meta: RunMeta) -> None:
        self.__dict__.update(_source=source, _meta=meta, _check=Check(source.where), _kept={})

    _source: ColumnSource
    _meta: RunMeta
    _check: Check
    _kept: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return f"<{len(self):,} iterations of {self._source.where}>"

    def __getattr__(self, name: str) -> npt.NDArray[Any]:
        if name not in COLUMNS:
            raise AttributeError(name)
        column = self._kept.pop(name, None)
        if column is None:
            for other, values in self._read(name):
                self._kept[other] = values
            column = self._kept.pop(name)
        self._kept[name] = column
        self._let_go()
        return column

    def _let_go(self) -> None:
        """Keep no more than fits, the column asked for last in any case."""
        size = sum(column.nbytes for column in self._kept.values())
        for name in list(self._kept)[:-1]:
            if size <= KEPT_BYTES:
                break
            size -= self._kept.pop(name).nbytes

    def _read(self, name: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield a column, and another that comes with it."""
        if name in ABSENT:
            yield name, self._stages(name)
        elif name in ("gap_offsets", "gap_s"):
            offsets, gap_s = self._source.lists("gap_s")
            self._check.seconds(gap_s, "gap_s", offsets=offsets)
            yield "gap_offsets", offsets
            yield "gap_s", gap_s
        elif name == "gap_count":
            yield name, self._gap_count()
        elif name in self._source.types:
            yield name, self._numbers(name)
        else:
            yield name, np.zeros(len(self), ITERATION_TYPES[name])

    def _numbers(self, name: str) -> npt.NDArray[Any]:
        values = self._source.numbers(name)
        if name == "replica":
            self._check.replica(values, name, self._meta.replicas)
        elif name == "end_s":
            self._check_ends(values)
        elif ITERATION_TYPES[name] == "float64":
            self._check.finite(values, name)
        else:
            self._check.whole(values, name)
        return values

    def _check_ends(self, end_s: FloatColumn) -> None:
        self._check.all((end_s >= self.start_s) & (end_s < np.inf), "end_s", "a time >= start_s")
        if (np.diff(end_s) < 0).any():
            rows = ReplicaRows(self.replica, self._meta.replicas)
            for replica in range(self._meta.replicas):
                self._check.ascending(rows.pick(end_s, replica), f"end_s of replica {replica}")

    def _gap_count(self) -> npt.NDArray[Any]:
        offsets, counts = self._source.lists("gap_count")
        same = np.diff(offsets) == np.diff(self.gap_offsets)
        self._check.all(same, "gap_count", "as many values as gap_s")
        self._check.all(counts >= 1, "gap_count", "an integer >= 1", offsets=offsets)
        return counts

    def _stages(self, name: str) -> npt.NDArray[np.float64]:
        offsets, values = self._source.lists(name)
        counts, most = np.diff(offsets), self._meta.stages
        if len(self._meta.groups) > 1:
            expected: IntColumn | int = self._meta.of_each("stages").astype(np.int64)[self.replica]
        else:
            expected = most
        self._check.all(counts == expected, name, "a value for each stage of the replica")
        if name == "stage_time_s":
            self._check.seconds(values, name, offsets=offsets)
        else:
            self._check.finite(values, name, offsets=offsets)
        return _padded(values, counts, most, ABSENT[name])


def _padded(values: FloatColumn, counts: IntColumn, width: int, absent: float) -> npt.NDArray[np.float64]:
    """Return rows of ``counts`` values each as float64 [rows, width]."""
    if len(values) == len(counts) * width:
        return values.reshape(-1, width)
    padded = np.full((len(counts), width), absent)
    padded[np.arange(width) < counts[:, np.newaxis]] = values
    return padded
