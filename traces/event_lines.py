"""Lines of text made from whole columns at a time, for files with millions of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.workload import IntColumn

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 1 << 16
FRACTIONS = tuple(repr(part / 1000)[1:] for part in range(1000))
"""Thousandths as Python writes them after the point of a float: ".0", ".001", ".12"."""


def lines(*parts: str | pa.Array) -> memoryview:
    """Return the texts of all rows, one after another: in each row the parts follow each other.

    A part is a text, the same in every row, or a column of integers or texts; at least one is a column.
    """
    joined = _joined(parts)
    _, offsets, text = joined.buffers()
    return memoryview(text)[: np.frombuffer(offsets, np.int32)[len(joined)]]


def chunks(rows: int) -> Iterator[slice]:
    """Yield that many rows in parts small enough to hold the lines of."""
    for first in range(0, rows, CHUNK):
        yield slice(first, min(first + CHUNK, rows))


def column(values: npt.NDArray[Any]) -> pa.Array:
    """Return a column for :func:`lines`, of integers or texts."""
    import pyarrow as pa

    return pa.array(values)


def picked(texts: Iterable[str], index: npt.NDArray[Any]) -> pa.Array:
    """Return the column of ``texts[index[i]]``."""
    import pyarrow as pa

    return pa.array(list(texts)).take(pa.array(index))


def microseconds(times_ns: IntColumn) -> pa.Array:
    """Return whole nanoseconds in microseconds, as Python writes that float, but for any length exactly."""
    whole, part = np.divmod(np.abs(times_ns), 1000)
    return _joined((picked(("", "-"), (times_ns < 0).astype(np.int8)), column(whole), picked(FRACTIONS, part)))


def _joined(parts: Sequence[str | pa.Array]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [part if isinstance(part, str) else pc.cast(part, pa.string()) for part in parts]
    return pc.binary_join_element_wise(*texts, "")
