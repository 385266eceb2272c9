"""Shapes that were measured more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from profiler.profile import COLUMNS, COUNT_COLUMN, TIME_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa


def merge_duplicates(table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Return ``table`` with equal shapes as one row, with their median time, and how many were merged, by op.

    The row that stays is the first of its shape; the order of rows is kept.
    """
    import pyarrow as pa

    keys = [name for name in COLUMNS if name not in (*TIME_COLUMNS, COUNT_COLUMN)]
    codes = [table[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in keys]
    _, first, shape = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    if len(first) == table.num_rows:
        return table, {}
    ops = np.asarray(table["op"].to_pylist(), dtype=np.str_)
    again = np.ones(table.num_rows, dtype=np.bool_)
    again[first] = False
    names, counts = np.unique(ops[again], return_counts=True)
    position = table.schema.get_field_index("time_s")
    median = pa.array(_medians(table["time_s"].to_numpy(), shape.ravel()))
    merged = table.set_column(position, table.schema.field(position), median)
    return merged.filter(pa.array(~again)), {str(name): int(n) for name, n in zip(names, counts, strict=True)}


def _medians(time_s: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return for each row the median over the rows of its shape."""
    order = np.argsort(shape, kind="stable")
    starts = np.flatnonzero(np.diff(shape[order], prepend=-1))
    medians = np.empty(len(time_s))
    for rows in np.split(order, starts[1:]):
        medians[rows] = np.median(time_s[rows])
    return medians
