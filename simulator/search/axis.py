"""Lists of values as people write them: 256,512 or 64..1024*2 or 1..4."""

from __future__ import annotations

import re
from itertools import takewhile

from traces.errors import InputError

RANGE = re.compile(r"(\d+)\.\.(\d+)(?:([*+])(\d+))?")
EXPECTED = "integers such as 256,512 or ranges such as 64..1024*2 (doubling) or 1..8+1"
MOST_VALUES = 1000


def parse_integers(text: str, *, where: str) -> tuple[int, ...]:
    """Return the integers that ``text`` lists, each once, in the order given.

    ``a..b`` counts by one, ``a..b+c`` by c, ``a..b*c`` multiplies by c; both ends are in it if they are met.

    Raises
    ------
    InputError
        If a part is neither an integer >= 1 nor a range, or nothing is listed.
    """
    found = [value for part in text.split(",") if part.strip() for value in _part(part.strip(), where)]
    if not found:
        raise InputError("lists nothing", where=where, expected=EXPECTED)
    return tuple(dict.fromkeys(found))


def _part(part: str, where: str) -> list[int]:
    match = RANGE.fullmatch(part)
    if match is None and not part.isdecimal():
        raise InputError(f"cannot read {part!r}", where=where, expected=EXPECTED)
    first, last = (int(part), int(part)) if match is None else (int(match[1]), int(match[2]))
    sign, step = (match[3] or "+", int(match[4] or 1)) if match is not None else ("+", 1)
    if first < 1 or last < first or step < 1 or (sign == "*" and step < 2):
        raise InputError(f"{part!r} holds no integer >= 1", where=where, expected=EXPECTED)
    steps = (first * step**turn if sign == "*" else first + step * turn for turn in range(MOST_VALUES))
    values = list(takewhile(lambda value: value <= last, steps))
    if len(values) == MOST_VALUES:
        raise InputError(f"{part!r} holds {MOST_VALUES} values or more", where=where, expected="fewer")
    return values


def parse_pairs(text: str, *, where: str) -> tuple[tuple[int, int], ...]:
    """Return pairs of prefill and decode replicas, ``1:1,2:1``.

    Raises
    ------
    InputError
        If a part is no pair of integers >= 1, or nothing is listed.
    """
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        prefill, colon, decode = part.partition(":")
        if not colon or not prefill.isdecimal() or not decode.isdecimal() or 0 in (int(prefill), int(decode)):
            wish = "prefill and decode replicas such as 1:1,2:1"
            raise InputError(f"cannot read {part!r}", where=where, expected=wish)
        found.append((int(prefill), int(decode)))
    if not found:
        raise InputError("lists nothing", where=where, expected="prefill and decode replicas such as 1:1,2:1")
    return tuple(dict.fromkeys(found))
