"""Reading a workload column by column with pyarrow: fast, and silent about what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from traces.columns import Columns, check_size
from traces.errors import InputError
from traces.formats import Format, Head
from traces.stream import TraceFile, blocks

if TYPE_CHECKING:
    import pyarrow as pa


class UnreadableError(Exception):
    """The fast way cannot read this file; the slow one can, or says why not."""


def read_columns(trace: TraceFile, head: Head) -> Columns:
    """Read the columns of ``trace`` in blocks of a few MiB.

    Raises
    ------
    UnreadableError
        If any block is not plainly what the format promises.
    InputError
        If the workload is too large to hold (:func:`traces.columns.check_size`), or its file cannot be read.
    """
    import pyarrow as pa

    parse = _csv_parser(head) if head.layout == "csv" else _json_parser(head)
    try:
        with trace.open() as stream:
            tables = list(_bounded(map(parse, _bodies(blocks(stream), head.header_lines)), trace, head))
        return _columns(pa.concat_tables(tables).combine_chunks(), head.format)
    except InputError:
        raise
    except (pa.ArrowException, ValueError) as error:
        raise UnreadableError(str(error)) from error


def _bounded(tables: Iterator[pa.Table], trace: TraceFile, head: Head) -> Iterator[pa.Table]:
    requests = hashes = 0
    for table in tables:
        requests += table.num_rows
        if head.format.hashes in table.column_names:
            hashes += sum(len(chunk.values) for chunk in table[head.format.hashes].chunks)
        check_size(requests, hashes, trace.path)
        yield table
    if not requests:
        raise UnreadableError("no requests")


def _bodies(parts: Iterator[bytes], header_lines: int) -> Iterator[bytes]:
    for block in parts:
        *header, body = block.split(b"\n", header_lines)
        header_lines -= len(header)
        if not body.isascii():
            body.decode()
        if not header_lines and body.strip():
            yield body


def _types(kind: Format, *, zoned: bool = False) -> dict[str | None, Any]:
    import pyarrow as pa

    clocks: dict[str, Any] = {
        "timestamp": pa.timestamp("ns", tz="UTC" if zoned else None),
        "ns": pa.int64(),
        "ms": pa.float64(),
        "s": pa.float64(),
    }
    return {
        kind.time: clocks[kind.clock],
        kind.prompt: pa.int64(),
        kind.output: pa.int64(),
        kind.hashes: pa.list_(pa.int64()),
    }


def _csv_parser(head: Head) -> Callable[[bytes], pa.Table]:
    import pyarrow as pa
    from pyarrow import csv

    types = _types(head.format, zoned=_has_zone(head.first_row))
    schema = pa.schema([(name, types[name]) for name in head.columns if name in types])
    read = csv.ReadOptions(column_names=head.columns)
    convert = csv.ConvertOptions(column_types=schema, include_columns=schema.names, null_values=[])

    def parse(block: bytes) -> pa.Table:
        if b"x" in block or b"X" in block:
            raise UnreadableError("hexadecimal numbers")
        return csv.read_csv(pa.BufferReader(block), read_options=read, convert_options=convert)

    return parse


def _has_zone(row: str) -> bool:
    cells = (cell.strip('" \t') for cell in row.split(","))
    return any(cell.count(":") >= 2 and cell[19:].strip("0123456789.") for cell in cells)


def _json_parser(head: Head) -> Callable[[bytes], pa.Table]:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    options = arrow_json.ParseOptions(explicit_schema=_json_schema(head), unexpected_field_behavior="error")

    def parse(block: bytes) -> pa.Table:
        read = arrow_json.ReadOptions(block_size=len(block) + 1)
        return arrow_json.read_json(pa.BufferReader(block), read_options=read, parse_options=options)

    return parse


def _json_schema(head: Head) -> pa.Schema:
    import pyarrow as pa

    types = _types(head.format)
    others = {int: pa.int64(), float: pa.float64(), str: pa.string(), list: pa.list_(pa.int64())}
    row = json.loads(head.first_row)
    return pa.schema([(name, types.get(name) or others.get(type(value), pa.null())) for name, value in row.items()])


def _columns(table: pa.Table, kind: Format) -> Columns:
    read = [name for name in (kind.time, kind.prompt, kind.output) if name in table.column_names]
    if any(table[name].null_count for name in read):
        raise UnreadableError("missing values")
    offsets, values = _hashes(table, kind)
    return Columns(
        clock=kind.clock,
        time=_time(table, kind),
        prompt_tokens=table[kind.prompt].to_numpy(),
        output_tokens=table[kind.output].to_numpy(),
        hash_offsets=offsets,
        hash_values=values,
    )


def _time(table: pa.Table, kind: Format) -> Any:
    import pyarrow as pa

    if kind.time not in table.column_names:
        return None
    time = table[kind.time]
    return (time.cast(pa.int64()) if kind.clock == "timestamp" else time).to_numpy()


def _hashes(table: pa.Table, kind: Format) -> tuple[Any, Any]:
    import pyarrow.compute as pc

    if kind.hashes not in table.column_names or table[kind.hashes].null_count == len(table):
        return None, None
    lists = table[kind.hashes]
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    values = pc.list_flatten(lists)
    if values.null_count:
        raise UnreadableError("missing prefix hashes")
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), values.to_numpy()
