"""Somebody else's table as it stands in its file: CSV or parquet, every value checked on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Mask = npt.NDArray[np.bool_]
UNITS_PER_S: Mapping[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True)
class RawTable:
    """A table and where it came from.

    Attributes
    ----------
    path
        Its file.
    table
        Its columns; those of a CSV file hold text.
    first_line
        The line of the first row in a CSV file (the header is line 1); 1 for parquet, which has rows.
    units
        The unit in which each column of times was read, by its name.
    """

    path: Path
    table: pa.Table
    first_line: int
    units: dict[str, str] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns."""
        return frozenset(self.table.column_names)

    def where(self, column: str, row: int | None = None) -> str:
        """Return the place of a value, for a message."""
        line = "" if row is None else f":{row + self.first_line}"
        return f"{self.path}{line}, column {column!r}"

    def texts(self, column: str) -> npt.NDArray[Any]:
        """Return a column as text."""
        return np.asarray(self._column(column).to_pylist(), dtype=np.str_)

    def only(self, column: str) -> str:
        """Return the one value of a column that holds the same in every row.

        Raises
        ------
        InputError
            At the first row with another value than the first one's.
        """
        values = self.texts(column)
        other = np.flatnonzero(values != values[0])
        if len(other):
            what = f"value is {values[other[0]]}, and {values[0]} above"
            raise InputError(what, where=self.where(column, int(other[0])), expected=f"one {column} in a table")
        return str(values[0])

    def integers(self, column: str, *, minimum: int = 0) -> npt.NDArray[np.int64]:
        """Return a column of whole numbers.

        Raises
        ------
        InputError
            At the first value that is none, or is below ``minimum``.
        """
        values = self._floats(column, np.ones(len(self), dtype=np.bool_))
        wrong = (values < minimum) | (values != np.floor(values)) | (values > 2.0**53)
        self._refuse(column, wrong, f"an integer >= {minimum}")
        return values.astype(np.int64)

    def times(self, column: str, unit: str, *, rows: Mask | None = None) -> npt.NDArray[np.float64]:
        """Return a column of times in seconds.

        Parameters
        ----------
        unit
            What the file counts in: a key of :data:`UNITS_PER_S`.
        rows
            Only these; the others, where the op did not run, are 0.

        Raises
        ------
        InputError
            At the first value that is no number, not finite or negative.
        """
        wanted = np.ones(len(self), dtype=np.bool_) if rows is None else rows
        self.units[column] = unit
        values = self._floats(column, wanted)
        self._refuse(column, ~np.isfinite(values) | (values < 0), f"a time >= 0 in {unit}")
        return values / UNITS_PER_S[unit]

    def flags(self, column: str) -> Mask:
        """Return a column of ``True`` and ``False``."""
        values = np.char.lower(self.texts(column))
        self._refuse(column, ~np.isin(values, ("true", "false")), "True or False")
        return np.asarray(values == "true")

    def _column(self, column: str) -> pa.ChunkedArray:
        if column not in self.table.column_names:
            raise InputError(f"column {column!r} is missing", where=self.path)
        return self.table[column]

    def _floats(self, column: str, wanted: Mask) -> npt.NDArray[np.float64]:
        values = np.zeros(len(self))
        chosen = np.fromiter(self._column(column).to_pylist(), dtype=object, count=len(self))[wanted]
        try:
            values[wanted] = chosen.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            rows = np.flatnonzero(wanted)
            first = next(row for row, value in zip(rows, chosen, strict=True) if not _is_number(value))
            self._complain(column, int(first), "a number")
        self._refuse(column, ~np.isfinite(values), "a finite number")
        return values

    def _refuse(self, column: str, wrong: Mask, expected: str) -> None:
        if wrong.any():
            self._complain(column, int(np.flatnonzero(wrong)[0]), expected)

    def _complain(self, column: str, row: int, expected: str) -> None:
        value = self.table[column][row].as_py()
        shown = "empty" if value in (None, "") else str(value)[:40]
        raise InputError(f"value is {shown}", where=self.where(column, row), expected=expected)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True
