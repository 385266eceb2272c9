"""Single values of a workload file: what each may look like, and what to say of one that does not."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from traces.columns import MAX_LENGTH, MAX_TIME_S
from traces.formats import TICKS_PER_S, Clock, shown

INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
INT64 = range(-(2**63), 2**63)


class BadValueError(Exception):
    """A value that cannot stand in its column.

    Attributes
    ----------
    what, expected
        As in :class:`traces.errors.InputError`.
    """

    def __init__(self, what: str, expected: str) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected


def integer(value: Any, expected: str) -> int:
    """Return the integer of 64 bits that ``value`` is, or is the text of."""
    if isinstance(value, str) and INTEGER.fullmatch(value.strip(" \t")):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refusal(value, expected)
    if value not in INT64:
        raise BadValueError(f"{shown(value)} does not fit 64 bits", expected)
    return value


def number(value: Any, expected: str) -> float:
    """Return the finite number that ``value`` is, or is the text of."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip(" \t")):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _refusal(value, expected)
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise BadValueError(f"{shown(value)} is not a finite number", expected)
    return float(value)


def timestamp_ns(value: Any) -> int:
    """Return the nanoseconds since 1970 of a date and time as text, in UTC where it names no zone."""
    expected = "a time such as 2023-11-16 18:15:46.6805900"
    match = TIMESTAMP.fullmatch(value.strip(" \t")) if isinstance(value, str) else None
    if match is None:
        raise _refusal(value, expected)
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=_zone(zone))
    except ValueError as error:
        raise BadValueError(f"{shown(value)} is no date and time", expected) from error
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    ticks = seconds * 10**9 + int((fraction or "0").ljust(9, "0"))
    if ticks not in INT64:
        raise BadValueError(f"{shown(value)} is out of range", "a year from 1678 to 2261")
    return ticks


def moment(value: Any, clock: Clock) -> float:
    """Return the time that ``value`` is on ``clock``: an int for dates and nanoseconds, a float otherwise."""
    if clock == "timestamp":
        return timestamp_ns(value)
    wish = "nanoseconds, an integer >= 0" if clock == "ns" else "a time, a number >= 0"
    when = integer(value, wish) if clock == "ns" else number(value, wish)
    if when < 0:
        raise BadValueError(f"negative time {shown(value)}", wish)
    if when > MAX_TIME_S * TICKS_PER_S[clock]:
        raise BadValueError(f"the time {shown(value)} is out of range", f"at most {MAX_TIME_S:g} seconds")
    return when


def length(value: Any, *, zero_is_one: bool = False) -> int:
    """Return the length in tokens that ``value`` is; 0 is one token if ``zero_is_one``, else refused."""
    expected = "an integer >= 1"
    tokens = integer(value, expected)
    if tokens < 0:
        raise BadValueError(f"negative length {tokens}", expected)
    if tokens == 0 and not zero_is_one:
        raise BadValueError("length 0", expected)
    if tokens > MAX_LENGTH:
        raise BadValueError(f"length {tokens}", f"an integer from 1 to {MAX_LENGTH}")
    return tokens or 1


def _zone(text: str | None) -> timezone:
    if text is None or text == "Z":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _refusal(value: Any, expected: str) -> BadValueError:
    missing = value is None or (isinstance(value, str) and not value.strip())
    return BadValueError("no value" if missing else shown(value), expected)
