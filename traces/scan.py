"""Reading a workload row by row, every value checked: slow, and exact about what is wrong and where."""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from traces.columns import HASH_BLOCK_SIZES, Columns, check_size
from traces.errors import InputError
from traces.formats import Format, Layout, shown
from traces.stream import TraceFile, lines
from traces.values import BadValueError, integer, length, moment


def scan(
    trace: TraceFile, kind: Format, layout: Layout, *, ordered: bool = True, zero_output_as_one: bool = False
) -> Columns:
    """Read every row of ``trace``; times must ascend if ``ordered``.

    Raises
    ------
    InputError
        For the first row that is not one, with its line and column and what was expected.
    """
    rows = _Rows(kind, layout, ordered, zero_output_as_one)
    for line, row in _json_rows(trace) if layout == "jsonl" else _csv_rows(trace):
        if layout == "jsonl" and not kind.accepts(tuple(row)):
            raise kind.complaint(tuple(row), trace.place(line))
        try:
            rows.add(row)
        except BadValueError as error:
            where = trace.place(line, rows.column)
            raise InputError(error.what, where=where, expected=error.expected) from error
        check_size(len(rows.prompt), len(rows.hashes), trace.path)
    if not rows.prompt:
        raise InputError("has a header and no requests", where=trace.path, expected="one request a line")
    return rows.columns()


class _Rows:
    """The rows read so far; ``column`` is the one being looked at."""

    def __init__(self, kind: Format, layout: Layout, ordered: bool, zero_output_as_one: bool) -> None:
        self.kind = kind
        self.layout = layout
        self.ordered = ordered
        self.zero_output_as_one = zero_output_as_one
        self.column = ""
        self.time: array[float] = array("q" if kind.clock in ("timestamp", "ns") else "d")
        self.prompt = array("q")
        self.output = array("q")
        self.hashes = array("q")
        self.offsets = array("q", [0])
        self.hashed = False

    def add(self, row: Mapping[str, Any]) -> None:
        kind = self.kind
        if kind.time in row:
            self._add_time(self._value(row, kind.time))
        self.prompt.append(length(self._value(row, kind.prompt)))
        self.output.append(self._output(self._value(row, kind.output)))
        if kind.hashes is not None:
            self.column = kind.hashes
            self._add_hashes(row.get(kind.hashes))

    def _value(self, row: Mapping[str, Any], column: str) -> Any:
        self.column = column
        if self.layout == "jsonl" and isinstance(row[column], str):
            raise BadValueError(shown(row[column]), "a number, not text")
        return row[column]

    def _add_time(self, value: Any) -> None:
        when = moment(value, self.kind.clock)
        if self.ordered and self.time and when < self.time[-1]:
            what = f"the time {shown(value)} runs backwards, it is before that of the row above"
            raise BadValueError(what, "ascending times (--sort puts them in order)")
        self.time.append(when)

    def _output(self, value: Any) -> int:
        try:
            return length(value, zero_is_one=self.zero_output_as_one)
        except BadValueError as error:
            hint = " (--zero-output-as-one reads 0 as 1)" if error.what == "length 0" else ""
            raise BadValueError(error.what, error.expected + hint) from error

    def _add_hashes(self, value: Any) -> None:
        if value is not None and not isinstance(value, list):
            raise BadValueError(shown(value), "a list of integers")
        hashes = [integer(one, "a list of integers") for one in value or ()]
        smallest = HASH_BLOCK_SIZES[-1]
        most = -(-self.prompt[-1] // smallest)
        if len(hashes) > most:
            what = f"{len(hashes)} prefix hashes for a prompt of {self.prompt[-1]} tokens"
            raise BadValueError(what, f"at most {most} (blocks of {smallest} tokens)")
        self.hashed = self.hashed or value is not None
        self.hashes.extend(hashes)
        self.offsets.append(len(self.hashes))

    def columns(self) -> Columns:
        return Columns(
            clock=self.kind.clock,
            time=np.array(self.time) if self.time else None,
            prompt_tokens=np.array(self.prompt),
            output_tokens=np.array(self.output),
            hash_offsets=np.array(self.offsets) if self.hashed else None,
            hash_values=np.array(self.hashes) if self.hashed else None,
        )


def _csv_rows(trace: TraceFile) -> Iterator[tuple[int, Mapping[str, str]]]:
    with trace.open() as stream:
        every = lines(trace, stream)
        number, text = next(every, (0, ""))
        header = split_cells(trace, number, text)
        for line, text in every:
            cells = split_cells(trace, line, text)
            if len(cells) != len(header):
                wish = f"{len(header)}, as in the header"
                raise InputError(f"{len(cells)} fields", where=trace.place(line), expected=wish)
            yield line, dict(zip(header, cells, strict=True))


def split_cells(trace: TraceFile, line: int, text: str) -> list[str]:
    """Return the cells of a line of CSV, without the blanks around them."""
    try:
        return [cell.strip(" \t") for cell in next(csv.reader([text], strict=True))]
    except csv.Error as error:
        wish = "cells without line breaks or stray quotes"
        raise InputError(f"not CSV: {error}", where=trace.place(line), expected=wish) from error


def _json_rows(trace: TraceFile) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with trace.open() as stream:
        for line, text in lines(trace, stream):
            yield line, parse_object(trace, line, text)


def parse_object(trace: TraceFile, line: int, text: str) -> dict[str, Any]:
    """Return the JSON object that a line is; a key may not appear twice in it."""
    where, wish = trace.place(line), "one JSON object a line"
    try:
        row = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        what = f"not JSON at character {error.colno}: {error.msg}"
        raise InputError(what, where=where, expected=wish) from error
    except RecursionError as error:
        raise InputError("not JSON: nested too deeply", where=where, expected=wish) from error
    except ValueError as error:
        raise InputError(str(error), where=where, expected=wish) from error
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__}", where=where, expected=wish)
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {shown(twice)} appears twice")
    return row
