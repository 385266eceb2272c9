"""Columns between numpy and arrow, buffer by buffer.

``pyarrow.array`` and ``to_numpy`` import pandas where that is installed, which takes longer than many a simulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_type(kind: str) -> Any:
    """Return the arrow type called ``kind``, e.g. ``"int32"`` or ``"list<float64>"``."""
    import pyarrow as pa

    if kind.startswith("list<"):
        return pa.list_(pa.field("element", arrow_type(kind[5:-1]), nullable=False))
    return {"int32": pa.int32(), "int64": pa.int64(), "float64": pa.float64()}[kind]


def to_arrow(kind: str, values: npt.ArrayLike) -> pa.Array:
    """Return numbers [n] as an arrow array of a type; ValueError for a number that it does not have."""
    import pyarrow as pa

    given = np.asarray(values)
    made = np.ascontiguousarray(given, dtype=kind)
    if given.dtype.kind in "iuf" and made.dtype.kind == "i" and not np.array_equal(given, made):
        raise ValueError(f"a number that is no {kind}")
    return pa.Array.from_buffers(arrow_type(kind), len(made), [None, pa.py_buffer(made)])


def lists_to_arrow(kind: str, counts: npt.ArrayLike, values: npt.ArrayLike) -> pa.Array:
    """Return lists of ``counts`` [n] numbers each, which stand end to end in ``values``, as an arrow array."""
    import pyarrow as pa

    offsets = np.zeros(len(np.asarray(counts)) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    inner = to_arrow(kind[5:-1], values)
    return pa.ListArray.from_arrays(to_arrow("int32", offsets), inner, type=arrow_type(kind))


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """Return an arrow array of numbers, none of them missing, without a copy."""
    made: npt.NDArray[Any] = np.from_dlpack(array)
    return made
