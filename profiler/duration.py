"""Durations as people write them on a command line: 60, 60s, 2m, 1h."""

from __future__ import annotations

import re

from traces.errors import InputError

UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
FORM = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)\s*", re.ASCII | re.IGNORECASE)
LONGEST_S = 7 * 24 * 3600.0


def parse_duration(text: str, *, option: str) -> float:
    """Return the seconds that ``text`` says.

    Raises
    ------
    InputError
        If ``text`` is no such duration, is not above 0, or is longer than a week.
    """
    found = FORM.fullmatch(text)
    seconds = float(found[1]) * UNITS_S[found[2].lower()] if found else 0.0
    if not 0 < seconds <= LONGEST_S:
        wish = "a time above 0, up to a week: 60, 60s, 2m or 1h"
        raise InputError(f"{text!r} is no duration" if found is None else f"is {text}", where=option, expected=wish)
    return seconds
