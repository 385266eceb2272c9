"""The workload formats people keep, and how each is known by its columns."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from traces.errors import InputError

Layout = Literal["csv", "jsonl"]
Clock = Literal["timestamp", "s", "ms", "ns"]

TICKS_PER_S: dict[Clock, float] = {"timestamp": 1e9, "s": 1.0, "ms": 1e3, "ns": 1e9}


@dataclass(frozen=True, kw_only=True)
class Format:
    """One published way to write a workload down.

    Attributes
    ----------
    name, title
        For commands and for people.
    layouts
        CSV with a header line, JSON objects one a line, or both.
    time, clock
        The column of arrival times and what it counts: dates ("timestamp"), or seconds, milliseconds or
        nanoseconds since the workload began.
    time_required
        False where files without arrival times exist too.
    prompt, output
        The columns of lengths, in tokens.
    hashes
        The column of prefix hashes, never required.
    marks
        Columns that are required though not read; they tell the format from a similar one.
    extras
        Columns that belong to the format and are not read.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    time: str
    clock: Clock
    prompt: str
    output: str
    time_required: bool = True
    hashes: str | None = None
    marks: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        """The columns every file of the format has."""
        return (*((self.time,) if self.time_required else ()), self.prompt, self.output, *self.marks)

    @property
    def known(self) -> tuple[str, ...]:
        """All columns a file of the format may have."""
        return tuple(dict.fromkeys((self.time, *self.required, *self._optional, *self.extras)))

    @property
    def _optional(self) -> tuple[str, ...]:
        return (self.hashes,) if self.hashes is not None else ()

    def accepts(self, columns: Sequence[str]) -> bool:
        """Whether ``columns`` are those of a file of this format."""
        return set(self.required) <= set(columns) <= set(self.known)

    def resemblance(self, columns: Sequence[str]) -> float:
        """How many of ``columns`` are the format's own; one with a typing error counts half."""
        near = sum(bool(_nearest(column, self.known)) for column in set(columns) - set(self.known))
        return len(set(columns) & set(self.known)) + near / 2

    def complaint(self, columns: Sequence[str], where: str) -> InputError:
        """Return what is wrong with ``columns`` for a file of this format."""
        for column in columns:
            if column not in self.known:
                nearest = _nearest(column, self.known)
                wish = repr(nearest) if nearest else f"those of {self.title}: {', '.join(self.known)}"
                return InputError(f"unknown column {shown(column)}", where=where, expected=wish)
        missing = next(column for column in self.required if column not in columns)
        wish = f"the columns of {self.title}: {', '.join(self.required)}"
        return InputError(f"column {missing!r} is missing", where=where, expected=wish)


@dataclass(frozen=True, kw_only=True)
class Head:
    """How a workload file begins.

    Attributes
    ----------
    format, layout
        What it is.
    columns
        The names in its header (CSV), or the keys of its first object (JSONL).
    header_lines
        The lines down to the end of the header, 0 for JSONL.
    first_row
        The first row, as text; empty if there is none.
    """

    format: Format
    layout: Layout
    columns: tuple[str, ...]
    header_lines: int
    first_row: str


CHARIOTEER = Format(
    name="charioteer",
    title="Charioteer",
    layouts=("csv",),
    time="arrival_s",
    clock="s",
    time_required=False,
    prompt="prompt_tokens",
    output="output_tokens",
)
AZURE = Format(
    name="azure",
    title="Azure LLM inference",
    layouts=("csv",),
    time="TIMESTAMP",
    clock="timestamp",
    prompt="ContextTokens",
    output="GeneratedTokens",
)
VIDUR = Format(
    name="vidur",
    title="Vidur",
    layouts=("csv",),
    time="arrived_at",
    clock="s",
    time_required=False,
    prompt="num_prefill_tokens",
    output="num_decode_tokens",
    extras=("num_total_tokens", "pd_ratio"),
)
LLMSERVINGSIM = Format(
    name="llmservingsim",
    title="LLMServingSim",
    layouts=("csv", "jsonl"),
    time="arrival_time_ns",
    clock="ns",
    prompt="input_toks",
    output="output_toks",
    extras=("input_tok_ids", "output_tok_ids"),
)
MOONCAKE = Format(
    name="mooncake",
    title="Mooncake / vLLM timed_trace",
    layouts=("jsonl",),
    time="timestamp",
    clock="ms",
    prompt="input_length",
    output="output_length",
    hashes="hash_ids",
)
BAILIAN = Format(
    name="bailian",
    title="Qwen-Bailian",
    layouts=("jsonl",),
    time="timestamp",
    clock="s",
    prompt="input_length",
    output="output_length",
    hashes="hash_ids",
    marks=("chat_id",),
    extras=("parent_chat_id", "type", "turn"),
)
FORMATS = (CHARIOTEER, AZURE, VIDUR, LLMSERVINGSIM, MOONCAKE, BAILIAN)


def recognise(columns: Sequence[str], layout: Layout, where: str) -> Format:
    """Return the format whose columns these are, in any order.

    Raises
    ------
    InputError
        For a column twice, an unknown one (with the name that was probably meant), or a missing one.
    """
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"column {shown(twice)} appears twice", where=where, expected="each column once")
    candidates = [one for one in FORMATS if layout in one.layouts]
    for candidate in candidates:
        if candidate.accepts(columns):
            return candidate
    best = max(candidates, key=lambda one: one.resemblance(columns))
    if best.resemblance(columns) > 0:
        raise best.complaint(columns, where)
    titles = ", ".join(one.title for one in candidates)
    wish = f"the columns of a known format ({titles}), such as {', '.join(candidates[0].known)}"
    raise InputError(f"no known columns in {shown(', '.join(columns))}", where=where, expected=wish)


def shown(value: object, limit: int = 60) -> str:
    """Return ``value`` quoted for a message of one line: control characters escaped, long ones cut."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _nearest(column: str, known: Sequence[str]) -> str | None:
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(column.strip().lower()[:100], lowered, n=1, cutoff=0.75)
    return lowered[found[0]] if found else None
