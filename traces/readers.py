"""Reading a workload from a file, whatever the format."""

from __future__ import annotations

import os

from traces.errors import InputError
from traces.formats import Head, Layout, recognise
from traces.scan import parse_object, scan, split_cells
from traces.stream import TraceFile, lines
from traces.workload import Workload


def read_head(trace: TraceFile) -> Head:
    """Recognise the format of a file by its header or its first object.

    Raises
    ------
    InputError
        If the file is missing, empty, not text, or its columns are those of no format.
    """
    with trace.open() as stream:
        every = lines(trace, stream)
        number, first = next(every, (0, ""))
        if not first:
            raise InputError("is empty", where=trace.path, expected="a CSV or JSONL workload")
        layout = _layout(trace, number, first)
        if layout == "jsonl":
            header_lines, row, columns = 0, first, tuple(parse_object(trace, number, first))
        else:
            header_lines, row = number, next(every, (0, ""))[1]
            columns = tuple(split_cells(trace, number, first))
    kind = recognise(columns, layout, trace.place(number))
    return Head(format=kind, layout=layout, columns=columns, header_lines=header_lines, first_row=row)


def _layout(trace: TraceFile, number: int, first: str) -> Layout:
    start = first.lstrip()[0]
    if start == "[":
        wish = "one JSON object a line (JSONL)"
        raise InputError("a JSON array", where=trace.place(number), expected=wish)
    return "jsonl" if start == "{" else "csv"


def read_workload(
    path: str | os.PathLike[str] | TraceFile, *, sort: bool = False, zero_output_as_one: bool = False
) -> Workload:
    """Read a workload from a CSV or JSONL file, plain or gzip, its format recognised by its columns.

    The formats are those of :data:`traces.formats.FORMATS`. A clock that counts dates, or seconds since 1970,
    is made relative to the first arrival at full precision; any other is kept, so that the first request may
    arrive later than 0. Rows keep the order of the file where times are equal.

    Parameters
    ----------
    path
        The file.
    sort
        Put the requests in order of arrival; without it a time that runs backwards is an error.
    zero_output_as_one
        Read an output length of 0 (a request that was refused or cut off) as 1, the one token that every
        prefill yields; without it such a row is an error.

    Raises
    ------
    InputError
        With file, line and column, and what was expected: for an unknown or missing column, a row with too
        few or too many fields, a length that is no integer >= 1, a time that is none or runs backwards, text
        that is not UTF-8, gzip data cut off, an empty file, more than 50 million requests.
    """
    from traces.bulk import UnreadableError, read_columns

    trace = path if isinstance(path, TraceFile) else TraceFile(path)
    head = read_head(trace)
    try:
        columns = read_columns(trace, head)
        if zero_output_as_one:
            columns = columns.with_outputs()
        if not columns.sound(ordered=not sort):
            raise UnreadableError("a row is not sound")
    except UnreadableError:
        columns = scan(trace, head.format, head.layout, ordered=not sort, zero_output_as_one=zero_output_as_one)
    return columns.workload(trace.name)
