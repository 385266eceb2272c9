"""Run records as arrow tables: from the rows of a run that happens, or from columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.arrow_arrays import lists_to_arrow, to_arrow
from traces.run_columns import IterationColumns
from traces.run_schema import ITERATION_TYPES, REQUEST_TYPES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa


def request_table(columns: Mapping[str, npt.ArrayLike]) -> pa.RecordBatch:
    """Return the requests as an arrow batch; ValueError unless exactly its columns are there."""
    import pyarrow as pa

    if columns.keys() != REQUEST_TYPES.keys():
        raise ValueError(f"requests need the columns {', '.join(REQUEST_TYPES)}")
    arrays = [to_arrow(kind, columns[name]) for name, kind in REQUEST_TYPES.items()]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(REQUEST_TYPES))


def iteration_batch(rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Return iterations, each a row of :class:`traces.run_record.IterationRow`, as one arrow batch."""
    *columns, gaps = zip(*rows, strict=True)
    counts = [len(of_one) for of_one in gaps]
    flat = list(chain.from_iterable(gaps))
    names = list(ITERATION_TYPES)
    arrays = [_array(ITERATION_TYPES[name], column) for name, column in zip(names[:-2], columns, strict=True)]
    arrays.append(lists_to_arrow("list<float64>", counts, [gap_s for gap_s, _ in flat]))
    arrays.append(lists_to_arrow("list<int32>", counts, [count for _, count in flat]))
    return _batch(arrays)


def column_batch(columns: Mapping[str, npt.NDArray[Any]]) -> pa.RecordBatch:
    """Return iterations, given by columns, as one arrow batch.

    The lists of a column stand end to end; ``stages`` and ``gaps`` are their lengths. Other columns are left out.
    """
    arrays = []
    for name, kind in ITERATION_TYPES.items():
        if kind.startswith("list"):
            arrays.append(lists_to_arrow(kind, columns["gaps" if name.startswith("gap") else "stages"], columns[name]))
        else:
            arrays.append(_array(kind, columns[name]))
    return _batch(arrays)


def iteration_batches(made: IterationColumns, size: int) -> Iterator[pa.RecordBatch]:
    """Yield the iterations as arrow batches of ``size`` rows."""
    made = made.in_memory()
    for first in range(0, len(made), size):
        rows = slice(first, min(first + size, len(made)))
        gaps = slice(made.gap_offsets[rows.start], made.gap_offsets[rows.stop])
        counts = np.diff(made.gap_offsets[rows.start : rows.stop + 1])
        yield _batch([_slice(made, name, kind, rows, gaps, counts) for name, kind in ITERATION_TYPES.items()])


def _slice(made: IterationColumns, name: str, kind: str, rows: slice, gaps: slice, counts: Any) -> Any:
    values = getattr(made, name)
    if not kind.startswith("list"):
        return _array(kind, values[rows])
    if name.startswith("gap"):
        return lists_to_arrow(kind, counts, values[gaps])
    there = ~np.isnan(made.stage_start_s[rows])
    return lists_to_arrow(kind, there.sum(axis=1), values[rows][there])


def _array(kind: str, column: Any) -> Any:
    if kind.startswith("list"):
        return lists_to_arrow(kind, [len(cell) for cell in column], list(chain.from_iterable(column)))
    return to_arrow(kind, column)


def _batch(arrays: list[Any]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(ITERATION_TYPES))
