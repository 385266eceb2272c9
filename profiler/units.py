"""Is a column of times in the unit that it is said to be in? Whole tables tell, where single rows cannot."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING

import numpy as np

from profiler.lint import LAUNCH_S, WORK, Columns, Floats, Roofline, by_op, least_s

if TYPE_CHECKING:
    import pyarrow as pa

FASTEST, SLOWEST = 1 / 30, 60.0
"""Between these the median of an op's times lies, in multiples of what the roofline and a launch leave it: 0.18 to
13.5 for every op of the published tables that are known, so that a factor of 1000 leads out of it either way."""
APART = 300.0
"""Rows so many times slower, or faster, than the median are in another unit than the others ..."""
SHARE_APART = 0.02
"""... if there is at least this share of them; a stray row is none (the slowest published one is 390 times off)."""
FEWEST_ROWS = 8
UNITS = ("s", "ms", "us", "ns")


def paces(op: str, columns: Columns, roofline: Roofline) -> Floats:
    """Return each row's time in multiples of what the roofline and a launch leave it."""
    return np.asarray(columns["time_s"] / (least_s(op, columns, roofline) + LAUNCH_S), dtype=np.float64)


def doubt(table: pa.Table, roofline: Roofline, unit: str = "s") -> str | None:
    """Return why the times of ``table`` cannot be in the unit they were read in, or None.

    Parameters
    ----------
    table
        Rows of a profile, before any were refused.
    unit
        What their file counts in, for the message.
    """
    for op, _, columns in by_op(table):
        if op in WORK:
            found = _doubt_of_op(op, paces(op, columns, roofline), unit)
            if found is not None:
                return found
    return None


def _doubt_of_op(op: str, pace: Floats, unit: str) -> str | None:
    pace = pace[pace > 0]
    middle = float(np.median(pace)) if len(pace) else 1.0
    if middle > SLOWEST:
        wrong = f"the median is {middle:,.0f} times what the device needs"
        return f"times of {op} look like {_other(unit, middle)}, not {unit}: {wrong}"
    if middle < FASTEST and len(pace) >= FEWEST_ROWS:
        wrong = f"the median is {1 / middle:,.0f} times faster than the device can be"
        return f"times of {op} look like {_other(unit, middle)}, not {unit}: {wrong}"
    apart = (pace > APART * middle) | (pace < middle / APART)
    if len(pace) >= FEWEST_ROWS and apart.mean() >= SHARE_APART:
        return (
            f"times of {op} look like two units in one column: {apart.sum()} of {len(pace)} rows are far from the rest"
        )
    return None


def _other(unit: str, pace: float) -> str:
    """Return the unit in which the times would be about right."""
    steps = round(log10(pace) / 3) or (1 if pace > 1 else -1)
    place = UNITS.index(unit) + steps
    return UNITS[place] if 0 <= place < len(UNITS) else f"{unit} times {pace:.0e}"
