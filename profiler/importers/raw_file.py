"""Reading a file of somebody else's: CSV, plain or gzip, or parquet; broken, lying and oversized ones are refused."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.importers.raw_table import RawTable
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".csv.gz", ".parquet")
MOST_BYTES = 512 * 2**20
"""Of one table, unpacked: a few gzip bytes can stand for any number of them."""
MOST_ROWS = 5_000_000
MOST_COLUMNS = 2_000
GZIP, PARQUET, BYTE_ORDER_MARK = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"


def read_raw(path: Path) -> RawTable:
    """Read a CSV (plain or gzip) or parquet file.

    Raises
    ------
    InputError
        If it is missing, truncated, empty, too large for a table of measured times, or not what its name says.
    """
    parquet = path.name.endswith(".parquet")
    table = _read_parquet(path) if parquet else _read_csv(path)
    if not table.num_rows:
        raise InputError("has no rows", where=path, expected="a table of measured times")
    return RawTable(path, table, 1 if parquet else 2)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            found = file.metadata
            size_bytes = sum(found.row_group(each).total_byte_size for each in range(found.num_row_groups))
            _check_size(path, rows=found.num_rows, columns=found.num_columns, size_bytes=size_bytes)
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"cannot read: {reason}", where=path, expected="a whole parquet file") from error
    _check_names(table.column_names, path)
    return table


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    data = read_bytes(path).removeprefix(BYTE_ORDER_MARK)
    if data.startswith((GZIP, PARQUET)):
        raise InputError("is no text", where=path, expected=f"a CSV file, or a name that says what it is: {SUFFIXES}")
    if not data.strip():
        raise InputError("is empty", where=path, expected="a header and rows")
    header = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split(",")
    _check_names(header, f"{path}:1")
    _check_size(path, rows=data.count(b"\n"), columns=len(header))
    as_text = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    try:
        return csv.read_csv(io.BytesIO(data), convert_options=as_text)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"cannot read: {reason}", where=path, expected="a CSV file") from error


def _check_names(names: list[str], where: str | Path) -> None:
    if len(set(names)) != len(names):
        raise InputError("two columns have the same name", where=where)


def _check_size(path: Path, *, rows: int = 0, columns: int = 0, size_bytes: int = 0) -> None:
    limits = ((rows, MOST_ROWS, "rows"), (columns, MOST_COLUMNS, "columns"), (size_bytes, MOST_BYTES, "bytes"))
    for count, most, name in limits:
        if count > most:
            raise InputError(f"holds more than {most:,} {name}", where=path, expected="a table of measured times")


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, unpacked if its name ends in ``.gz``.

    Raises
    ------
    InputError
        If it is missing, holds more than :data:`MOST_BYTES`, or is a truncated or broken gzip file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=path, expected="a table") from error
    _check_size(path, size_bytes=len(data))
    if path.name.endswith(".gz"):
        data = _unpacked(data, path)
        _check_size(path, size_bytes=len(data))
    return data


def _unpacked(data: bytes, path: Path) -> bytes:
    """Return the content of a gzip file, which may have several members one after the other."""
    whole = bytearray()
    while data and len(whole) <= MOST_BYTES:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            whole += member.decompress(data, MOST_BYTES + 1 - len(whole))
        except zlib.error as error:
            raise InputError(f"broken gzip: {error}", where=path, expected="a whole gzip file") from error
        if not member.eof and len(whole) <= MOST_BYTES:
            raise InputError("broken gzip: it ends too early", where=path, expected="a whole gzip file")
        data = member.unused_data.lstrip(b"\0")
    return bytes(whole)
