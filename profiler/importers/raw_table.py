"""Somebody else's table as it stands in its file: CSV or parquet, every value checked on the way."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Mask = npt.NDArray[np.bool_]
UNITS_PER_S: Mapping[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
SUFFIXES = (".csv", ".csv.gz", ".parquet")


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
    """

    path: Path
    table: pa.Table
    first_line: int

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
        chosen = np.asarray(self._column(column).to_pylist(), dtype=object)[wanted]
        try:
            values[wanted] = chosen.astype(np.float64)
        except (TypeError, ValueError):
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
    except (TypeError, ValueError):
        return False
    return True


def read_raw(path: Path) -> RawTable:
    """Read a CSV (plain or gzip) or parquet file.

    Raises
    ------
    InputError
        If it is missing, truncated, empty, or not what its name says.
    """
    table = _read_parquet(path) if path.name.endswith(".parquet") else _read_csv(path)
    if not table.num_rows:
        raise InputError("has no rows", where=path, expected="a table of measured times")
    return RawTable(path, table, 1 if path.name.endswith(".parquet") else 2)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"cannot read: {reason}", where=path, expected="a whole parquet file") from error


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    data = read_bytes(path)
    header = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split(",")
    if len(set(header)) != len(header):
        raise InputError("two columns have the same name", where=f"{path}:1")
    as_text = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    try:
        return csv.read_csv(io.BytesIO(data), convert_options=as_text)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"cannot read: {reason}", where=path, expected="a CSV file") from error


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, unpacked if its name ends in ``.gz``.

    Raises
    ------
    InputError
        If it is missing, or a truncated or broken gzip file.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.name.endswith(".gz") else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"broken gzip: {error}", where=path, expected="a whole gzip file") from error
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=path, expected="a table") from error
