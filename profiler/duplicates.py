"""Shapes that were measured more than once: their median where the times agree, nothing where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from profiler.profile import COLUMNS, COUNT_COLUMN, TIME_COLUMNS, WHY_COLUMN
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

AGREEMENT = 1.25
"""Times of one shape agree within this factor: in published tables 99 % of the matrix products and attention calls
that stand there twice are within 1.08, all within 1.24."""
RESOLUTION_S = 1e-6
"""Or within this: some tables count in whole microseconds."""
MAJORITY = 2 / 3
"""The share of a shape's times that must agree with each other."""
MOST_DISAGREEING = 0.25
"""Of the shapes with several times; beyond, the table is taken to mix devices, versions or units."""
FEWEST_SHAPES = 8
SHORTEST_S = 1e-12


class Merged(NamedTuple):
    """What equal shapes became.

    Attributes
    ----------
    table
        One row a shape.
    same, strayed, disagreeing
        By op: rows that were merged into another; rows left out since most others of their shape agree on another
        time; rows left out since the times of their shape do not agree.
    worst
        The largest over the smallest time of a disagreeing shape, by op.
    """

    table: pa.Table
    same: Mapping[str, int]
    strayed: Mapping[str, int]
    disagreeing: Mapping[str, int]
    worst: Mapping[str, float]

    def left_out(self) -> dict[str, int]:
        """Return the counts with their reasons, as a profile's ``refused`` has them."""
        found = {f"{op}: same shape as another row": count for op, count in self.same.items()}
        found |= {f"{op}: far from most rows of its shape": count for op, count in self.strayed.items()}
        for op, count in self.disagreeing.items():
            found[f"{op}: times of one shape disagree (up to {self.worst[op]:.1f} times)"] = count
        return {reason: count for reason, count in found.items() if count}


def merge_duplicates(table: pa.Table, *, where: str | PathLike[str]) -> Merged:
    """Return ``table`` with equal shapes as one row, with the median of the times that agree.

    Times agree if the largest is within :data:`AGREEMENT` (or :data:`RESOLUTION_S`) of the smallest. Where two
    thirds of a shape's rows do, the others are left out; where they do not, all of them. The row that stays is the
    first of its shape; the order of rows is kept.

    Raises
    ------
    InputError
        If more than a quarter of the shapes that were measured several times disagree.
    """
    import pyarrow as pa

    shape, first = _shapes(table)
    found = _Tally(table)
    found.kept[first] = True
    for rows in _groups(shape):
        found.take(rows)
    found.check(where)
    position = table.schema.get_field_index("time_s")
    merged = table.set_column(position, table.schema.field(position), pa.array(found.time_s))
    return Merged(merged.filter(pa.array(found.kept)), found.same, found.strayed, found.disagreeing, found.worst)


class _Tally:
    """Goes through the shapes that have several rows, and counts what becomes of the rows, by op."""

    def __init__(self, table: pa.Table) -> None:
        self.time_s = table["time_s"].to_numpy().copy()
        self.kept = np.zeros(table.num_rows, dtype=np.bool_)
        self.same, self.strayed, self.disagreeing = Counter[str](), Counter[str](), Counter[str]()
        self.worst: dict[str, float] = {}
        self._ops = table["op"].to_pylist()
        self._shapes = self._disagreeing_shapes = 0

    def take(self, rows: npt.NDArray[np.intp]) -> None:
        op, times = self._ops[rows[0]], np.sort(self.time_s[rows])
        agreed = _agreed(times)
        self._shapes += 1
        if len(agreed) >= MAJORITY * len(rows):
            self.time_s[rows] = np.median(agreed)
            self.same[op] += len(agreed) - 1
            self.strayed[op] += len(rows) - len(agreed)
            return
        self.kept[rows] = False
        self._disagreeing_shapes += 1
        self.disagreeing[op] += len(rows)
        self.worst[op] = max(self.worst.get(op, 1.0), float(times[-1] / max(times[0], SHORTEST_S)))

    def check(self, where: str | PathLike[str]) -> None:
        """Refuse tables of which too many shapes disagree."""
        several, disagreeing = self._shapes, self._disagreeing_shapes
        if several >= FEWEST_SHAPES and disagreeing > MOST_DISAGREEING * several:
            named = ", ".join(f"{op} up to {factor:.1f} times" for op, factor in sorted(self.worst.items()))
            what = f"{disagreeing} of {several} shapes that were measured several times have times that disagree"
            wish = f"times of one device and version, within {AGREEMENT - 1:.0%} of each other"
            raise InputError(f"{what} ({named})", where=where, expected=wish)


def _shapes(table: pa.Table) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the number of each row's shape, and the first row of each shape."""
    keys = [name for name in COLUMNS if name not in (*TIME_COLUMNS, COUNT_COLUMN, WHY_COLUMN)]
    codes = [table[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in keys]
    _, first, shape = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    return shape.ravel(), first


def _groups(shape: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the rows of each shape that has several."""
    order = np.argsort(shape, kind="stable")
    starts = np.flatnonzero(np.diff(shape[order], prepend=-1))
    yield from (rows for rows in np.split(order, starts[1:]) if len(rows) > 1)


def _agreed(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the most of ascending ``times`` that agree with each other."""
    ends = np.searchsorted(times, AGREEMENT * times + (1 + 1e-9) * RESOLUTION_S, side="right")
    start = int(np.argmax(ends - np.arange(len(times))))
    return times[start : ends[start]]
