"""Small drawings in text: how often over time, how many of each length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from traces.workload import IntColumn, Workload

BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = " .:-=+*#@"


def bars(counts: npt.ArrayLike, *, plain: bool = False) -> str:
    """Return one character a count, its height in proportion to the largest; only a count of 0 is a blank.

    Parameters
    ----------
    plain
        Draw with ASCII characters, for terminals that have no others.
    """
    heights = np.asarray(counts, dtype=np.float64)
    levels = PLAIN_BARS if plain else BARS
    top = heights.max(initial=0.0)
    if top == 0:
        return levels[0] * len(heights)
    steps = np.ceil(heights / top * (len(levels) - 1)).astype(int)
    return "".join(levels[step] for step in steps)


def arrival_counts(workload: Workload, width: int) -> IntColumn:
    """Return the arrivals in ``width`` equal parts of the time from the first to the last, int64 [width]."""
    counts, _ = np.histogram(workload.arrival_s, bins=width, range=_span(workload))
    return counts.astype(np.int64)


def _span(workload: Workload) -> tuple[float, float]:
    first, last = float(workload.arrival_s[0]), float(workload.arrival_s[-1])
    return first, last if last > first else first + 1.0


def length_counts(lengths: IntColumn, width: int) -> IntColumn:
    """Return the lengths in ``width`` equal parts from 0 to the largest, int64 [width]."""
    counts, _ = np.histogram(lengths, bins=width, range=(0.0, float(lengths.max())))
    return counts.astype(np.int64)
